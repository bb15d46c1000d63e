"""Each (expert, label): how much more often than chance, and how sure that is."""

import numpy as np
from jaxtyping import Float, Int
from pandas import DataFrame
from scipy import stats

from probes import hypergeometric
from probes.associations import Moments, Text, false_discovery, type_moments, wilson
from probes.choices import Choices
from probes.nulls import ByType

MIN_COUNT = 10
"""Slots a cell must hold, or be expected to hold, to be tested."""


def cells(
    made: Choices, seen: ByType, counts: Int[np.ndarray, "n_experts n_labels"], min_count: int = MIN_COUNT
) -> DataFrame:
    """Every expert and label that occur.

    Columns: expert, label; n (slots), n_expert, n_label (slots of the expert, of the label); share = n / n_expert with
    its Wilson 95% interval low, high; base = n_label / N; lift = share / base and pmi = ln lift (nats, -inf if n = 0);
    recall = n / n_label; null, null_high = mean and 97.5% point of the share when profiles are exchanged over types of
    like frequency; p_label, p_type (two-sided), p (both nulls reject in one direction) and q (Benjamini-Hochberg over
    the cells tested).  pmi, p and q are NaN where fewer than `min_count` slots are seen and expected.
    Sources: Church and Hanks 1990 (PMI); Benjamini and Hochberg 1995; Wilson 1927.
    """
    n_expert, n_label = counts.sum(axis=1), counts.sum(axis=0)
    expected = np.outer(n_expert, n_label) / max(made.n_slots, 1)
    by_label, by_type = _label_tails(made, seen, counts), _type_moments(seen, counts)
    shares = n_expert[:, None]
    low, high = wilson(counts, shares)
    share, base = counts / np.maximum(shares, 1), n_label / made.n_slots
    with np.errstate(divide="ignore"):
        pmi = np.log(share / base)
    null, null_high = _null_share(by_type, expected, shares)
    tails = np.stack([by_label, _tails(by_type)])
    p_label, p_type = np.minimum(2 * tails.min(axis=1), 1)
    p = np.minimum(2 * tails.max(axis=0).min(axis=0), 1)
    held = np.maximum(counts, expected) >= min_count
    q = np.full(p.shape, np.nan)
    q[held] = false_discovery(p[held])
    expert, label = np.indices(counts.shape)
    columns = {"expert": expert, "label": made.label_names[label], "n": counts, "n_expert": shares, "n_label": n_label}
    columns |= {"share": share, "low": low, "high": high, "base": base, "lift": share / base}
    columns |= {"pmi": np.where(held, pmi, np.nan), "recall": counts / n_label, "null": null, "null_high": null_high}
    columns |= {"p_label": p_label, "p_type": p_type, "p": np.where(held, p, np.nan), "q": q}
    frame = DataFrame({name: np.broadcast_to(values, counts.shape).ravel() for name, values in columns.items()})
    return frame[frame["n_expert"] > 0].reset_index(drop=True)


def _label_tails(made: Choices, seen: ByType, counts: np.ndarray) -> Float[np.ndarray, "2 n_experts n_labels"]:
    """P(at least, at most as many) when labels are exchanged over tokens, or over groups if they own the label."""
    n_expert = counts.sum(axis=1)
    if made.of_groups():
        return _tails(_group_moments(made, counts))
    tokens = seen.text.counts.sum(axis=0)
    return np.stack(hypergeometric.tails(counts, tokens.sum(), tokens[None, :], n_expert[:, None]))


def _group_moments(made: Choices, counts: np.ndarray) -> Moments:
    n_groups = made.n_groups
    group = np.repeat(made.group, np.diff(made.start))
    routed = np.bincount(group * made.n_experts + made.expert, minlength=n_groups * made.n_experts)
    owns = np.zeros((n_groups, made.n_labels))
    owns[made.group, made.label] = 1
    # labels differ in length of documents: what is exchanged is the whole document, its length included
    found = type_moments(routed.reshape(n_groups, -1), owns, np.where(owns.any(axis=1), 0, -1))
    return Moments(*(part.T for part in found))


def _type_moments(seen: ByType, counts: np.ndarray) -> Moments:
    """Excess of slots over n_expert * base, (experts, labels), and its cumulants for a router that sees the type."""
    text: Text = seen.text
    occurrences = text.occurrences
    slots = counts.sum(axis=1)
    rate = slots / max(occurrences.sum(), 1)
    excess = seen.routed - np.outer(occurrences, rate)
    found = type_moments(excess, text.profiles, seen.bins)
    several = (text.counts > 0).sum(axis=1) > 1
    n, held = occurrences[several][:, None].astype(np.float64), text.counts[several]
    chosen = seen.routed[several]
    # beyond the exchange, the tokens of one type meet its labels by chance: hypergeometric variance
    chance = (chosen * (n - chosen) / (n * np.maximum(n - 1, 1))).T @ (held * (n - held) / n)
    observed = counts - np.outer(slots, text.counts.sum(axis=0)) / max(occurrences.sum(), 1)
    return Moments(observed, found.mean.T, found.variance.T + np.maximum(chance, 0), found.third.T)


def _tails(moments: Moments) -> Float[np.ndarray, "2 n_experts n_labels"]:
    """P(at least) and P(at most) as much; both 1 where nothing can move."""
    mirrored = Moments(-moments.observed, -moments.mean, moments.variance, -moments.third)
    return np.stack([moments.tail(), mirrored.tail()])


def _null_share(moments: Moments, expected: np.ndarray, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and 97.5% point, under the type null, of the share of an expert's slots that carry the label."""
    spread = np.sqrt(np.maximum(moments.variance, 0))
    moves = moments.variance > 1e-12
    skew = np.where(moves, moments.third / np.where(moves, spread, 1) ** 3, 0)
    reach = np.where(moves, stats.pearson3.ppf(0.975, skew), 0) * spread
    mean = expected + moments.mean
    return tuple(np.clip(part / np.maximum(slots, 1), 0, 1) for part in (mean, mean + reach))
