"""`sparsescope series`: small mixtures that differ in one thing, trained and measured alike."""

from typing import Annotated

import typer

from app.commands._columns import echo_table
from app.commands._options import Name, Text
from app.commands._run import guard, measured, tell_where

SINGLE = True
verbs = typer.Typer()


@verbs.command()
@guard
def series(
    vary: Annotated[str, typer.Argument(help="granularity, experts, balancing or topk.")] = "granularity",
    family: Annotated[str, typer.Option(help="olmoe, qwen2_moe or deepseek_v3 (the last for balancing).")] = "olmoe",
    experts: Annotated[int, typer.Option(help="Experts of the first model.")] = 8,
    k: Annotated[int, typer.Option(help="Experts used for a token in the first model.")] = 2,
    d_mlp: Annotated[int, typer.Option(help="Width of an expert of the first model.")] = 256,
    d_model: Annotated[int, typer.Option(help="Width of the residual stream.")] = 128,
    layers: Annotated[int, typer.Option(help="Transformer blocks.")] = 4,
    corpus: Text = "sotu",
    steps: Annotated[int, typer.Option(help="Training steps of each model, 1,024 tokens each.")] = 600,
    tokens: Annotated[int, typer.Option(help="Held-out tokens on which each trained model is measured.")] = 10_000,
    seeds: Annotated[int, typer.Option(help="Trainings of each model.")] = 3,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    name: Name = None,
) -> None:
    """Train mixtures of experts that differ in one thing, and measure what that changes.

    granularity: experts split in two and in four, at equal active parameters, and one choice made a shared expert: do
    finer experts specialise more? experts: E, 2E .. 16E of the same size: do more experts do less each? balancing: the
    same model with no balancing, the auxiliary loss, the router z-loss, a bias outside the gradient, and a capacity
    with drops. Each from several seeds, measured on documents it never read: loss beside a unigram and a Kneser-Ney
    5-gram, information between expert and word class beside its type null, the purest expert for punctuation and for
    verbs beside the base rate, how near experts are to constants, to affine maps and to each other beside random
    weights, and the loads.

    topk: the losses of experts, k of E used, beside a dense model of as many neurons, of which the same share is kept
    after the fact, or in training.

    The default takes about 40 minutes on two cores. Ctrl-C keeps what is trained; the same command goes on.

    Examples: `sparsescope series granularity`, `sparsescope series balancing --steps 300 --seeds 1`
    """
    from app.series import work
    from app.series_models import BASE, SeriesRun
    from toymodels.language_config import LanguageConfig

    first = {"family": family, "n_experts": experts, "k": k, "d_mlp": d_mlp, "d_model": d_model, "n_layers": layers}
    kept = BASE.model_dump(exclude={"balancing"})
    model = LanguageConfig.model_validate(kept | first | {"corpus": corpus, "steps": steps, "seed": seed})
    config = SeriesRun.model_validate({"vary": vary, "model": model, "seeds": seeds, "n_tokens": tokens})
    run = measured(f"series-{vary}", config, work, kind="series", name=name, seed=seed)
    echo_table(run.table("series_models"), ["variant", "seed", "parameters", "active", "loss", "kneser_ney"])
    if vary == "topk":
        echo_table(run.table("series_topk"), ["trained", "choice", "share", "loss", "change", "low", "high"])
    tell_where(run, "training")
