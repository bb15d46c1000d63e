"""Mutual information of two discrete variables, in nats, from a table of counts."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped


def counted(counts: Shaped[np.ndarray, "*shape"], dims: int = 2) -> Float[np.ndarray, "*shape"]:
    """The counts in double precision; ValueError for what is no array of at least `dims` dimensions, finite, real."""
    if not isinstance(counts, np.ndarray) or counts.dtype.kind not in "fiub":
        raise ValueError(f"counts are an array of real numbers, not {getattr(counts, 'dtype', type(counts).__name__)}")
    if counts.ndim < dims:
        raise ValueError(f"counts have {counts.ndim} dimensions; give {dims} at least, experts first")
    table = counts.astype(np.float64)
    if not np.isfinite(table).all() or not np.isfinite(table.sum()):
        raise ValueError("counts hold NaN, infinity or numbers too large to be added")
    return table


class Normalised(NamedTuple):
    """Mutual information as a share of an entropy: 0 if independent; 1 where the named bound is reached."""

    experts: float
    """I / H(experts): how much of the routing the label tells."""
    labels: float
    """I / H(labels): how much of the label the routing tells."""
    mean: float
    """I over the mean of the two entropies."""
    geometric: float
    """I over their geometric mean."""
    max: float
    """I over the larger one, the strictest: 1 only for a bijection."""


def xlogx(x: Shaped[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """X ln x, 0 at 0 (and below, where rounding has left a count just under 0)."""
    return np.where(x > 0, x * np.log(np.maximum(x, np.finfo(float).tiny)), 0.0)


def entropy(counts: Shaped[np.ndarray, " n"]) -> float:
    """H = -sum p ln p of the shares of `counts`, in nats."""
    counts = counted(counts, dims=1)
    total = counts.sum()
    return float(max(np.log(total) - xlogx(counts).sum() / total, 0.0)) if total > 0 else 0.0


def mutual_information(counts: Shaped[np.ndarray, "*many rows columns"]) -> Float[np.ndarray, "*many"]:
    """I = sum p_ij ln(p_ij / (p_i p_j)) in nats, of each table; 0 for an empty one.

    Source: Cover and Thomas 2006, eq. 2.28.
    """
    table = np.maximum(counted(counts), 0)
    total = table.sum(axis=(-2, -1))
    share = table / np.where(total > 0, total, 1)[..., None, None]
    expected = share.sum(axis=-1)[..., :, None] * share.sum(axis=-2)[..., None, :]
    # ratios, not sums of entropies: equal terms cancel exactly, and an independent table gives 0
    ratio = np.where(share > 0, share, 1) / np.where(share > 0, expected, 1)
    return np.maximum((share * np.log(ratio)).sum(axis=(-2, -1)), 0.0)


def normalised(counts: Shaped[np.ndarray, "experts labels"]) -> Normalised:
    """I(E;C) over the entropies of its margins; 0 where both are 0.  Source: Vinh, Epps and Bailey 2010, table 2."""
    if np.ndim(counts) != 2:
        raise ValueError(f"counts have {np.ndim(counts)} dimensions; give one table (experts, labels)")
    information = float(mutual_information(counts))
    by_expert, by_label = entropy(counts.sum(axis=1)), entropy(counts.sum(axis=0))
    bounds = (by_expert, by_label, (by_expert + by_label) / 2, float(np.sqrt(by_expert * by_label)))
    return Normalised(*(information / h if h > 1e-15 else 0.0 for h in (*bounds, max(by_expert, by_label))))


def jensen_shannon(profiles: Float[np.ndarray, "n_experts n_labels"]) -> Float[np.ndarray, "n_experts n_experts"]:
    """Jensen-Shannon divergence between every two rows, in nats: 0 for equal rows, ln 2 for disjoint ones.

    JS(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2, rows scaled to sum to 1; NaN for a row of zeros.
    Source: Lin 1991.
    """
    profiles = counted(profiles)
    if profiles.ndim != 2 or (profiles < 0).any():
        raise ValueError("profiles are a matrix (experts, labels) of shares or counts, none of them negative")
    total = profiles.sum(axis=1, keepdims=True)
    share = np.where(total > 0, profiles / np.where(total > 0, total, 1), np.nan)
    own = xlogx(share).sum(axis=1)
    apart = np.empty((len(share), len(share)))
    for row, p in enumerate(share):
        apart[row] = (own[row] + own) / 2 - xlogx((p + share) / 2).sum(axis=1)
    missing = np.isnan(share).any(axis=1)
    apart[missing], apart[:, missing] = np.nan, np.nan
    return np.clip(apart, 0, np.log(2))
