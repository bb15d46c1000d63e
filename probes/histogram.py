"""A streamed histogram of activations on a logarithmic axis, read off the bits of the floating-point numbers.

The exponent and the first seven bits of the mantissa of a positive float, taken as an integer, grow with its logarithm:
128 bins an octave without a logarithm, a comparison or a sort.  bfloat16 has no more bits than these, so there each bin
holds one value and every quantile is exact; float32 is interpolated inside a bin, which is less than 1% wide.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numba import njit
from torch import Tensor

from data.tables import Tables
from probes.firing import N_FOLDS, Sums
from probes.models import LanguageModel
from probes.stream import Observation

LOWEST, HIGHEST = -24, 16
"""Powers of two between which values are told apart; smaller ones count as 0, larger ones as the largest."""
PER_OCTAVE = 128
N_BINS = (HIGHEST - LOWEST) * PER_OCTAVE
_FIRST = (127 + LOWEST) * PER_OCTAVE
EDGES = np.exp2(LOWEST + np.arange(N_BINS) // PER_OCTAVE) * (1 + np.arange(N_BINS) % PER_OCTAVE / PER_OCTAVE)
"""Smallest value of each bin; bin 0 also holds everything smaller."""


class LogHistogram(Sums):
    """Counts of one site's values by sign and size for each layer, ordinary tokens only, in folds of documents."""

    def __init__(self, model: LanguageModel, site: str, stride: int = 1):
        super().__init__(
            counts=np.zeros((model.n_layers, N_FOLDS, 2, N_BINS), dtype=np.int64),
            tokens=np.zeros((model.n_layers, N_FOLDS), dtype=np.int64),
        )
        self.sites = (site,)
        self.stride = stride
        self.atoms = model.dtype == torch.bfloat16
        """Whether a bin holds one value only."""

    def update(self, seen: Observation) -> None:
        """Count every value of every `stride`-th token."""
        values = seen.sites.get(self.sites[0])
        if values is None:
            return
        start = seen.tokens.start % self.stride
        fold, bits = folds(seen)[start :: self.stride], _bits(values[start :: self.stride])
        if bits.device.type == "cpu":
            count(bits.numpy(), 8 * (bits.element_size() - 2), fold.numpy(), self._arrays["counts"][seen.layer])
        else:
            self.add("counts", seen.layer, counted(bits, fold))
        self.add("tokens", seen.layer, (fold[:, None] == torch.arange(N_FOLDS, device=fold.device)).sum(dim=0))

    def tables(self) -> Tables:
        """None: a histogram is what thresholds are read from."""
        return Tables()

    def fold_sizes(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """Counts by size whatever the sign (N_FOLDS, N_BINS), and tokens (N_FOLDS)."""
        return self.arrays["counts"][layer].sum(axis=1), self.arrays["tokens"][layer]

    def mapped(self, layer: int, function: Callable[[Tensor], Tensor]) -> "Mapped":
        """The histogram of |function(value)|, where `function` is monotone on almost every bin."""
        low, high = self._ends()
        ends = [function(torch.from_numpy(np.stack([-end, end]))).abs().numpy().ravel() for end in (low, high)]
        low, high = np.minimum(*ends), np.maximum(*ends)
        counts = self.arrays["counts"][layer].reshape(N_FOLDS, -1)
        order = np.flatnonzero(counts.any(axis=0))
        order = order[np.argsort(low[order], kind="stable")]
        return Mapped(low[order], high[order], counts[:, order])

    def centres(self) -> np.ndarray:
        """The value that stands for each bin; 0 for the first, which holds zeros and what is next to zero."""
        low, high = self._ends()
        return (low + high) / 2

    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest size in each bin."""
        low = EDGES * 1.0
        high = low if self.atoms else np.append(EDGES[1:], 2 * EDGES[-1])
        low[0] = high[0] = 0.0
        return low, high


class Mapped(NamedTuple):
    """Counts of values known to lie between two sizes each, `low` rising."""

    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    counts: Int[np.ndarray, "n_folds n"]

    def quantile(self, keep: Int[np.ndarray, " kept"], share: float) -> float:
        """The size at or below which `share` of the values of these folds lie, each spread evenly over its bin."""
        weights = self.counts[keep].sum(axis=0)
        running = weights.cumsum()
        if not len(running) or not running[-1]:
            return float("nan")
        goal = share * running[-1]
        if np.array_equal(self.low, self.high):  # one value a bin: nothing to spread
            return float(self.low[np.searchsorted(running, goal)])
        used = np.flatnonzero(weights)
        low, high, weights = self.low[used], self.high[used], weights[used]
        bottom, top = 0.0, float(high.max())
        for _ in range(34):  # the share below rises with the size: halve the interval
            middle = (bottom + top) / 2
            inside = np.clip((middle - low) / np.maximum(high - low, 1e-300), 0, 1) * (middle >= low)
            bottom, top = (middle, top) if (weights * inside).sum() < goal else (bottom, middle)
        return top


def share_below(counts: np.ndarray, threshold: float, atoms: bool) -> float:
    """Share of |values| below `threshold`, from counts by size (N_BINS); NaN for no counts."""
    running = np.concatenate([[0], counts.cumsum()])
    if not running[-1]:
        return float("nan")
    place = int(np.searchsorted(EDGES, threshold, side="right")) - 1  # the bin that holds the threshold
    if place < 0:
        return 0.0
    if atoms:
        return float(running[place + (EDGES[place] < threshold)] / running[-1])
    above = EDGES[place + 1] if place + 1 < N_BINS else 2 * EDGES[place]
    inside = (threshold - EDGES[place]) / (above - EDGES[place])
    return float((running[place] + min(inside, 1.0) * counts[place]) / running[-1])


def size_quantile(counts: np.ndarray, share: float, atoms: bool) -> float:
    """The size at or below which `share` of the |values| lie, from counts by size (N_BINS); NaN for no counts."""
    running = counts.cumsum()
    if not running[-1]:
        return float("nan")
    goal = share * running[-1]
    place = int(np.searchsorted(running, goal))
    if place == 0:
        return 0.0
    if atoms:
        return float(EDGES[place])
    above = EDGES[place + 1] if place + 1 < N_BINS else 2 * EDGES[place]
    inside = (goal - running[place - 1]) / counts[place]
    return float(EDGES[place] + inside * (above - EDGES[place]))


def root_mean_square(counts: np.ndarray, centres: np.ndarray) -> float:
    """sqrt(mean value^2) from counts by size."""
    return float(np.sqrt((counts * centres**2).sum() / counts.sum())) if counts.sum() else float("nan")


def folds(seen: Observation) -> Tensor:
    """Fold of each token's document, -1 for attention sinks and first positions."""
    return seen.fold.masked_fill(~seen.kept, -1)


@njit(nogil=True, cache=True)
def count(bits: np.ndarray, shift: int, fold: np.ndarray, out: np.ndarray) -> None:
    """Add each row's values to `out` (N_FOLDS, 2, N_BINS) at its fold, its sign (0: negative) and its size's bin."""
    for row in range(bits.shape[0]):
        if fold[row] < 0:
            continue
        counts = out[fold[row]]
        for column in range(bits.shape[1]):
            value = bits[row, column]
            size = ((value >> shift) & 0x7FFF) - _FIRST
            size = 0 if size < 0 else (N_BINS - 1 if size >= N_BINS else size)
            counts[0 if value < 0 else 1, size] += 1


def counted(bits: Int[Tensor, "n_tokens width"], fold: Int[Tensor, " n_tokens"]) -> Int[Tensor, "n_folds two n_bins"]:
    """What `count` adds, in torch operations, for values on a GPU.

    Every pattern of sign, exponent and seven bits of mantissa is counted, those outside the bins' range too.
    """
    signs = 2**15
    if bits.element_size() == 4:
        bits = (bits >> 16).short()
    # tokens of no fold are counted behind the last and left out; a pattern is a number from -2^15 on
    corner = (fold.masked_fill(fold < 0, N_FOLDS) * 2 + 1) * signs
    cells = torch.zeros((N_FOLDS + 1) * 2 * signs, dtype=torch.int32, device=bits.device)
    one = cells.new_ones(1)
    rows = max(1, 2**25 // bits.shape[1])
    for some, at in zip(bits.split(rows), corner.split(rows), strict=True):
        cells.scatter_add_(0, (some + at[:, None]).view(-1), one.expand(some.numel()))
    of_fold = cells.view(-1, 2, signs)[:N_FOLDS]
    found = of_fold[:, :, _FIRST : _FIRST + N_BINS].long()
    found[:, :, 0] += of_fold[:, :, :_FIRST].sum(dim=2)
    found[:, :, -1] += of_fold[:, :, _FIRST + N_BINS :].sum(dim=2)
    return found


def _bits(values: Float[Tensor, "n_tokens width"]) -> Int[Tensor, "n_tokens width"]:
    """The numbers' bits as integers: of bfloat16 two bytes, of others those of float32."""
    if values.dtype == torch.bfloat16:
        return values.view(torch.int16)
    return values.float().contiguous().view(torch.int32)
