"""`sparsescope emergence`: does activation sparsity come by itself, and when?"""

from typing import Annotated

import typer

from app.commands._columns import echo_table
from app.commands._options import Name
from app.commands._run import guard, measured, tell_where

verbs = typer.Typer(
    name="emergence", help="Does activation sparsity come by itself, and when does it not?", no_args_is_help=True
)


@verbs.command("two-layer")
@guard
def two_layer(
    seeds: Annotated[int, typer.Option(help="Networks trained in each setting.")] = 3,
    finite: Annotated[bool, typer.Option("--finite", help="A training set of 4,096 instead of fresh samples.")] = False,
    dependence: Annotated[bool, typer.Option(help="Move widths, classes, samples and step length as well.")] = False,
    name: Name = None,
) -> None:
    """Train a two-layer ReLU network in four settings and count its nonzero hidden activations.

    Uniform inputs with random labels switch almost all of them off; inputs without a common direction, or labels that
    can be learned, leave most of them on. The control is the same network before its first step (about half are on).
    Samples are drawn afresh at every step; with --finite they are read more than twice, random labels begin to be
    memorised, and ReLU-Gaussian inputs end near the 27-28% that have been reported instead of far below.

    Examples: `sparsescope emergence two-layer --seeds 3`, `sparsescope emergence two-layer --finite`
    """
    from app.experiments import TwoLayerRun, two_layer

    config = TwoLayerRun(seeds=seeds, finite=finite, dependence=dependence)
    run = measured("emergence", config, two_layer, kind="emergence.two_layer", name=name)
    echo_table(run.table("emergence_summary"), ["setting", "start", "end", "low", "high", "dead", "n_seeds"])
    tell_where(run, "emergence")


@verbs.command("training")
@guard
def training(
    steps: Annotated[int, typer.Option(help="Training steps of each model.")] = 400,
    family: Annotated[
        str, typer.Option(help="llama, gpt_neox; or a mixture: olmoe, qwen2_moe, deepseek_v3.")
    ] = "llama",
    keep: Annotated[float, typer.Option(help="Share of neurons a top-k keeps for each token.")] = 0.1,
    late: Annotated[float, typer.Option(help="Share of the training after which the late top-k begins.")] = 0.5,
    tokens: Annotated[int, typer.Option(help="Held-out tokens on which each snapshot is measured.")] = 2_000,
    seeds: Annotated[int, typer.Option(help="Trainings of each variant.")] = 3,
    seed: Annotated[int, typer.Option(help="First seed of weights, batches and held-out documents.")] = 0,
    name: Name = None,
) -> None:
    """Train small ReLU language models from scratch and measure every snapshot's sparsity and superposition.

    Each seed once with all neurons, once with only the strongest kept from the start, once with them kept from late in
    training on. The first snapshot, random weights, is the control. A mixture of experts is trained once a seed; of it
    is measured how evenly its routers spread the tokens, how often neighbouring tokens share experts, and how many of
    its last experts a token has already (saturation), each beside chance. Ctrl-C keeps the models; the same command
    goes on.

    Examples: `sparsescope emergence training --steps 400 --keep 0.1`, `sparsescope emergence training --family olmoe`
    """
    from app.experiments import LITTLE, EmergenceRun, training

    model = LITTLE.model_dump() | {"steps": steps, "seed": seed, "family": family}
    config = EmergenceRun.model_validate(
        {"model": model, "keep": keep, "late": late, "n_tokens": tokens, "seeds": seeds}
    )
    run = measured("emergence", config, training, kind="emergence.training", name=name, seed=seed)
    last = run.table("emergence_losses").groupby(["variant", "seed"], sort=False).tail(1)
    echo_table(last, ["variant", "seed", "step", "loss", "loss_all", "unigram"])
    tell_where(run, "emergence")
