"""Rank collapse of a language model as one piece of work that fills a run folder."""

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from app.measurements import Dtype, Spread, model_and_text
from data.progress import Progress
from data.runs import Run

Variant = Literal["attention", "attention_ffn", "attention_skip", "full"]


class RankConfig(Spread):
    """Settings of `probe.rank`."""

    n_windows: PositiveInt = 8
    """Windows measured, each from a document of its own where there are enough."""
    window: int = Field(256, ge=8)
    """Positions of a window, its begin token included; a residual depends on how many there are."""
    variants: tuple[Variant, ...] = ("attention", "attention_ffn", "attention_skip", "full")
    """What a block consists of."""
    controls: tuple[Literal["random_init", "shuffled"], ...] = ("random_init",)
    """Controls measured beside the model."""
    pattern_windows: PositiveInt = 8
    """Windows whose attention patterns are measured."""
    dtype: Dtype = "float32"
    """Number type of the forward pass; bfloat16 cannot tell residuals below 1e-2 from zero."""
    seed: NonNegativeInt = 0
    """Order of the documents, random weights."""


def work(run: Run, progress: Progress) -> None:
    """Measure `RankConfig` into the run."""
    config = RankConfig.model_validate(run.asked)
    measure(config, run, progress)


def demo(run: Run, config: Any, progress: Progress) -> None:
    """The demo's part: four windows of 128 under all variants."""
    asked = RankConfig(
        model=config.model, corpus=config.corpus, n_windows=4, window=128, pattern_windows=2, seed=config.seed
    )
    # the folder names the model in the number type of the other parts, which has another hash
    measure(asked, run, progress, role=None)


def measure(config: RankConfig, run: Run, progress: Progress, role: str | None = "model") -> None:
    """Open model and text, note their hashes, and fill `rank_residuals` and `rank_patterns`."""
    model, corpus = model_and_text(config, run, progress, role=role)
    from probes import rank
    from probes.stream import StreamConfig

    text = config.window - 1
    rank.measure(
        model,
        corpus,
        config.n_windows * text,
        variants=config.variants,
        controls=config.controls,
        pattern_windows=config.pattern_windows,
        config=StreamConfig(window=config.window, shard_tokens=2_048, seed=config.seed),
        engine=config.engine,
        run=run,
        progress=progress,
    )
