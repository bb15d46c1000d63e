"""How many directions share a dimension: superposition of a dictionary as a whole, where coherence is its worst pair.

    features per dimension = n / D,   D = n^2 / sum_ij cos^2(v_i, v_j)

D is the participation ratio of the directions' Gram matrix, the number of dimensions they use as evenly as if they used
no others.  Orthogonal directions have 1, n directions that share d dimensions evenly (a tight frame) n / d, the least
there can be for n >= d; n copies of one direction have n.
Source: Benedetto & Fickus 2003, 'Finite normalized tight frames' (the frame potential sum_ij cos^2).
"""

import math

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from probes.columns import real_matrix

Dictionary = Shaped[Tensor, "d_model n_features"] | Shaped[np.ndarray, "d_model n_features"]


def features_per_dimension(dictionary: Dictionary) -> float:
    """n / D of the columns that are not zero; NaN if all are."""
    columns = real_matrix(dictionary, "a dictionary (d_model, n_features)")
    columns = columns / columns.abs().amax().clamp(min=torch.finfo(torch.float64).tiny)  # a square may not overflow
    norms = torch.linalg.vector_norm(columns, dim=0)
    unit = columns[:, norms > 0] / norms[norms > 0]
    # sum_ij cos^2 is the same of either Gram matrix; take the smaller
    gram = unit @ unit.T if unit.shape[0] < unit.shape[1] else unit.T @ unit
    return float(gram.square().sum() / unit.shape[1]) if unit.shape[1] else float("nan")


def of_random_directions(d_model: int, n_features: int) -> float:
    """Its expectation for directions drawn uniformly on the sphere: 1 + (n - 1) / d."""
    if not (1 <= d_model < math.inf and 1 <= n_features < math.inf):
        raise ValueError(f"d_model={d_model} and n_features={n_features} must be at least 1")
    return 1 + (n_features - 1) / d_model
