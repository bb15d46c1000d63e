"""Sums over windows of how far their tokens are from one vector, and the spectra of attention patterns."""

from itertools import islice

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from data.corpus import Corpus
from data.progress import Progress
from data.tables import Tables
from probes.collapse import MEASURES, PATTERN_MEASURES, pattern_measures, window_measures
from probes.firing import Sums, interval
from probes.models import LanguageModel, ModelError
from probes.stream import N_BLOCKS, Observation, StreamConfig

FIRST = ("in", "out")
"""Whether the first position of the window (the begin token) is among the vectors that are compared."""


class Residuals(Sums):
    """Sums over whole windows of `window_measures`, by block of documents, before the first and after every block."""

    sites = ("block_input", "block_output")

    def __init__(self, model: LanguageModel, window: int):
        shape = (model.n_layers + 1, N_BLOCKS)
        sums = np.zeros((model.n_layers + 1, len(FIRST), N_BLOCKS, len(MEASURES)))
        super().__init__(sums=sums, windows=np.zeros(shape, dtype=np.int64))
        self.window = window
        self.precision = torch.finfo(model.dtype).eps

    def update(self, seen: Observation) -> None:
        """Measure every whole window of one layer of one batch."""
        if seen.layer == 0:
            self._add(0, seen.sites["block_input"], seen)
        self._add(seen.layer + 1, seen.sites["block_output"], seen)

    def _add(self, depth: int, rows: Tensor, seen: Observation) -> None:
        lengths = [len(window) for window in seen.tokens.windows]
        for window, x in zip(seen.tokens.windows, rows.split(lengths), strict=True):
            if len(window) < self.window:
                continue
            block = window.document_index % N_BLOCKS
            for first, part in enumerate((x, x[1:])):
                self.arrays["sums"][depth, first, block] += window_measures(part).numpy()
            self.arrays["windows"][depth, block] += 1

    def tables(self) -> Tables:
        """`rank_residuals`, without variant and condition."""
        rows = []
        for depth, counts in enumerate(self.arrays["windows"]):
            for first, which in enumerate(FIRST):
                sums = self.arrays["sums"][depth, first]
                for i, name in enumerate(MEASURES if counts.sum() else ()):
                    row = {"layer": depth - 1, "first": which, "measure": name}
                    rows.append(row | _mean(sums[:, i], counts) | {"n_tokens": int(counts.sum()) * self.window})
        return Tables(rank_residuals=DataFrame(rows).assign(precision=self.precision))


def spectra(
    model: LanguageModel, corpus: Corpus, n_windows: int, config: StreamConfig, progress: Progress
) -> DataFrame:
    """Mean over windows, one from each document, of `pattern_measures` of every head of the model as it is."""
    text = config.window - 1
    found = corpus.windows(
        model.tokenizer,
        begin_token_id=model.document_token,
        window=config.window,
        tokens_per_document=text,
        seed=config.seed,
    )
    windows = list(islice((w for w in found if len(w) == config.window), n_windows))
    each: dict[int, list[np.ndarray]] = {}

    def visit(layer: int, sites: dict[str, Tensor]) -> None:
        each.setdefault(layer, []).append(pattern_measures(sites["attention_pattern"][0]).numpy())

    for number, window in enumerate(windows):
        progress(number, len(windows), "attention patterns")
        try:
            model.observe(torch.from_numpy(window.token_ids.astype(np.int64))[None], ("attention_pattern",), visit)
        except ModelError:  # mixtures are not observed inside their attention
            return DataFrame()
    rows = [
        {"layer": layer, "head": head, "measure": name, **_mean(values[:, head, i], np.ones(len(values), dtype=int))}
        for layer, seen in each.items()
        for values in [np.stack(seen)]
        for head in range(values.shape[1])
        for i, name in enumerate(PATTERN_MEASURES)
    ]
    return DataFrame(rows).drop(columns="n_blocks").assign(n_keys=config.window)


def _mean(sums: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    low, high = interval(sums, counts)
    described = {"value": float(sums.sum() / counts.sum()), "low": low, "high": high}
    return described | {"n_windows": int(counts.sum()), "n_blocks": int((counts > 0).sum())}
