"""The solutions of n = 2, m = 1 and n = 3, m = 2 in closed form, and the boundaries between them.

All features but the last have importance 1, the last ("the extra feature") has importance r; every feature is active
with probability s.  Losses are sums over features, at unit norms.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from pandas import DataFrame
from torch import Tensor

Array = NDArray[np.float64]

IGNORED = "extra feature not represented"
SUPERPOSED = "extra feature in superposition"
DEDICATED = "extra feature dedicated, another dropped"
BESIDE = "extra feature dedicated, the others in superposition"

PHASES: Mapping[int, tuple[str, ...]] = {
    2: (IGNORED, SUPERPOSED, DEDICATED),
    3: (IGNORED, SUPERPOSED, BESIDE, DEDICATED),
}
"""Candidate solutions by number of features (with one hidden dimension fewer)."""


def candidate_losses(
    density: ArrayLike, relative_importance: ArrayLike, n_features: int = 2
) -> dict[str, NDArray[np.float64]]:
    """Exact loss of each candidate, summed over features, as a function of density s and relative importance r.

    A feature that is left out is predicted by its mean s/2 and costs its variance A = s/3 - s^2/4.  An antipodal pair
    errs only when both are active, by the smaller of the two: s^2 E min(u, v)^2 = B = s^2/6 for each.  Features with a
    dimension of their own cost nothing.

        extra feature not represented                          r A
        extra feature in superposition                         (1 + r) B
        extra feature dedicated, the others in superposition   2 B         (n = 3)
        extra feature dedicated, another dropped               A
    """
    _check(n_features)
    s, r = _domain("density", density, 1.0), _domain("relative importance", relative_importance, math.inf)
    try:
        s, r = np.broadcast_arrays(s, r)
    except ValueError:
        raise ValueError(f"density has shape {s.shape}, relative importance {r.shape}; they do not fit") from None
    left_out, met = s / 3 - s**2 / 4, s**2 / 6
    losses = {IGNORED: r * left_out, SUPERPOSED: (1 + r) * met, BESIDE: 2 * met, DEDICATED: left_out}
    return {name: losses[name] for name in PHASES[n_features]}


def candidate_solutions(density: float, n_features: int = 2) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """The weights W (m, n) and bias b of each candidate, in every variant of equal loss."""
    _check(n_features)
    mean = float(_domain("density", density, 1.0).max()) / 2

    def solution(rows: list[list[float]], left_out: int | None = None) -> tuple[Tensor, Tensor]:
        b = torch.zeros(n_features, dtype=torch.float64)
        if left_out is not None:
            b[left_out] = mean
        return torch.tensor(rows, dtype=torch.float64), b

    if n_features == 2:
        return {
            IGNORED: [solution([[1, 0]], 1)],
            SUPERPOSED: [solution([[1, -1]])],
            DEDICATED: [solution([[0, 1]], 0)],
        }
    return {
        IGNORED: [solution([[1, 0, 0], [0, 1, 0]], 2)],
        SUPERPOSED: [solution([[1, 0, -1], [0, 1, 0]]), solution([[1, 0, 0], [0, 1, -1]])],
        BESIDE: [solution([[1, -1, 0], [0, 0, 1]])],
        DEDICATED: [solution([[0, 1, 0], [0, 0, 1]], 0), solution([[1, 0, 0], [0, 0, 1]], 1)],
    }


def theoretical_phase(density: ArrayLike, relative_importance: ArrayLike, n_features: int = 2) -> NDArray[np.object_]:
    """Name of the candidate of least loss."""
    losses = candidate_losses(density, relative_importance, n_features)
    names = np.array(list(losses), dtype=object)
    return names[np.argmin(np.stack(list(losses.values())), axis=0)]


def boundary(relative_importance: ArrayLike, n_features: int = 2) -> Array:
    """Density s*(r) below which the extra feature does not cost another its dimension: superposition wins.

    n = 2:  s* = 4 r / (5 r + 2) for r <= 1,  4 / (5 + 2 r) for r > 1.
    n = 3:  the same for r <= 1;  for r > 1 the extra feature is dedicated and the *others* share: s* = 4/7.
    """
    _check(n_features)
    r = _domain("relative importance", relative_importance, math.inf)
    if np.any(r <= 0):
        raise ValueError("relative importance must be positive")
    above = 4 / (5 + 2 * r) if n_features == 2 else np.full_like(r, 4 / 7)
    return np.where(r <= 1, 4 * r / (5 * r + 2), above)


def boundary_curve(n_features: int = 2, importances: tuple[float, float] = (0.1, 10.0), points: int = 201) -> DataFrame:
    """Every boundary between phases as polylines: `curve, relative_importance, density`, one row a point."""
    _check(n_features)
    if not (isinstance(points, int) and 2 <= points <= 10**6) or not 0 < importances[0] < importances[1] < math.inf:
        raise ValueError(f"points={points} between importances={importances}: give 2 or more, between rising numbers")
    r = np.unique(np.append(np.geomspace(*importances, points), 1.0))
    superposition = DataFrame({"curve": "superposition", "relative_importance": r, "density": boundary(r, n_features)})
    # At r = 1 the extra feature changes places with the others: above s* it is the one kept, and with three features
    # it is the one that gets a dimension below s* too.
    lowest = 4 / 7 if n_features == 2 else 0.0
    exchange = DataFrame({"curve": "exchange", "relative_importance": [1.0, 1.0], "density": [lowest, 1.0]})
    return pd.concat([superposition, exchange], ignore_index=True)


def _domain(name: str, values: ArrayLike, most: float) -> Array:
    try:
        given = np.asarray(values)
        numbers = given.astype(float) if given.dtype.kind in "fiub" else np.asarray([])
    except (TypeError, ValueError, RuntimeError):
        numbers = np.asarray([])
    if not numbers.size or not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() > most:
        raise ValueError(f"{name} is a number in 0..{most:g}, or an array of such numbers")
    return numbers


def _check(n_features: int) -> None:
    if n_features not in PHASES:
        raise ValueError(f"closed forms exist for 2 features in 1 dimension and 3 in 2, not for {n_features} features")
