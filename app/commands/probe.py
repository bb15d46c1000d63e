"""`sparsescope probe`: measurements on a language model."""

from typing import Annotated

import typer

from app.commands import _keep
from app.commands._experts import experts
from app.commands._memory import memory
from app.commands._model import DeviceMap, Dtype, Model, RemoteCode
from app.commands._rank import rank
from app.commands._run import guard, progress
from app.commands._sae import sae
from app.commands._secret import secret
from app.commands._snapshots import snapshots
from app.commands._worth import worth

verbs = typer.Typer(name="probe", help="Measure a language model on text; every measure beside its controls.")


@verbs.callback()
def probe() -> None:
    """Measure a language model on text; every measure beside its controls."""


@verbs.command()
@guard
def sparsity(
    model: Model = "smollm2-135m",
    corpus: Annotated[str, typer.Option(help="A name or a path; see `sparsescope corpora`.")] = "sotu-modern",
    tokens: Annotated[int, typer.Option(help="Tokens to read.")] = 20_000,
    control: Annotated[
        list[str] | None, typer.Option(help="gaussian, random_init or shuffled; may be repeated. Default: all.")
    ] = None,
    control_tokens: Annotated[
        int | None, typer.Option(help="Tokens that the random and shuffled controls read. Default: as many.")
    ] = None,
    word_classes: Annotated[bool, typer.Option(help="Tag the text; firing by word class as well.")] = False,
    dtype: Dtype = "auto",
    device_map: DeviceMap = None,
    trust_remote_code: RemoteCode = False,
    seed: Annotated[int, typer.Option(help="Seed of the documents' order and of the controls.")] = 0,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster (pip install 'sparsescope[cluster]').")] = (
        "local"
    ),
    name: Annotated[str | None, typer.Option(help="Name of the run. Default: made from model, corpus, tokens.")] = None,
) -> None:
    """How few neurons fire at a time, and how the energy is spread over them, layer by layer.

    Firing: the gate is positive (gated blocks) or the activation is not zero (ReLU). Energy: the share that the top 1,
    5, 10 and 20% of a token's neurons hold. Each with a 95% interval over documents, without attention sinks, and
    beside Gaussian input of the same mean and covariance, random weights and shuffled weights: an untrained network
    has half of its gates open, so only the difference says something about training.

    Also: kinds of neurons (dead to generalized), firing by position, thresholds (TEAL, CATS, CETT).

    Tables `layers`, `neurons`, `sinks`, `kinds`, `positions`, `thresholds` go to the run as they grow; Ctrl-C keeps
    them, the same command goes on.

    Example: `sparsescope probe sparsity --model smollm2-135m --corpus sotu --tokens 20000`
    """
    from app import jobs
    from app.measurements import SparsityConfig, sparsity
    from data.config import digest
    from data.runs import create

    asked: dict[str, object] = {"model": model, "corpus": corpus, "n_tokens": tokens, "dtype": dtype, "seed": seed}
    asked |= {"control_tokens": control_tokens, "word_classes": word_classes, "engine": engine}
    asked |= {"device_map": device_map, "trust_remote_code": trust_remote_code}
    config = SparsityConfig.model_validate(asked | ({"controls": tuple(control)} if control else {}))
    run = create(name or f"sparsity-{digest(config.model_dump(mode='json'))}", config, kind="probe.sparsity", seed=seed)
    with progress("sparsity") as tell:
        jobs.carry_out(run, sparsity, tell)
    typer.echo(
        f"run '{run.name}' is measured ({run.path}); `sparsescope app --run {run.name} --page sparsity` shows it"
    )


verbs.command()(rank)
verbs.command()(memory)


verbs.command()(_keep.keep)
verbs.command()(_keep.kinds)
verbs.command()(_keep.ladder)
verbs.command()(sae)
verbs.command()(secret)
verbs.command()(experts)
verbs.command()(worth)
verbs.command()(snapshots)
