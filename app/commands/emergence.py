"""`sparsescope emergence`: does activation sparsity come by itself, and when?"""

from typing import Annotated

import typer

from app.commands._run import guard, progress

verbs = typer.Typer(
    name="emergence", help="Does activation sparsity come by itself, and when does it not?", no_args_is_help=True
)


@verbs.command("two-layer")
@guard
def two_layer(
    seeds: Annotated[int, typer.Option(help="Networks trained in each setting.")] = 3,
    finite: Annotated[bool, typer.Option("--finite", help="A training set of 4,096 instead of fresh samples.")] = False,
    dependence: Annotated[bool, typer.Option(help="Move widths, classes, samples and step length as well.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the run. Default: made from the settings.")] = None,
) -> None:
    """Train a two-layer ReLU network in four settings and count its nonzero hidden activations.

    Uniform inputs with random labels switch almost all of them off; inputs without a common direction, or labels that
    can be learned, leave most of them on. The control is the same network before its first step (about half are on).
    Samples are drawn afresh at every step; with --finite they are read more than twice, random labels begin to be
    memorised, and ReLU-Gaussian inputs end near the 27-28% that have been reported instead of far below.

    Examples: `sparsescope emergence two-layer --seeds 3`, `sparsescope emergence two-layer --finite`
    """
    from app import jobs
    from app.commands._columns import echo_columns
    from app.experiments import TwoLayerRun, two_layer
    from data.runs import create

    config = TwoLayerRun(seeds=seeds, finite=finite, dependence=dependence)
    run = create(name or f"emergence-{config.digest()}", config, kind="emergence.two_layer", seed=0)
    with progress("emergence") as tell:
        jobs.carry_out(run, two_layer, tell)
    shown = ["setting", "start", "end", "low", "high", "dead", "n_seeds"]
    echo_columns(shown, run.table("emergence_summary")[shown].round(3).to_numpy().tolist())
    typer.echo(f"run '{run.name}' ({run.path}); `sparsescope app --run {run.name} --page emergence` shows it")


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
    name: Annotated[str | None, typer.Option(help="Name of the run. Default: made from the settings.")] = None,
) -> None:
    """Train small ReLU language models from scratch and measure every snapshot's sparsity and superposition.

    Each seed once with all neurons, once with only the strongest kept from the start, once with them kept from late in
    training on. The first snapshot, random weights, is the control. A mixture of experts is trained once a seed; of it
    is measured how evenly its routers spread the tokens, how often neighbouring tokens share experts, and how many of
    its last experts a token has already (saturation), each beside chance. Ctrl-C keeps the models; the same command
    goes on.

    Examples: `sparsescope emergence training --steps 400 --keep 0.1`, `sparsescope emergence training --family olmoe`
    """
    from app import jobs
    from app.commands._columns import echo_columns
    from app.experiments import LITTLE, EmergenceRun, training
    from data.runs import create

    model = LITTLE.model_dump() | {"steps": steps, "seed": seed, "family": family}
    config = EmergenceRun.model_validate(
        {"model": model, "keep": keep, "late": late, "n_tokens": tokens, "seeds": seeds}
    )
    run = create(name or f"emergence-{config.digest()}", config, kind="emergence.training", seed=seed)
    with progress("emergence") as tell:
        jobs.carry_out(run, training, tell)
    shown = ["variant", "seed", "step", "loss", "loss_all", "unigram"]
    last = run.table("emergence_losses").groupby(["variant", "seed"], sort=False).tail(1)
    echo_columns(shown, last[shown].round(3).to_numpy().tolist())
    typer.echo(f"run '{run.name}' ({run.path}); `sparsescope app --run {run.name} --page emergence` shows it")
