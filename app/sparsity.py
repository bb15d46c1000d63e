"""How few neurons fire, as one piece of work that fills a run folder."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from app.measurements import Spread, model_and_text
from data.progress import Progress
from data.runs import Run


class SparsityConfig(Spread):
    """Settings of `probe.sparsity`."""

    n_tokens: PositiveInt = 20_000
    """Tokens read."""
    controls: tuple[Literal["gaussian", "random_init", "shuffled"], ...] = ("gaussian", "random_init", "shuffled")
    """Controls measured beside the model."""
    control_tokens: PositiveInt | None = None
    """Tokens that the controls with other weights read; None: as many as the model."""
    word_classes: bool = False
    """Tag the text and measure firing by word class as well."""
    seed: NonNegativeInt = 0
    """Order of the documents, random weights, Gaussian draws."""


def work(run: Run, progress: Progress) -> None:
    """Measure `SparsityConfig` into the run."""
    measure(SparsityConfig.model_validate(run.asked), run, progress)


def measure(config: SparsityConfig, run: Run, progress: Progress) -> None:
    """Open model and text, note their hashes, and measure which neurons fire, beside the controls."""
    model, corpus = model_and_text(config, run, progress)
    from data.wordclass import default_tagger
    from probes import sparsity
    from probes.stream import StreamConfig

    sparsity.measure(
        model,
        corpus,
        config.n_tokens,
        controls=config.controls,
        control_tokens=config.control_tokens,
        tagger=default_tagger() if config.word_classes else None,
        config=StreamConfig(seed=config.seed, shard_tokens=_shard(config.n_tokens)),
        engine=config.engine,
        run=run,
        progress=progress,
    )


def _shard(n_tokens: int) -> int:
    """Tokens a shard: about eight shards, so that pages fill while little work runs, but no larger than usual."""
    return min(8_192, max(1_024, n_tokens // 8))
