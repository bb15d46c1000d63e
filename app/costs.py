"""What is arithmetic rather than measured, as tables beside the ladder: cost of blocks, number of supports."""

from itertools import combinations

import numpy as np
from pandas import DataFrame

from data.tables import Tables

SIZES = ((4, 4, 2), (8, 4, 2), (12, 4, 2), (12, 6, 3))
"""(n_features, d_model, k) of the supports that are counted one by one."""


def tables() -> Tables:
    """`budget` (see `probes.budget`) of the blocks that the literature prints, and `supports`.

    `supports`: n_features, d_model, k, counted (different sums of at most k of n_features random directions in d_model
    dimensions, every set enumerated), of_features and of_dimensions (sum of C(n, j) over 1 <= j <= k, with n the number
    of features and of dimensions).
    """
    from probes.bounds import n_supports
    from probes.budget import FeedForward, budget

    blocks = (
        FeedForward(),
        FeedForward(d_mlp=1376, n_experts=64, k=8),
        FeedForward(d_mlp=5504, n_experts=16, k=2),
    )
    rows = [(n, d, k, distinct_sums(n, d, k), n_supports(n, k), n_supports(d, k)) for n, d, k in SIZES]
    columns = ["n_features", "d_model", "k", "counted", "of_features", "of_dimensions"]
    return Tables(budget=budget(*blocks), supports=DataFrame(rows, columns=columns))


def distinct_sums(n_features: int, d_model: int, k: int, seed: int = 0) -> int:
    """How many different vectors at most k active features of magnitude one can make, in random directions."""
    directions = np.random.default_rng(seed).normal(size=(n_features, d_model))
    sums = [
        directions[list(chosen)].sum(axis=0)
        for size in range(1, k + 1)
        for chosen in combinations(range(n_features), size)
    ]
    return len(np.unique(np.round(sums, 9), axis=0))
