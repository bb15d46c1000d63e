"""`sparsescope probe`: measurements on a language model."""

from typing import Annotated

import typer

from app.commands import _keep
from app.commands._experts import experts
from app.commands._memory import memory
from app.commands._options import Dtype, Engine, Hub, Model, Name, Text, opens_a_model
from app.commands._rank import rank
from app.commands._run import guard, measured, tell_where
from app.commands._sae import sae
from app.commands._secret import secret
from app.commands._snapshots import snapshots
from app.commands._worth import worth

verbs = typer.Typer(name="probe")


@verbs.callback()
def probe() -> None:
    """Measure a language model on text; every measure beside its controls.

    sparsity, kinds, rank, memory and experts can read the text on a Ray cluster (--engine ray), to the same tables; the
    others read it in one process.
    """


@verbs.command()
@guard
@opens_a_model
def sparsity(
    model: Model = "smollm2-135m",
    corpus: Text = "sotu-modern",
    tokens: Annotated[int, typer.Option(help="Tokens to read.")] = 20_000,
    control: Annotated[
        list[str] | None, typer.Option(help="gaussian, random_init or shuffled; may be repeated. Default: all.")
    ] = None,
    control_tokens: Annotated[
        int | None, typer.Option(help="Tokens that the random and shuffled controls read. Default: as many.")
    ] = None,
    word_classes: Annotated[bool, typer.Option(help="Tag the text; firing by word class as well.")] = False,
    dtype: Dtype = "auto",
    *,
    hub: Hub,
    seed: Annotated[int, typer.Option(help="Seed of the documents' order and of the controls.")] = 0,
    engine: Engine = "local",
    name: Name = None,
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
    from app.sparsity import SparsityConfig, work

    asked: dict[str, object] = {"model": model, "corpus": corpus, "n_tokens": tokens, "dtype": dtype, "seed": seed}
    asked |= {"control_tokens": control_tokens, "word_classes": word_classes, "engine": engine}
    asked |= {"controls": tuple(control)} if control else {}
    config = SparsityConfig.model_validate(asked | hub)
    tell_where(measured("sparsity", config, work, name=name, seed=seed), "sparsity")


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
