"""How far apart the directions of a dictionary are, and how many active features that guarantees to recover.

    from probes import coherence
    report = coherence.measure(V)             # V (d_model, n_features), columns are features
    report.mu, report.pair, report.welch      # largest |cosine|, where, and the least any dictionary of this size has
    report.k_guaranteed                       # largest k with mu (2k - 1) < 1
    report.neighbours                         # frame: each feature's nearest others

The bounds are worst-case statements: `recovery.empirical` measures what happens beyond them.
"""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from pandas import DataFrame
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from data.progress import Progress, silent
from data.runs import Run
from data.tables import Tables
from probes import bounds, erc
from probes.columns import Columns
from probes.scan import Nearest, nearest

BABEL = 32
"""The Babel function is reported for k = 1 .. 32."""

DOUBLE = 2e10
"""Dictionaries whose full Gram matrix costs fewer multiply-adds than this are scanned in double precision."""

Dictionary = Shaped[Tensor, "d_model n_features"] | Shaped[np.ndarray, "d_model n_features"]


@dataclass(frozen=True, eq=False)
class Report:
    """What `measure` found.  Cosines are between unit columns; every k counts active features."""

    d_model: int
    n_features: int
    centred: bool
    mu: float
    """Mutual coherence max |<v_i, v_j>|, in [0, 1]; 0 when there is one feature."""
    pair: tuple[int, int] | None
    """Two features that attain mu (the smaller index first); None when there is one feature."""
    welch: float
    """Least mu of any dictionary of this size."""
    mu_random: float
    """Median mu of random dictionaries of this size: the control mu is to be read against."""
    average_coherence: float
    """max_i |sum over j != i of <v_i, v_j>| / (F - 1) (Bajwa, Calderbank & Jafarpour 2010)."""
    babel: np.ndarray
    """`babel[k - 1]` = mu_1(k) = max_i of the sum of the k largest |<v_i, v_j>|, k = 1 .. 32; constant beyond F - 1."""
    k_guaranteed: int
    """Largest k with mu (2k - 1) < 1."""
    k_babel: int
    """Largest k with mu_1(k - 1) + mu_1(k) < 1 (never below k_guaranteed)."""
    k_erc: int
    """Largest k such that no support of at most k features was found to violate the exact recovery condition."""
    k_erc_exact: bool
    """Whether k_erc is proven (all supports tried); otherwise it bounds from above what the condition guarantees."""
    nearest: Float[np.ndarray, " n_features"]
    """Largest |cosine| of each feature with another."""
    neighbours: DataFrame
    """Columns `feature, rank, neighbour, cosine` (signed for real dictionaries), nearest first."""
    clusters: DataFrame
    """Near-duplicates: `cluster, feature, size, cosine`; features linked by |cosine| >= the `duplicate` threshold."""
    erc: float | None = None
    """The exact recovery condition's value on the given support (recovery is guaranteed below 1), if one was given."""

    @property
    def welch_ratio(self) -> float:
        """mu / welch: 1 for an equiangular tight frame; infinite where Welch's bound is 0 and mu is not."""
        return self.mu / self.welch if self.welch else (math.inf if self.mu > bounds.ROUNDING else 1.0)

    @property
    def spark(self) -> float:
        """Lower bound on the least number of dependent columns; k < spark/2 codes are unique."""
        return bounds.spark(self.mu)

    @property
    def bottleneck(self) -> float:
        """(1 + sqrt d)/2: no bound through mu certifies more once F is well above d."""
        return bounds.square_root_bottleneck(self.d_model)

    def summary(self) -> DataFrame:
        """One row a quantity: `quantity, value, meaning`."""
        k = max(self.k_guaranteed, 2)
        rows: list[tuple[str, Any, str]] = [
            ("d_model", self.d_model, "dimensions d"),
            ("n_features", self.n_features, "features F"),
            ("mu", self.mu, "mutual coherence: largest |cosine| of two features"),
            ("welch", self.welch, "least mu possible at this size"),
            ("welch_ratio", self.welch_ratio, "mu over the least possible"),
            ("mu_random", self.mu_random, "median mu of random dictionaries of this size (control)"),
            ("average_coherence", self.average_coherence, "largest |mean cosine| of a feature with all others"),
            ("k_guaranteed", self.k_guaranteed, "active features guaranteed by mu (2k - 1) < 1"),
            ("k_babel", self.k_babel, "guaranteed by the Babel function"),
            (
                "k_erc",
                self.k_erc,
                "exact recovery condition" + ("" if self.k_erc_exact else ", at most (supports sampled)"),
            ),
            ("spark", self.spark, "any dependent set of columns has at least so many members"),
            ("bottleneck", self.bottleneck, "(1 + sqrt d)/2: no dictionary with F >> d is certified beyond"),
            (
                "max_features",
                bounds.max_features(self.d_model, k),
                f"no dictionary with more features certifies k = {k}",
            ),
            (
                "random_features",
                bounds.random_features(self.d_model, k),
                f"random dictionary that still certifies k = {k}",
            ),
            (
                "supports_of_features",
                bounds.rounded(bounds.n_supports(self.n_features, k)),
                f"sets of at most {k} of F features",
            ),
            (
                "supports_of_dimensions",
                bounds.rounded(bounds.n_supports(self.d_model, k)),
                f"sets of at most {k} of d neurons",
            ),
            ("clusters", self.clusters["cluster"].nunique(), "groups of near-duplicates"),
            ("near_duplicates", len(self.clusters), "features in such groups"),
            ("median_nearest", float(np.median(self.nearest)), "median |cosine| to the nearest other feature"),
        ]
        return DataFrame(rows, columns=["quantity", "value", "meaning"]).astype({"value": float})

    def tables(self) -> Tables:
        """The frames `summary, babel, nearest, neighbours, clusters`, as a run keeps them."""
        return Tables(
            summary=self.summary(),
            babel=DataFrame({"k": np.arange(1, len(self.babel) + 1), "babel": self.babel}),
            nearest=DataFrame({"feature": np.arange(self.n_features), "cosine": self.nearest}),
            neighbours=self.neighbours,
            clusters=self.clusters,
        )


def measure(
    V: Dictionary,
    *,
    centred: bool = False,
    neighbours: int = 8,
    duplicate: float = 0.99,
    support: Int[Tensor, " k"] | list[int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: Progress = silent,
    checkpoint: Run | None = None,
) -> Report:
    """Coherence of the columns of `V` (d_model, n_features) and what it guarantees; exact over all F (F - 1) / 2 pairs.

    `V` is a tensor or an array of any numeric type, memory-mapped or not; columns are scaled to unit length, and with
    `centred=True` the mean direction is removed first.  `neighbours` nearest others are listed for each feature;
    `support` asks for the exact recovery condition on that set.  `dtype` is the precision of the scan: by default
    double for small dictionaries, float32 (cosines within 1e-6) for large ones; mu itself is always recomputed in
    double.  `progress` may raise `Cancelled`; with `checkpoint` (a run) the same call goes on where it stopped.

    Raises ValueError, naming the column, for NaN, infinite or zero columns, for anything that is not a dense matrix,
    and for `neighbours` outside 0 .. 32.
    Memory: 8 (32 + 24) bytes a feature, a tile, and up to 128 MiB of scaled columns.
    """
    if duplicate != duplicate:
        raise ValueError("duplicate is the |cosine| from which on two features are near-duplicates; give a number")
    if not isinstance(neighbours, Integral) or not 0 <= neighbours <= BABEL:
        raise ValueError(
            f"neighbours={neighbours}: the scan keeps the nearest {BABEL} of a feature; choose 0 to {BABEL}"
        )
    columns = Columns(V, centred=centred, device=device)
    d, n = columns.d_model, columns.n_features
    if dtype is None:
        dtype = torch.float64 if float(n) * n * d <= DOUBLE else torch.float32
    if n > 1:
        near = nearest(columns, min(BABEL, n - 1), dtype=dtype, progress=progress, checkpoint=checkpoint)
    else:
        nothing = torch.zeros(1, 1, device=columns.device)
        near = Nearest(nothing, nothing.int(), nothing.bool())
    mu, pair = _refine(columns, near) if n > 1 else (0.0, None)
    babel, rows = _babel(near, mu)
    k_mu = bounds.k_from_coherence(mu, n)
    k_babel = max(k_mu, bounds.k_from_babel(babel.tolist(), n))
    k_erc, exact = (k_babel, True) if n == 1 else erc.k_exact_recovery(columns, rows, near.others[rows].long(), k_babel)
    return Report(
        d_model=d,
        n_features=n,
        centred=centred,
        mu=mu,
        pair=pair,
        welch=bounds.welch(d, n),
        mu_random=bounds.random_coherence(d, n),
        average_coherence=_average(columns),
        babel=babel,
        k_guaranteed=k_mu,
        k_babel=k_babel,
        k_erc=k_erc,
        k_erc_exact=exact,
        nearest=near.values[:, 0].clamp(0, 1).double().cpu().numpy(),
        neighbours=_neighbours(near, min(neighbours, n - 1)),
        clusters=_clusters(columns, near, float(duplicate)),
        erc=None if support is None else erc.erc_value(columns, support),
    )


def exact_recovery(V: Dictionary, support: Int[Tensor, " k"] | list[int]) -> float:
    """max over j outside S of || V_S^+ v_j ||_1: below 1, OMP and basis pursuit recover every code on the support S."""
    return erc.erc_value(Columns(V), support)


def _cosines(columns: Columns, first: Tensor, second: Tensor) -> Tensor:
    """<v_i, v_j> in double precision for a list of pairs."""
    parts = [
        (columns.pick(i).conj() * columns.pick(j)).sum(0)
        for i, j in zip(first.split(2048), second.split(2048), strict=True)
    ]
    return torch.cat(parts)


def _refine(columns: Columns, near: Nearest) -> tuple[float, tuple[int, int]]:
    """mu and its pair, in double precision, among the pairs within rounding of the largest."""
    largest = near.values[:, 0]
    rows = (largest >= largest.max() - 4e-6).nonzero().view(-1)[:65536]
    others = near.others[rows, 0].long()
    exact = _cosines(columns, rows, others).abs()
    best = int(exact.argmax())
    i, j = sorted((int(rows[best]), int(others[best])))
    return min(1.0, float(exact[best])), (i, j)


def _babel(near: Nearest, mu: float) -> tuple[np.ndarray, Tensor]:
    """mu_1(k) for k = 1 .. 32, and the columns where it is (nearly) attained."""
    sums = near.values.clamp(0, 1).double().cumsum(1)
    top = sums.max(0).values.cpu().numpy()
    babel = np.concatenate([top, np.full(BABEL - len(top), top[-1])])
    babel[0] = mu
    suspects = [sums[:, k].topk(min(16, len(sums))).indices for k in {0, 1, 3, 7, 15, 31} if k < sums.shape[1]]
    return np.maximum.accumulate(babel), torch.cat(suspects).unique()


def _average(columns: Columns) -> float:
    n = columns.n_features
    if n == 1:
        return 0.0
    total = (columns.mean() * n).conj()
    worst = 0.0
    for first in range(0, n, 4096):
        block = columns.block(first, min(first + 4096, n))
        sums = (total.to(block.dtype) @ block) - 1
        worst = max(worst, float(sums.abs().max()))
    return worst / (n - 1)


def _neighbours(near: Nearest, count: int) -> DataFrame:
    n = near.values.shape[0]
    others = near.others[:, :count].cpu()
    values = near.values[:, :count].clamp(0, 1).double().cpu()
    values = torch.where(near.negative[:, :count].cpu(), -values, values)
    return DataFrame(
        {
            "feature": np.repeat(np.arange(n, dtype=np.int32), count),
            "rank": np.tile(np.arange(1, count + 1, dtype=np.int16), n),
            "neighbour": others.numpy().reshape(-1).astype(np.int32),
            "cosine": values.numpy().reshape(-1),
        }
    )


def _clusters(columns: Columns, near: Nearest, threshold: float) -> DataFrame:
    """Connected components of the graph whose edges are |cosine| >= threshold."""
    n = columns.n_features
    labels = np.arange(n)
    close = near.values >= threshold
    if n > 1 and close.any():
        rows, rank = close.nonzero(as_tuple=True)
        labels = _joined(labels, rows, near.others[rows, rank])
        for part in close[:, -1].nonzero().view(-1).split(256):  # more near ones than the scan has kept
            ours = columns.pick(part, torch.float32).mH
            for first in range(0, n, 4096):
                block = columns.block(first, min(first + 4096, n), torch.float32)
                row, column = (torch.mm(ours, block).abs() >= threshold).nonzero(as_tuple=True)
                labels = _joined(labels, part[row], column + first)
    sizes = np.bincount(labels, minlength=n)[labels]
    inside = np.flatnonzero(sizes > 1)
    order = inside[np.lexsort((inside, labels[inside], -sizes[inside]))]
    cluster = np.cumsum(np.diff(labels[order], prepend=labels[order[:1]]) != 0) if len(order) else order
    frame = DataFrame({"cluster": cluster, "feature": order, "size": sizes[order]})
    return frame.assign(cosine=near.values[:, 0].clamp(0, 1).double().cpu().numpy()[order])


def _joined(labels: np.ndarray, first: Tensor, second: Tensor) -> np.ndarray:
    """Labels after linking the features `first[i]` and `second[i]`."""
    n = len(labels)
    ends = labels[first.cpu().numpy()], labels[second.cpu().numpy()]
    graph = coo_array((np.ones(len(ends[0]), dtype=bool), ends), shape=(n, n))
    return connected_components(graph, directed=False)[1][labels]
