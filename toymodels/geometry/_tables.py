"""Weights as tidy frames, one row an entry: what the figures are drawn from."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from pandas import DataFrame
from torch import Tensor

from toymodels.geometry._measures import check, gram
from toymodels.geometry._orientation import orient


def matrices(W: Float[Tensor, "d_hidden n_features"], b: Float[Tensor, " n_features"]) -> DataFrame:
    """W^T W and b entry by entry: `matrix` ("W^T W" or "b"), `row, column, value`."""
    G = gram(W).detach().cpu().double().numpy()
    n = len(G)
    if G.ndim != 2 or not isinstance(b, Tensor) or b.shape != (n,):
        raise ValueError(f"W is one matrix and b has one entry for each of its {n} features")
    whole = {"matrix": "W^T W", "row": np.repeat(range(n), n), "column": np.tile(range(n), n), "value": G.ravel()}
    bias = {"matrix": "b", "row": range(n), "column": 0, "value": b.detach().cpu().double().numpy()}
    return pd.concat([DataFrame(whole), DataFrame(bias)], ignore_index=True)


def film(steps: Sequence[int], snapshots: Float[Tensor, "n_snapshots d_hidden n_features"]) -> DataFrame:
    """Directions of the features while they were learned: `step, feature, x, y, z`, in the last one's canonical frame.

    One hidden dimension has y = z = 0, two have z = 0.  ValueError for more than three: they cannot be drawn.
    """
    check(snapshots, least_dim=3)
    count, m, n = snapshots.shape
    if m > 3:
        raise ValueError(f"d_hidden={m} dimensions cannot be drawn as points; draw the interference graph instead")
    if len(steps) != count:
        raise ValueError(f"{len(steps)} steps for {count} snapshots; give one step for each")
    places = np.zeros((count, n, 3))
    places[:, :, :m] = orient(snapshots).detach().cpu().transpose(1, 2).numpy()
    columns = {"step": np.repeat(np.asarray(steps), n), "feature": np.tile(np.arange(n), count)}
    return DataFrame(columns | {axis: places[:, :, i].ravel() for i, axis in enumerate("xyz")})


def neuron_weights(W: Float[Tensor, "d_hidden n_features"]) -> DataFrame:
    """Weights of each neuron, one row a weight: `neuron, feature, value` (hidden ReLU)."""
    values = check(W).detach().cpu().double().numpy()
    m, n = values.shape
    columns = {"neuron": np.repeat(range(m), n), "feature": np.tile(range(n), m), "value": values.ravel()}
    return DataFrame(columns)
