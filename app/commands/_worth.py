"""`sparsescope probe worth`: what each expert of a mixture is worth."""

from typing import Annotated

import typer

from app.commands._model import DeviceMap, Dtype, Model, RemoteCode
from app.commands._run import guard, progress


@guard
def worth(
    model: Model = "tinymoe",
    secret_experts: Annotated[
        str | None, typer.Option(help="A run of `probe secret`: its students are the experts of the dense model.")
    ] = None,
    text: Annotated[
        str, typer.Option("--text", "--corpus", help="A name or a path; see `sparsescope corpora`.")
    ] = "sotu-modern",
    tokens: Annotated[int, typer.Option(help="Tokens to read; half to fit on, half to score on.")] = 8_000,
    fit_tokens: Annotated[
        int | None, typer.Option(help="Tokens to fit means and affine maps on. Default: half of --tokens.")
    ] = None,
    layer: Annotated[list[int] | None, typer.Option(help="A layer; may be repeated. Default: all.")] = None,
    replace: Annotated[
        list[str] | None, typer.Option(help="zero, mean, affine or random; may be repeated. Default: all.")
    ] = None,
    curves: Annotated[bool, typer.Option(help="Prune and merge experts as well.")] = True,
    word_classes: Annotated[bool, typer.Option(help="Tag the text: damage by word class.")] = True,
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    trust_remote_code: RemoteCode = False,
    seed: Annotated[int, typer.Option(help="Seed of the documents' order and of what is random.")] = 0,
    name: Annotated[str | None, typer.Option(help="Name of the run. Default: made from the settings.")] = None,
) -> None:
    """What is lost without an expert, and what could stand in for it.

    Each expert is left out, or replaced by its mean output, by an affine map of its input (both fitted on other
    documents) or by a random other expert; the change of the loss is paired over documents and given by word class,
    with 95% intervals. Beside it: how alike the experts are (same-token outputs, matrices, gradients) against random
    weights, the loss as experts are pruned and merged, what each writes in the vocabulary, and whether an expert's
    share of a word class predicts its damage there.

    Tables are saved after every layer; Ctrl-C keeps them, the same command goes on.

    Example: `sparsescope probe worth --model tinymoe --tokens 8000`
    """
    from app import jobs
    from app.worth import WorthConfig, work
    from data.config import digest
    from data.runs import create

    asked: dict[str, object] = {
        "model": model,
        "corpus": text,
        "secret_experts": secret_experts,
        "n_tokens": tokens,
        "curves": curves,
        "dtype": dtype,
    }
    asked |= {"fit_tokens": fit_tokens}
    asked |= {"word_classes": word_classes, "device_map": device_map, "trust_remote_code": trust_remote_code}
    asked |= {"seed": seed, "layers": tuple(layer) if layer else None}
    asked |= {"replace": tuple(replace)} if replace else {}
    config = WorthConfig.model_validate(asked)
    run = create(name or f"worth-{digest(config.model_dump(mode='json'))}", config, kind="probe.worth", seed=seed)
    with progress("worth") as tell:
        jobs.carry_out(run, work, tell)
    typer.echo(f"run '{run.name}' is measured ({run.path}); `sparsescope app --run {run.name} --page worth` shows it")
