"""Which polytope a weight matrix forms, piece by orthogonal piece."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from pandas import DataFrame
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from toymodels.geometry._measures import check
from toymodels.geometry._polytopes import ALONE, DIGON, Matrix, candidates, matching, orthoplex, sorted_distance

TOLERANCE = 0.1
"""Largest difference between a measured cosine and that of the ideal polytope."""

IRREGULAR = "irregular"


@dataclass(frozen=True)
class Part:
    """One piece of the geometry: features that interfere with one another, and with no other piece."""

    name: str
    """The polytope, or `irregular`."""
    features: tuple[int, ...]
    """Columns of W, in the order of the ideal polytope's vertices."""
    dimension: int
    """Dimensions the piece takes."""
    deviation: float
    """Largest |cosine - ideal cosine| (for an irregular piece: a lower bound of it to the nearest polytope)."""
    nearest: str
    """The nearest polytope with as many vertices (the same as `name` when recognized)."""


@dataclass(frozen=True)
class Recognition:
    """What the columns of W form; `str()` of it is a sentence fit for a caption."""

    parts: tuple[Part, ...]
    """Pieces in mutually orthogonal subspaces, largest first."""
    unrepresented: tuple[int, ...]
    """Features whose norm is below the threshold; they are left out."""
    norm_spread: float
    """Largest relative difference of a represented norm from their mean."""
    leakage: float
    """Largest |cosine| between two pieces (0 for an exact direct sum)."""
    tolerance: float
    """What counted as equal."""

    @cached_property
    def name(self) -> str:
        """One name for the whole: `pentagon`, `square`, `2 x triangle + dedicated dimension`, `nothing`, ..."""
        counts = Counter(part.name for part in self.parts)
        if not counts:
            return "nothing"
        if len(counts) == 1:
            (only, count), *_ = counts.items()
            if only == DIGON and count > 1:
                return orthoplex(count)
            if only == ALONE:
                return "orthogonal" if count > 1 else ALONE
        return " + ".join(f"{count} x {name}" if count > 1 else name for name, count in counts.items())

    @property
    def recognized(self) -> bool:
        """Every piece has a name."""
        return all(part.name != IRREGULAR for part in self.parts)

    @property
    def deviation(self) -> float:
        """Largest difference of any cosine from the ideal, within pieces and between them."""
        return max([part.deviation for part in self.parts] + [self.leakage])

    def __str__(self) -> str:
        """The name with its deviation and tolerance."""
        return f"{self.name} (cosines within {self.deviation:.3f}, tolerance {self.tolerance:g})"


def recognize(
    W: Float[Tensor, "d_hidden n_features"], *, tolerance: float = TOLERANCE, represented: float = 0.1
) -> Recognition:
    """Name the polytope that the columns of W form, as a direct sum over orthogonal subspaces.

    Features shorter than `represented` times the longest are left out.  Two features interfere when the |cosine| of
    their directions exceeds `tolerance`; each connected component of that graph is compared with the ideal polytopes
    of as many vertices, up to the order of the vertices and any rotation, and named if every cosine is within
    `tolerance`.  Lengths do not matter to the name; `norm_spread` tells how equal they are.
    Raises ValueError for NaN, for W that is not a matrix and for a tolerance outside (0, 0.5).
    """
    if not 0 < tolerance < 0.5:
        raise ValueError(f"tolerance={tolerance} is not between 0 and 0.5 (a difference of cosines)")
    cosines, norms, kept = _directions(W, represented)
    labels = _components(cosines, tolerance)
    found = [_name(cosines, np.flatnonzero(labels == label), tolerance) for label in range(labels.max(initial=-1) + 1)]
    between = np.abs(cosines)[labels[:, None] != labels[None, :]]
    return Recognition(
        parts=tuple(sorted((_renumbered(part, kept) for part in found), key=_rank)),
        unrepresented=tuple(int(i) for i in np.setdiff1d(np.arange(W.shape[1]), kept)),
        norm_spread=float(np.abs(norms / norms.mean() - 1).max()) if len(norms) else 0.0,
        leakage=float(between.max(initial=0.0)),
        tolerance=tolerance,
    )


def interference_graph(
    W: Float[Tensor, "d_hidden n_features"], *, tolerance: float = TOLERANCE, represented: float = 0.1
) -> DataFrame:
    """Pairs of represented features that interfere: `source, target, cosine, dot, component`, one row an edge."""
    cosines, norms, kept = _directions(W, represented)
    labels = _components(cosines, tolerance)
    i, j = np.nonzero(np.triu(np.abs(cosines) > tolerance, k=1))
    return DataFrame(
        {
            "source": kept[i],
            "target": kept[j],
            "cosine": cosines[i, j],
            "dot": cosines[i, j] * norms[i] * norms[j],
            "component": labels[i],
        }
    )


def parts(recognition: Recognition) -> DataFrame:
    """The pieces as a table, one row each; `dimensions_per_feature` is the piece's dimension over its features."""
    return DataFrame(
        {
            "part": range(len(recognition.parts)),
            "name": [part.name for part in recognition.parts],
            "n_features": [len(part.features) for part in recognition.parts],
            "dimension": [part.dimension for part in recognition.parts],
            "dimensions_per_feature": [part.dimension / len(part.features) for part in recognition.parts],
            "deviation": [part.deviation for part in recognition.parts],
            "nearest": [part.nearest for part in recognition.parts],
            "features": [", ".join(str(f) for f in part.features) for part in recognition.parts],
        }
    )


def _directions(W: Tensor, represented: float) -> tuple[Matrix, Matrix, np.ndarray]:
    """Cosines and norms of the represented columns, and which columns they are."""
    check(W)
    if W.ndim != 2:
        raise ValueError(f"recognition takes one matrix (d_hidden, n_features), not shape {tuple(W.shape)}")
    columns = W.detach().double().cpu().numpy()
    norms = np.linalg.norm(columns, axis=0)
    if not np.isfinite(norms).all():
        raise ValueError("the squares of W's entries do not fit torch.float64; scale W down")
    kept = np.flatnonzero((norms >= represented * norms.max()) & (norms > 0))
    unit = columns[:, kept] / norms[kept]
    return np.clip(unit.T @ unit, -1.0, 1.0), norms[kept], kept


def _components(cosines: Matrix, tolerance: float) -> np.ndarray:
    if not len(cosines):
        return np.zeros(0, dtype=int)
    return connected_components(csr_array(np.abs(cosines) > tolerance), directed=False)[1]


def _name(cosines: Matrix, members: np.ndarray, tolerance: float) -> Part:
    inside = cosines[np.ix_(members, members)]
    found = []
    for polytope in candidates(inside):
        match = matching(inside, polytope.cosines, tolerance)
        if match is not None:
            found.append((match[1], polytope, match[0]))
    if found:
        deviation, polytope, order = min(found, key=lambda entry: entry[0])
        vertices = tuple(int(v) for v in members[order])
        return Part(polytope.name, vertices, polytope.dimension, deviation, polytope.name)
    distance, nearest = min((sorted_distance(inside, p.cosines), p.name) for p in candidates(inside))
    dimension = int((np.linalg.eigvalsh(inside) > 0.01 * len(inside)).sum())
    return Part(IRREGULAR, tuple(int(v) for v in members), max(dimension, 1), max(distance, tolerance), nearest)


def _renumbered(part: Part, kept: np.ndarray) -> Part:
    return Part(part.name, tuple(int(kept[f]) for f in part.features), part.dimension, part.deviation, part.nearest)


def _rank(part: Part) -> tuple[int, str, tuple[int, ...]]:
    return -len(part.features), part.name, part.features
