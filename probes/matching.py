"""Which expert of one run is which of another: seeds, snapshots, layers.

The matching maximises the sum of similarities (Hungarian method).  The best matching of anything looks good, so it is
set against random matchings and against the best matching of scattered similarities, each expert's own in random order.
Sources: Kuhn 1955; Li et al. 2016 (convergent learning) matched units between seeds so.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from pandas import DataFrame
from scipy.optimize import linear_sum_assignment

from probes.information import counted, jensen_shannon
from probes.nulls import Null, against


class Matching(NamedTuple):
    """Pairs of experts and how well they fit."""

    pairs: DataFrame
    """first, second, similarity, rival: the highest similarity of `first` to any other expert."""
    random: Null
    """Mean similarity of the pairs against random matchings."""
    scattered: Null
    """The same against the best matching when each expert's similarities are in random order."""


def match(similarity: Float[np.ndarray, "n_first n_second"], n_permutations: int = 200, seed: int = 0) -> Matching:
    """Best one-to-one matching; experts left over (n_first != n_second) have no pair.

    Raises ValueError for an empty matrix or values that are not finite.
    """
    if not isinstance(similarity, np.ndarray) or similarity.dtype.kind not in "fiub":
        raise ValueError("similarity is an array of real numbers, experts of one router by experts of the other")
    similarity = similarity.astype(np.float64)
    if similarity.ndim != 2 or not similarity.size:
        raise ValueError(f"similarity has shape {similarity.shape}; give (experts, experts)")
    if not np.isfinite(similarity).all() or np.abs(similarity).max() > 1e100:
        raise ValueError("similarity holds values that are not finite; leave out experts without tokens")
    rng = np.random.default_rng(seed)
    first, second = linear_sum_assignment(similarity, maximize=True)
    others = similarity[first].copy()
    others[np.arange(len(first)), second] = -np.inf
    rival = others.max(axis=1) if similarity.shape[1] > 1 else np.full(len(first), np.nan)
    pairs = DataFrame({"first": first, "second": second, "similarity": similarity[first, second], "rival": rival})
    value = float(pairs["similarity"].mean())
    drawn = [_random(similarity, rng) for _ in range(n_permutations)]
    scattered = [_best(rng.permuted(similarity, axis=1)) for _ in range(n_permutations)]
    return Matching(pairs, against(value, np.array(drawn)), against(value, np.array(scattered)))


def profile_similarity(
    first: Float[np.ndarray, "n_first n_labels"], second: Float[np.ndarray, "n_second n_labels"]
) -> Float[np.ndarray, "n_first n_second"]:
    """1 - JS / ln 2 between profiles (counts or shares of labels, types, ...): 1 if equal, 0 if they share nothing.

    0 for an expert without tokens.
    """
    first, second = counted(first), counted(second)
    if first.ndim != 2 or second.ndim != 2:
        raise ValueError("profiles are matrices (experts, labels)")
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"profiles have {first.shape[1]} and {second.shape[1]} labels; count both over the same ones")
    apart = jensen_shannon(np.concatenate([first, second]))[: len(first), len(first) :]
    return np.nan_to_num(1 - apart / np.log(2), nan=0.0)


def together(
    first: Int[np.ndarray, "n_tokens k"], second: Int[np.ndarray, "n_tokens k"], n_first: int, n_second: int
) -> Int[np.ndarray, "n_first n_second"]:
    """Tokens at both experts; -1 is no expert."""
    first, second = _routes(first, n_first), _routes(second, n_second)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} tokens are routed; both must be the same tokens")
    both = np.zeros((n_first, n_second), dtype=np.int64)
    for a in first.reshape(len(first), -1).T:
        for b in second.reshape(len(second), -1).T:
            held = (a >= 0) & (b >= 0)
            pair = a[held].astype(np.int64) * n_second + b[held]
            both += np.bincount(pair, minlength=both.size).reshape(both.shape)
    return both


def _routes(experts: np.ndarray, n_experts: int) -> np.ndarray:
    if not isinstance(experts, np.ndarray):
        raise ValueError(f"experts are an array of whole numbers (tokens, k), not {type(experts).__name__}")
    if experts.ndim not in (1, 2) or experts.dtype.kind not in "iu":
        raise ValueError(f"experts are whole numbers (tokens, k), not {experts.dtype} of shape {experts.shape}")
    if experts.size and not -1 <= int(experts.min()) <= int(experts.max()) < n_experts:
        raise ValueError(f"experts hold {experts.min()}..{experts.max()}; give -1..{n_experts - 1}")
    return experts


def _best(similarity: np.ndarray) -> float:
    return float(similarity[linear_sum_assignment(similarity, maximize=True)].mean())


def _random(similarity: np.ndarray, rng: np.random.Generator) -> float:
    n = min(similarity.shape)
    return float(similarity[rng.permutation(len(similarity))[:n], rng.permutation(similarity.shape[1])[:n]].mean())
