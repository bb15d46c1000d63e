"""`sparsescope probe rank`: rank collapse and the parts of a block that prevent it."""

from typing import Annotated

import typer

from app.commands._options import Dtype, Engine, Hub, Model, Name, Text, opens_a_model
from app.commands._run import guard, measured, tell_where


@guard
@opens_a_model
def rank(
    model: Model = "smollm2-135m",
    corpus: Text = "sotu-modern",
    windows: Annotated[int, typer.Option(help="Windows of text, each from a document of its own.")] = 8,
    window: Annotated[int, typer.Option(help="Positions of a window, its begin token included.")] = 256,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="attention, attention_ffn, attention_skip or full; may be repeated. Default: all."),
    ] = None,
    control: Annotated[
        list[str] | None, typer.Option(help="random_init or shuffled; may be repeated. Default: random_init.")
    ] = None,
    dtype: Dtype = "float32",
    *,
    hub: Hub,
    seed: Annotated[int, typer.Option(help="Seed of the documents' order and of the controls.")] = 0,
    engine: Engine = "local",
    name: Name = None,
) -> None:
    """How fast the tokens of a text become one vector, and which part of the block prevents it.

    After every block: the relative distance of the token vectors to their mean (composite norm of Dong et al. 2021,
    Frobenius, 1 and infinity), stable rank and mean cosine. Four variants of every block: attention, attention and
    feed-forward without skip connections, attention with skip connection, and the model as it is; each with trained
    and with random weights, with and without the first position. Of each attention head: rank, null space, effective
    rank. Attention alone collapses to float32's rounding (bfloat16 hides residuals below 1e-2); the
    model does not.

    Tables `rank_residuals` and `rank_patterns` go to the run as they grow; Ctrl-C keeps them, the same command goes on.

    Example: `sparsescope probe rank --model smollm2-135m --windows 8`
    """
    from app.rank import RankConfig, work

    asked: dict[str, object] = {"model": model, "corpus": corpus, "n_windows": windows, "window": window}
    asked |= {"dtype": dtype, "seed": seed, "engine": engine}
    asked |= {"variants": tuple(variant)} if variant else {}
    asked |= {"controls": tuple(control)} if control else {}
    config = RankConfig.model_validate(asked | hub)
    tell_where(measured("rank", config, work, name=name, seed=seed), "rank")
