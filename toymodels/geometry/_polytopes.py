"""Known arrangements of unit vectors, by their matrices of cosines."""

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_SIMPLEX = {2: "antipodal digon", 3: "triangle", 4: "tetrahedron", 5: "5-cell"}
_POLYGON = {5: "pentagon", 6: "hexagon", 7: "heptagon", 8: "octagon", 9: "nonagon", 10: "decagon", 12: "dodecagon"}
_ORTHOPLEX = {2: "square", 3: "octahedron", 4: "16-cell"}
_GOLDEN = (1 + 5**0.5) / 2
_SEARCHED = 128  # vertices; beyond, nothing in two or three dimensions is told apart by any tolerance

ALONE = "dedicated dimension"
DIGON = "antipodal digon"
ALIGNED = "collapsed group"


class Polytope(NamedTuple):
    """A name, the dimension of the space the vertices span, and the cosines between them."""

    name: str
    dimension: int
    cosines: Matrix


def candidates(cosines: Matrix) -> Iterator[Polytope]:
    """Polytopes with as many vertices as `cosines` has rows, connected as an interference graph.

    The square antiprism is a family in its height; its members offered are those whose second moments agree with
    `cosines` along one axis.
    """
    k = len(cosines)
    if k == 1:
        yield Polytope(ALONE, 1, np.ones((1, 1)))
        return
    simplex = np.full((k, k), -1 / (k - 1))
    np.fill_diagonal(simplex, 1.0)
    yield Polytope(_SIMPLEX.get(k, f"simplex of {k}"), k - 1, simplex)
    yield Polytope(ALIGNED, 1, np.ones((k, k)))
    if k >= 5:
        angle = 2 * np.pi * np.arange(k) / k
        yield Polytope(_POLYGON.get(k, f"{k}-gon"), 2, np.cos(angle[:, None] - angle[None, :]))
    if k == 8:
        for moment in np.linalg.eigvalsh(cosines)[-3:]:
            height = float(np.sqrt(np.clip(moment / 8, 0.05, 0.95)))
            yield _antiprism(height)
        yield _solid("cube", list(product((-1, 1), repeat=3)))
    if k == 12:
        yield _solid("icosahedron", _cyclic((0, 1, _GOLDEN)))
    if k == 20:
        yield _solid("dodecahedron", [*product((-1, 1), repeat=3), *_cyclic((0, 1 / _GOLDEN, _GOLDEN))])


def orthoplex(digons: int) -> str:
    """Name of `digons` equal antipodal pairs in mutually orthogonal lines."""
    return _ORTHOPLEX.get(digons, f"{digons}-dimensional cross-polytope")


def matching(cosines: Matrix, reference: Matrix, tolerance: float) -> tuple[list[int], float] | None:
    """Order of the rows of `cosines` that makes it `reference`, and the largest difference then; None beyond tolerance.

    Depth-first search over vertices; a tolerance below half the gap between two different cosines of the reference
    makes the answer unique up to symmetries of the polytope, so that the deviation does not depend on the search.
    """
    if len(cosines) > _SEARCHED or sorted_distance(cosines, reference) > tolerance:
        return None
    levels = np.unique(reference.round(9))
    gap = min((b - a for a, b in pairwise(levels)), default=2.0)
    limit = min(tolerance, 0.49 * gap)
    close = np.abs(np.sort(cosines, axis=1)[:, None, :] - np.sort(reference, axis=1)[None, :, :]).max(-1) <= limit
    order = _extend([], cosines, reference, close, limit)
    if order is None:
        return None
    return order, float(np.abs(cosines[np.ix_(order, order)] - reference).max())


def sorted_distance(cosines: Matrix, reference: Matrix) -> float:
    """Largest difference between the sorted cosines: no order of the rows can bring the matrices nearer than this."""
    return float(np.abs(np.sort(cosines, axis=None) - np.sort(reference, axis=None)).max())


def _extend(order: list[int], cosines: Matrix, reference: Matrix, close: Matrix, limit: float) -> list[int] | None:
    place = len(order)
    if place == len(reference):
        return order
    for vertex in range(len(cosines)):
        if vertex in order or not close[vertex, place]:
            continue
        if place and np.abs(cosines[vertex, order] - reference[place, :place]).max() > limit:
            continue
        found = _extend([*order, vertex], cosines, reference, close, limit)
        if found is not None:
            return found
    return None


def _solid(name: str, vertices: Sequence[tuple[float, ...]]) -> Polytope:
    points = np.asarray(vertices, dtype=float)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return Polytope(name, points.shape[1], points @ points.T)


def _antiprism(height: float) -> Polytope:
    radius = float(np.sqrt(1 - height**2))
    turn = np.pi / 4
    vertices = [(radius * np.cos(turn * i), radius * np.sin(turn * i), height if i % 2 else -height) for i in range(8)]
    return _solid("square antiprism", vertices)


def _cyclic(vertex: tuple[float, float, float]) -> list[tuple[float, ...]]:
    zero, a, b = vertex
    signed = [(zero, s * a, t * b) for s, t in product((-1, 1), repeat=2)]
    return [tuple(np.roll(v, shift)) for shift in range(3) for v in signed]
