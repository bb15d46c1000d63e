"""A mixture of affine experts in closed form: cells of the inputs, a ridge regression of reduced rank in each.

With x, y centred in cell c, G_c = X'X + ridge I and a prior map P (the regression common to all cells),

    B_c = P + G_c^-1 X'(Y - X P),          truncated to rank r:  B_c V_r V_r',

V_r the leading eigenvectors of B_c' G_c B_c: the exact minimiser of the ridge objective among maps of rank r.  A shared
part of rank s is taken off y first.  No step is by gradient; every sum is over one cell's rows at a time.
Source: reduced-rank regression (Izenman 1975; Mukherjee & Zhu 2011 for the ridge); k-means by scikit-learn.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.progress import Progress, silent
from probes.secret.pairs import CHUNK, Pairs, rows_of
from probes.secret.students import CellMixture

FULL_EIGEN = 3
"""Below a third of the width the leading eigenvectors come from a randomised range finder."""


@dataclass(frozen=True)
class Shape:
    """What a mixture in closed form looks like."""

    n_experts: int = 64
    rank: int = 64
    """Of each expert's map; 0 leaves a constant."""
    shared: int = 0
    """Rank of the part that all tokens share."""
    k: int = 1
    """Experts mixed for a token."""
    ridge: float = 100.0
    """In units of the mean variance of an input coordinate."""
    prior: bool = True
    """Shrink each expert towards the map common to all cells (else towards 0)."""
    kmeans_rows: int = 20_000
    """Rows the centroids are fitted on."""


def fit_mixture(pairs: Pairs, shape: Shape, seed: int = 0, progress: Progress = silent) -> CellMixture:
    """The mixture for the training rows; ValueError if the shape does not fit them."""
    _check(pairs, shape)
    centroids = cells(pairs, shape.n_experts, seed, shape.kmeans_rows)
    progress(1, 4, "cells found")
    mixture = fit_experts(pairs, centroids, shape, seed, progress)
    progress(4, 4, f"{shape.n_experts} experts fitted")
    return mixture


def fit_experts(
    pairs: Pairs, centroids: Float[Tensor, "n_experts d_in"], shape: Shape, seed: int = 0, progress: Progress = silent
) -> CellMixture:
    """The mixture whose cells are those of the nearest centroids."""
    empty = CellMixture(**parts(pairs, centroids, shape), temperature=_temperature(pairs, centroids, shape.k))
    return fill(empty, pairs, shape, seed, progress)


def parts(pairs: Pairs, centroids: Float[Tensor, "n_experts d_in"], shape: Shape) -> dict[str, Any]:
    """What a mixture of this shape consists of, all but the centroids 0."""
    n_experts, (d_in, d_out) = len(centroids), (pairs.d_in, pairs.d_out)
    return {
        "centroids": centroids,
        "read": torch.zeros(n_experts, d_in, shape.rank),
        "write": torch.zeros(n_experts, shape.rank, d_out),
        "bias": torch.zeros(n_experts, d_out),
        "shared_read": torch.zeros(d_in, shape.shared),
        "shared_write": torch.zeros(shape.shared, d_out),
        "k": shape.k,
    }


def fill(mixture: CellMixture, pairs: Pairs, shape: Shape, seed: int = 0, progress: Progress = silent) -> CellMixture:
    """Fit all but the choice of cells, in place; the mixture chooses, however it does."""
    d_in, d_out = pairs.d_in, pairs.d_out
    if not shape.rank and not shape.shared and mixture.k == 1:
        return _constants(mixture, pairs)
    members = _members(pairs, mixture)
    variance = _mean_variance(pairs)
    common = torch.zeros(d_in, d_out)
    if shape.shared or (shape.prior and shape.rank):
        total = _Sums(d_in, d_out)
        for rows, weight in members:
            total.add(_moments(pairs, rows, weight))
        common, gram = total.solve(shape.ridge * variance, torch.zeros(d_in, d_out))
        if shape.shared:
            read, write = _truncate(common, gram, shape.shared, seed)
            mixture.shared_read.copy_(read)
            mixture.shared_write.copy_(write)
    progress(2, 4, "the part common to all cells")
    off = mixture.shared_read @ mixture.shared_write
    prior = common - off if shape.prior else torch.zeros_like(common)
    for e, (rows, weight) in enumerate(members):
        if not len(rows):  # a cell that no training row chose answers with the mean
            mixture.bias[e] = mean_of(pairs.y, pairs.train)
            continue
        found = _moments(pairs, rows, weight)
        found.cross -= found.gram @ off.double()
        if shape.rank:
            slope, gram = found.solve(shape.ridge * variance, prior)
            mixture.read[e], mixture.write[e] = _truncate(slope, gram, shape.rank, seed)
        slope = mixture.read[e] @ mixture.write[e] + off
        mixture.bias[e] = found.mean_y.float() - found.mean_x.float() @ slope
    return mixture


def _constants(mixture: CellMixture, pairs: Pairs) -> CellMixture:
    """Each cell's mean output; the mean of all where no training row chose the cell."""
    total = torch.zeros(mixture.bias.shape, dtype=torch.float64)
    count = torch.zeros(len(total), dtype=torch.float64)
    for _, x, y in pairs.chunks(pairs.train):
        cell = mixture.route(x)[:, 0]
        total.index_add_(0, cell, y.double())
        count += torch.bincount(cell, minlength=len(count))
    mean = (total.sum(dim=0) / count.sum()).float()
    mixture.bias.copy_(torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], mean.double()))
    return mixture


def reduced_rank(pairs: Pairs, rank: int, ridge: float = 1e-3, seed: int = 0) -> CellMixture:
    """The best affine map of this rank: a mixture of one expert."""
    centre = mean_of(pairs.x, pairs.train)[None]
    return fit_experts(pairs, centre, Shape(n_experts=1, rank=rank, ridge=ridge, prior=False), seed)


def cells(pairs: Pairs, n_cells: int, seed: int = 0, n_rows: int = 20_000) -> Float[Tensor, "n_cells d_in"]:
    """Centroids of the training inputs by k-means (mini-batches from random rows for more than 256)."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    if n_cells == 1:
        return mean_of(pairs.x, pairs.train)[None]
    rng = np.random.default_rng(seed)
    n = min(len(pairs.train), max(n_rows, 8 * n_cells))
    rows = rows_of(pairs.x, np.sort(rng.choice(pairs.train, n, replace=False))).numpy()
    if n_cells > 256:
        found = MiniBatchKMeans(n_cells, init="random", random_state=seed, n_init=1, batch_size=8_192, max_iter=6)
    else:
        found = KMeans(n_cells, random_state=seed, n_init=1, max_iter=25)
    return torch.from_numpy(found.fit(rows).cluster_centers_.astype(np.float32))


class _Sums:
    """Moments of weighted rows about their own means; adding gives those within cells."""

    def __init__(self, d_in: int, d_out: int):
        self.gram = torch.zeros(d_in, d_in, dtype=torch.float64)
        self.cross = torch.zeros(d_in, d_out, dtype=torch.float64)
        self.mean_x = torch.zeros(d_in, dtype=torch.float64)
        self.mean_y = torch.zeros(d_out, dtype=torch.float64)

    def add(self, other: "_Sums") -> None:
        self.gram += other.gram
        self.cross += other.cross

    def solve(self, ridge: float, prior: Tensor) -> tuple[Float[Tensor, "d_in d_out"], Float[Tensor, "d_in d_in"]]:
        """Ridge solution about `prior`, and the matrix of its objective."""
        gram = self.gram + ridge * torch.eye(len(self.gram), dtype=torch.float64)
        factor = torch.linalg.cholesky(gram)
        missing = self.cross - self.gram @ prior.double()
        return prior + torch.cholesky_solve(missing, factor).float(), gram.float()


def _moments(pairs: Pairs, rows: np.ndarray, weight: Tensor | None) -> _Sums:
    found, total = _Sums(pairs.d_in, pairs.d_out), 0.0
    parts = [slice(begin, begin + CHUNK) for begin in range(0, len(rows), CHUNK)]
    taken = [pairs.take(rows[part]) for part in parts] if len(parts) == 1 else None
    for number, part in enumerate(parts):
        x, y = taken[number] if taken else pairs.take(rows[part])
        w = torch.ones(len(x)) if weight is None else weight[part]
        total += float(w.sum())
        found.mean_x += (w @ x).double()
        found.mean_y += (w @ y).double()
    found.mean_x /= max(total, 1e-12)
    found.mean_y /= max(total, 1e-12)
    for number, part in enumerate(parts):
        x, y = taken[number] if taken else pairs.take(rows[part])
        x, y = x - found.mean_x.float(), y - found.mean_y.float()
        weighted = x if weight is None else x * weight[part, None]
        found.gram += (weighted.T @ x).double()
        found.cross += (weighted.T @ y).double()
    return found


def _truncate(
    slope: Float[Tensor, "d_in d_out"], gram: Float[Tensor, "d_in d_in"], rank: int, seed: int
) -> tuple[Float[Tensor, "d_in rank"], Float[Tensor, "rank d_out"]]:
    """The map of this rank nearest to `slope` in the metric of `gram`, as two factors."""
    from sklearn.utils.extmath import randomized_svd

    explained = slope.T @ (gram @ slope)
    if rank * FULL_EIGEN > len(explained):
        basis = torch.linalg.eigh(explained.double())[1][:, -rank:].float()
    else:
        left, _, _ = randomized_svd(explained.numpy(), rank, n_oversamples=16, n_iter=4, random_state=seed)
        basis = torch.from_numpy(np.ascontiguousarray(left, dtype=np.float32))
    return slope @ basis, basis.T


def _members(pairs: Pairs, mixture: CellMixture) -> list[tuple[Int[np.ndarray, " n"], Tensor | None]]:
    """Training rows of each cell, with their weights where cells are mixed."""
    chosen = [mixture.choose(x) for _, x, _ in pairs.chunks(pairs.train)]
    index = torch.cat([i for i, _ in chosen]).flatten().numpy()
    weight = torch.cat([w for _, w in chosen]).flatten()
    rows = np.repeat(pairs.train, mixture.k)
    order = np.argsort(index, kind="stable")
    ends = np.searchsorted(index[order], np.arange(mixture.n_experts + 1))
    parts = [order[begin:end] for begin, end in pairwise(ends)]
    return [(rows[part], None if mixture.k == 1 else weight[torch.from_numpy(part)]) for part in parts]


def _temperature(pairs: Pairs, centroids: Tensor, k: int) -> float:
    """Mean fall of the score from the nearest centroid to the k-th, so that weights neither vanish nor are equal."""
    if k == 1:
        return 1.0
    x = rows_of(pairs.x, pairs.train[:: max(1, len(pairs.train) // CHUNK)])
    top = (x @ centroids.T - centroids.square().sum(dim=1) / 2).topk(k, dim=1).values
    return max(float((top[:, 0] - top[:, -1]).mean()) / 2, 1e-6)


def mean_of(rows: np.ndarray, index: np.ndarray) -> Float[Tensor, " d"]:
    """Mean of these rows."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for begin in range(0, len(index), CHUNK):
        total += rows_of(rows, index[begin : begin + CHUNK]).double().sum(dim=0)
    return (total / len(index)).float()


def _mean_variance(pairs: Pairs) -> float:
    mean, square = mean_of(pairs.x, pairs.train), 0.0
    for _, x, _ in pairs.chunks(pairs.train):
        square += float((x - mean).square().sum())
    return square / (len(pairs.train) * pairs.d_in)


def _check(pairs: Pairs, shape: Shape) -> None:
    if shape.n_experts > len(pairs.train):
        raise ValueError(f"n_experts={shape.n_experts} exceeds the {len(pairs.train)} tokens to fit on; read more text")
    widest = min(pairs.d_in, pairs.d_out)
    for name, rank in (("rank", shape.rank), ("shared", shape.shared)):
        if not 0 <= rank <= widest:
            raise ValueError(f"{name}={rank} is not in 0..{widest}, the layer's width")
    if not 1 <= shape.k <= shape.n_experts:
        raise ValueError(f"k={shape.k} is not in 1..n_experts={shape.n_experts}")
