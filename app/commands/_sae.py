"""The verb `sparsescope probe sae`."""

from typing import Annotated

import typer

from app.commands._model import DeviceMap, Dtype, Model, RemoteCode
from app.commands._run import guard, progress


@guard
def sae(
    model: Model = "smollm2-135m",
    corpus: Annotated[str, typer.Option(help="A name or a path; see `sparsescope corpora`.")] = "sotu-modern",
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
    device_map: DeviceMap = None,
    trust_remote_code: RemoteCode = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    name: Annotated[str | None, typer.Option(help="Name of the run. Default: made from the settings.")] = None,
) -> None:
    """Train a sparse autoencoder on a layer's activations, or load one, and say what it keeps.

    L0: latents active for a token. FVU: share of the activations' variance that is lost. Loss recovered: how much of
    the harm of removing the layer's output is undone by its reconstruction. Measured on documents that training did not
    read, beside as many principal components as latents are active and a same-size autoencoder on random weights: only
    what beats both is structure that was found.

    Example: `sparsescope probe sae --layer 15 --d-sae 2304 --k 32 --tokens 20000`
    """
    from app import jobs
    from app.commands._columns import echo_columns
    from app.saes import SaeRun, work
    from data.runs import create

    chosen = {"site": site, "layer": layer, "architecture": architecture, "d_sae": d_sae, "k": k, "seed": seed}
    config = SaeRun.model_validate(
        {"model": model, "corpus": corpus, "sae": chosen | {"n_tokens": tokens, "steps": steps}}
        | {"source": load, "sae_id": sae_id, "control": control, "save": save, "dtype": dtype}
        | {"device_map": device_map, "trust_remote_code": trust_remote_code}
    )
    run = create(name or f"sae-{config.digest()}", config, kind="probe.sae", seed=seed)
    with progress("sae") as tell:
        jobs.carry_out(run, work, tell)
    shown = [
        "condition",
        "d_sae",
        "l0",
        "fvu",
        "fvu_low",
        "fvu_high",
        "dead_latents",
        "recovered_mean",
        "recovered_zero",
    ]
    echo_columns(shown, run.table("sae")[shown].round(3).to_numpy().tolist())
    typer.echo(f"run '{run.name}' ({run.path}); its decoder: `{run.path}/sae.safetensors#W_dec`, latents as rows")
