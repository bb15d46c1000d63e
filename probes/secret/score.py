"""What a student misses: fraction of variance unexplained, with documents as the unit of resampling."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.firing import N_RESAMPLES, interval
from probes.secret.pairs import Pairs
from probes.secret.students import Student


@dataclass(frozen=True, eq=False)
class Missed:
    """Squared errors and squared deviations from the mean of the rows measured, summed by document."""

    error: Float[np.ndarray, " n_documents"]
    spread: Float[np.ndarray, " n_documents"]
    n: int

    @property
    def fvu(self) -> float:
        """Sum of squared errors over sum of squared deviations; NaN without rows."""
        return float(self.error.sum() / self.spread.sum()) if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """95% percentile bootstrap over documents."""
        return interval(self.error, self.spread)


@torch.no_grad()
def missed(student: Callable[[Tensor], Tensor], pairs: Pairs, index: Int[np.ndarray, " n"]) -> Missed:
    """How far the student is off on these rows; deviations are from the mean of the rows themselves."""
    documents, place = np.unique(pairs.document, return_inverse=True)
    error, spread = np.zeros(len(documents)), np.zeros(len(documents))
    total, seen = torch.zeros(pairs.d_out, dtype=torch.float64), 0
    for _, _, y in pairs.chunks(index):
        total, seen = total + y.double().sum(dim=0), seen + len(y)
    mean = (total / max(seen, 1)).float()
    for part, x, y in pairs.chunks(index):
        np.add.at(error, place[part], (student(x) - y).square().sum(dim=1).double().numpy())
        np.add.at(spread, place[part], (y - mean).square().sum(dim=1).double().numpy())
    held = spread > 0
    return Missed(error[held], spread[held], len(index))


@torch.no_grad()
def distinct_sets(student: Student, pairs: Pairs) -> int:
    """Different sets of experts that the student uses on the held-out rows; 0 without experts."""
    if not student.n_experts:
        return 0
    sets = torch.cat([student.route(x).sort(dim=1).values for _, x, _ in pairs.chunks(pairs.test)])
    return len(sets.unique(dim=0))


def ratio(worse: Missed, better: Missed) -> tuple[float, float, float]:
    """FVU of one student over that of another on the same rows, and its 95% interval over documents, in pairs."""
    low, high = interval(worse.error, better.error)
    return float(worse.error.sum() / better.error.sum()), low, high


def gap(first: list[tuple[Missed, Missed]], second: list[tuple[Missed, Missed]]) -> tuple[float, float, float]:
    """Mean ratio (worse over better) of the runs of one condition less that of another, and its 95% interval.

    Documents are resampled in each condition on their own, alike for all runs (seeds) of it.
    """
    a, b = (_ratios(runs, seed) for seed, runs in enumerate((first, second)))
    drawn = a[1:] - b[1:]
    low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    return float(a[0] - b[0]), low, high


def _ratios(runs: list[tuple[Missed, Missed]], seed: int) -> np.ndarray:
    """Mean ratio over runs: as measured first, then for each resample of documents."""
    n = len(runs[0][0].error)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)
    weights = np.vstack([np.ones(n), drawn])
    return np.mean([(weights @ worse.error) / (weights @ better.error) for worse, better in runs], axis=0)
