"""How dimensionality moves while a model learns: plateaus, and jumps between them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from pandas import DataFrame
from torch import Tensor

from toymodels.geometry._measures import check, feature_dimensionality, feature_norms


def dimensionality_over_time(
    steps: Sequence[int], snapshots: Float[Tensor, "n_snapshots d_hidden n_features"]
) -> DataFrame:
    """D_i and norm of each feature at each snapshot: `step, feature, dimensionality, norm`, one row each."""
    snapshots = check(snapshots, least_dim=3).detach().cpu()
    if len(steps) != len(snapshots):
        raise ValueError(f"{len(steps)} steps for {len(snapshots)} snapshots; give one step for each")
    n = snapshots.shape[-1]
    return DataFrame(
        {
            "step": np.repeat(np.asarray(steps), n),
            "feature": np.tile(np.arange(n), len(steps)),
            "dimensionality": feature_dimensionality(snapshots).flatten().numpy(),
            "norm": feature_norms(snapshots).flatten().numpy(),
        }
    )


def jumps(table: DataFrame, *, value: str = "dimensionality", height: float = 0.1, slope: float = 0.25) -> DataFrame:
    """Moments at which a feature's `value` leaves one plateau for another.

    A snapshot interval is steep when |change of value| exceeds `slope * height`; neighbouring steep intervals of one
    sign make one move, and a move is a jump when it covers at least `height`.  Slower drift is no jump.
    Takes the table of `dimensionality_over_time` (columns `step, feature` and `value`); returns `feature, start, stop,
    before, after, change`, in order of time.  Source of the phenomenon: Elhage et al. 2022, "Superposition and
    learning dynamics".
    """
    if height <= 0 or not 0 < slope <= 1:
        raise ValueError(f"height={height} must be positive and slope={slope} in (0, 1]")
    columns = ["feature", "start", "stop", "before", "after", "change"]
    rows = []
    for feature, curve in table.sort_values("step").groupby("feature"):
        rows += [(feature, *move) for move in _moves(curve["step"].to_numpy(), curve[value].to_numpy(), height, slope)]
    return DataFrame(rows, columns=columns).sort_values(["start", "feature"], ignore_index=True)


def _moves(steps: np.ndarray, values: np.ndarray, height: float, slope: float) -> list[tuple]:
    change = np.diff(values)
    sign = np.where(np.abs(change) > slope * height, np.sign(change), 0).astype(int)
    edges = np.flatnonzero(np.diff(sign, prepend=0, append=0))
    found = []
    for first, last in pairwise(edges):
        total = values[last] - values[first]
        if sign[first] and abs(total) >= height:
            found.append((steps[first], steps[last], values[first], values[last], total))
    return found
