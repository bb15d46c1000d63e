"""The verb `sparsescope probe sae`."""

from typing import Annotated

import typer

from app.commands._columns import echo_table
from app.commands._options import Dtype, Hub, Model, Name, Text, opens_a_model
from app.commands._run import guard, measured, tell_where


@guard
@opens_a_model
def sae(
    model: Model = "smollm2-135m",
    corpus: Text = "sotu-modern",
    site: Annotated[str, typer.Option(help="block_output, ffn_input, neurons, ffn_output, ...")] = "block_output",
    layer: Annotated[int | None, typer.Option(help="Layer. Default: the middle one.")] = None,
    architecture: Annotated[str, typer.Option(help="topk, batchtopk, jumprelu or standard.")] = "topk",
    d_sae: Annotated[int | None, typer.Option(help="Latents. Default: four times the width.")] = None,
    k: Annotated[int, typer.Option(help="Active latents of a token (topk, batchtopk).")] = 32,
    tokens: Annotated[int, typer.Option(help="Tokens to read.")] = 20_000,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 1_000,
    load: Annotated[str | None, typer.Option(help="Measure this one: a sae-lens folder, or a release.")] = None,
    sae_id: Annotated[str | None, typer.Option(help="With --load: id within the release.")] = None,
    save: Annotated[str | None, typer.Option(help="Folder for the autoencoder in sae-lens's format.")] = None,
    control: Annotated[bool, typer.Option(help="Measure principal components and random weights as well.")] = True,
    dtype: Dtype = "auto",
    *,
    hub: Hub,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    name: Name = None,
) -> None:
    """Train a sparse autoencoder on a layer's activations, or load one, and say what it keeps.

    L0: latents active for a token. FVU: share of the activations' variance that is lost. Loss recovered: how much of
    the harm of removing the layer's output is undone by its reconstruction. Measured on documents that training did not
    read, beside as many principal components as latents are active and a same-size autoencoder on random weights: only
    what beats both is structure that was found.

    Example: `sparsescope probe sae --layer 15 --d-sae 2304 --k 32 --tokens 20000`
    """
    from app.saes import SaeRun, work

    chosen = {"site": site, "layer": layer, "architecture": architecture, "d_sae": d_sae, "k": k, "seed": seed}
    config = SaeRun.model_validate(
        {"model": model, "corpus": corpus, "sae": chosen | {"n_tokens": tokens, "steps": steps}}
        | {"source": load, "sae_id": sae_id, "control": control, "save": save, "dtype": dtype}
        | hub
    )
    run = measured("sae", config, work, name=name, seed=seed)
    shown = ["condition", "d_sae", "l0", "fvu", "fvu_low", "fvu_high", "dead_latents"]
    echo_table(run.table("sae"), [*shown, "recovered_mean", "recovered_zero"])
    typer.echo(f"its decoder: `{run.path}/sae.safetensors#W_dec`, latents as rows")
    tell_where(run, "saes")
