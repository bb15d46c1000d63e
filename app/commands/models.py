"""`sparsescope models`: language models that can be measured."""

from typing import Annotated

import typer

from app.commands._options import Hub, opens_a_model
from app.commands._run import guard, progress

SINGLE = True
verbs = typer.Typer()


@verbs.command()
@guard
@opens_a_model
def models(
    source: Annotated[
        str | None, typer.Argument(help="Model to open and describe: a name, a GGUF file, a folder, a hub name.")
    ] = None,
    *,
    hub: Hub,
) -> None:
    """List the models known by name, or open one and say what it is made of (and fetch it, the first time).

    A model is a name (`smollm2-135m`), a GGUF file, a folder in transformers' format or a name on the Hugging Face hub.

    Examples: `sparsescope models`, `sparsescope models smollm2-135m`
    """
    from probes.models import known_models, open_model

    if source is None:
        for name, what in known_models().items():
            typer.echo(f"{name:16} {what}")
        typer.echo("also: any GGUF file, any local folder in transformers' format, any name on the Hugging Face hub")
        return
    with progress("opening") as tell:
        model = open_model(source, **hub, progress=tell)
    kinds = sorted({block.kind for block in model.blocks})
    typer.echo(model.title)
    for name, value in (
        ("layers", model.n_layers),
        ("d_model", model.d_model),
        ("d_mlp", getattr(model, "d_mlp", None)),
        ("feed-forward blocks", ", ".join(kinds)),
        ("read from", model.source),
    ):
        if value is not None:
            typer.echo(f"  {name:20} {value}")
