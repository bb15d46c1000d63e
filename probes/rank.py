"""Rank collapse: do the tokens of a window become one vector, and which part of the block keeps them apart?"""

from collections.abc import Iterable, Sequence
from typing import Literal

import pandas as pd
from pandas import DataFrame

from data.corpus import Corpus
from data.progress import Progress, silent
from data.runs import Run
from data.tables import Tables
from probes import controls as controlled
from probes import stream
from probes.collapse import MEASURES, PATTERN_MEASURES, pattern_measures, window_measures
from probes.models import LanguageModel
from probes.residuals import Residuals, spectra
from probes.stream import StreamConfig
from probes.variants import VARIANTS, Variant, edits, is_sequential

Control = Literal["random_init", "shuffled"]
CONTROLS: tuple[Control, ...] = ("random_init", "shuffled")

__all__ = [
    "CONTROLS",
    "MEASURES",
    "PATTERN_MEASURES",
    "VARIANTS",
    "edits",
    "measure",
    "pattern_measures",
    "window_measures",
]


def measure(
    model: LanguageModel,
    corpus: Corpus,
    n_tokens: int = 2_040,
    *,
    variants: Sequence[Variant] = VARIANTS,
    controls: Sequence[Control] = ("random_init",),
    pattern_windows: int = 8,
    config: StreamConfig | None = None,
    engine: stream.Where = "local",
    run: Run | None = None,
    progress: Progress = silent,
) -> Tables:
    """Residual to the mean token, stable rank and cosine after every block of four variants of the model.

    The variants (see `edits`) are those of Dong et al. 2021: attention alone, with feed-forward block, with skip
    connection, with both (the model as it is).  Each is measured with the trained weights (`real`) and under each
    control: `random_init` (as initialised), `shuffled` (feed-forward weights in random order).

    One observation is one window; only whole windows count, since a residual depends on how many tokens there are.
    Unless `config` says otherwise, every window is from a document of its own while there are enough of them.
    Where attention alone collapses, float32 cannot tell a residual below about 1e-6 from zero, bfloat16 none below
    about 1e-2: column `precision` holds the spacing of numbers at 1 in the model's own type.

    Tables
        rank_residuals  layer (-1: before the first block), variant, condition, first (`in` / `out`: the first position
                        among the vectors or not), measure (MEASURES), value (mean over windows), low, high (95%,
                        documents resampled), n_windows, n_tokens, n_blocks, precision
        rank_patterns   layer, head, condition, measure (PATTERN_MEASURES), value, low, high, n_windows, n_keys; of the
                        full model, one window from each of `pattern_windows` documents; empty if the model hides them

    With `run`, tables are saved after every shard and a stopped measurement resumes at its last whole shard.
    `engine="ray"` reads on a cluster, see `probes.stream.run`.
    Raises ValueError for unknown names, for a model whose block is not input + attention + feed-forward, and where no
    document fills a window.
    """
    _check(variants, controls)
    config = (config or StreamConfig()).model_copy(update={"n_tokens": n_tokens})
    if config.tokens_per_document is None:
        text = config.window - 1
        each = max(1, -(-n_tokens // (text * len(corpus)))) * text
        config = config.model_copy(update={"tokens_per_document": each})
    residuals: dict[tuple[str, str], DataFrame] = {}
    patterns: dict[str, DataFrame] = {}
    parts, before = (len(variants) + 1) * (1 + len(controls)), 0

    def keep() -> Tables:
        found = Tables(rank_residuals=_stacked(residuals.values()), rank_patterns=_stacked(patterns.values()))
        if run is not None:
            run.save_tables({name: frame for name, frame in found.items() if len(frame)})
        return found

    def told(done: float, total: float, note: str = "") -> None:
        progress(before + done / total, parts, note)

    for condition in ("real", *controls):
        measured = _under(condition, model, config.seed)
        sequential = is_sequential(measured)
        for variant in variants:
            tally = Residuals(measured, config.window)

            def show(_: object = None, place: tuple[str, str] = (condition, variant), tally: Residuals = tally) -> None:
                residuals[place] = tally.tables().rank_residuals.assign(condition=place[0], variant=place[1])
                keep()

            with measured.edited(edits(measured, variant, sequential=sequential)):
                stream.run(
                    measured,
                    corpus,
                    {"residuals": tally},
                    config,
                    saved_in=run,
                    stage=f"rank_{condition}_{variant}",
                    engine=engine,
                    progress=told,
                    after_shard=show,
                )
            show()
            if not len(residuals[condition, variant]):
                raise ValueError(f"no document fills a window of {config.window} positions; choose a smaller window")
            before += 1
        patterns[condition] = spectra(measured, corpus, pattern_windows, config, told).assign(condition=condition)
        before += 1
    return keep()


def _check(variants: Sequence[str], controls: Sequence[str]) -> None:
    for name, known, what in [(v, VARIANTS, "variant") for v in variants] + [
        (c, CONTROLS, "control") for c in controls
    ]:
        if name not in known:
            raise ValueError(f"'{name}' is not a {what}; choose among {', '.join(known)}")
    if not variants:
        raise ValueError(f"no variant to measure; choose among {', '.join(VARIANTS)}")


def _under(condition: str, model: LanguageModel, seed: int) -> LanguageModel:
    if condition == "real":
        return model
    return (controlled.random_init if condition == "random_init" else controlled.shuffled)(model, seed)


def _stacked(frames: Iterable[DataFrame]) -> DataFrame:
    kept = [frame for frame in frames if len(frame)]
    return pd.concat(kept, ignore_index=True) if kept else DataFrame()
