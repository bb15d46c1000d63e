"""Which word classes a neuron fires on more than it should, against two nulls.

Label permutation: word classes exchanged over tokens.  The count of firings inside a class is then hypergeometric,
which is what infinitely many permutations give.  It asks whether the neuron ignores the text altogether.

Type permutation: profiles (the share of a token type's occurrences in each class) exchanged over types of like
frequency.  A neuron that fires on a handful of arbitrary tokens differs from one class to another and passes the first
null; it passes this one only if it fires on many types of a class.  With n_v occurrences of type v, f_v firings on it,
r the neuron's firing rate and p_vc the profile, the statistic is the excess of firings

    S = sum_v (f_v - r n_v) p_vc

whose mean, variance and third cumulant over permutations within bins are closed forms; its tail is that of the Pearson
type III law with these moments (Mielke and Berry 2007), which needs no permutations and has no smallest p-value.

A class is claimed only if both nulls reject, so p = max of the two; Benjamini-Hochberg over all tests.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from pandas import DataFrame
from scipy import stats

from probes import hypergeometric

MIN_TYPES = 20
"""Fewest types that are exchanged with one another."""


class Text(NamedTuple):
    """What is known of the tokens without a model: types and word classes."""

    counts: Int[np.ndarray, "n_types n_classes"]
    """Occurrences of each type in each class."""

    @property
    def occurrences(self) -> Int[np.ndarray, " n_types"]:
        """Tokens of each type."""
        return self.counts.sum(axis=1)

    @property
    def profiles(self) -> Float[np.ndarray, "n_types n_classes"]:
        """Share of each type's tokens in each class."""
        return self.counts / np.maximum(self.occurrences, 1)[:, None]


def frequency_bins(occurrences: Int[np.ndarray, " n_types"], least: int = MIN_TYPES) -> Int[np.ndarray, " n_types"]:
    """Bins of types by floor(log2 occurrences), the most frequent merged downwards until each holds `least` types.

    Types that never occur are in bin -1.  With fewer than `least` types in all there is one bin.
    """
    octave = np.where(occurrences > 0, np.floor(np.log2(np.maximum(occurrences, 1))), -1).astype(np.int64)
    bins = np.full(len(octave), -1)
    made, held = 0, np.zeros(len(octave), dtype=bool)
    for level in range(int(octave.max(initial=-1)), -1, -1):
        held |= octave == level
        if held.sum() >= least:
            bins[held] = made
            made, held = made + 1, np.zeros(len(octave), dtype=bool)
    bins[held] = max(made - 1, 0)  # the rarest left over join the bin above
    return bins


def untestable(text: Text, least: int = MIN_TYPES) -> Float[np.ndarray, "2 n_classes"]:
    """Shares of each class's tokens that the type null treats badly.

    First: tokens of types with fewer than `least` others in their own octave of frequency, which are compared to types
    of another frequency.  Second: tokens in bins where all types have the same profile, which no exchange can move.
    """
    n = text.occurrences
    octave = np.floor(np.log2(np.maximum(n, 1))).astype(np.int64)
    lonely = np.bincount(octave, weights=n > 0)[octave] < least
    bins = frequency_bins(n, least)
    stuck = np.zeros(text.counts.shape, dtype=bool)
    for b in np.unique(bins[bins >= 0]):
        inside = bins == b
        stuck[inside] = np.ptp(text.profiles[inside], axis=0) == 0
    total = np.maximum(text.counts.sum(axis=0), 1)
    return np.stack([text.counts[lonely].sum(axis=0), (text.counts * stuck).sum(axis=0)]) / total


def label_null(
    fired_in_class: Float[np.ndarray, "n_classes n_neurons"],
    class_tokens: Int[np.ndarray, " n_classes"],
    fired: Float[np.ndarray, " n_neurons"],
) -> Float[np.ndarray, "n_classes n_neurons"]:
    """P(at least as many firings inside the class) when labels are exchanged over tokens."""
    total = int(class_tokens.sum())
    return hypergeometric.tails(fired_in_class, total, class_tokens[:, None], np.round(fired)[None, :])[0]


class Moments(NamedTuple):
    """Observed statistic and its first three cumulants over permutations, each (n_classes, n_neurons)."""

    observed: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    third: np.ndarray

    def tail(self) -> np.ndarray:
        """P(statistic >= observed) under the Pearson type III law of these moments; 1 where nothing can move."""
        moves = self.variance > 1e-12
        spread = np.sqrt(np.where(moves, self.variance, 1.0))
        skew = np.where(moves, self.third / spread**3, 0.0)
        z = np.where(moves, (self.observed - self.mean) / spread, -np.inf)
        return np.where(moves, stats.pearson3.sf(z, skew), 1.0)


def type_moments(
    excess: Float[np.ndarray, "n_types n_neurons"],
    profiles: Float[np.ndarray, "n_types n_classes"],
    bins: Int[np.ndarray, " n_types"],
) -> Moments:
    """Sum over types of excess times profile, and its cumulants when profiles are exchanged within bins.

    For one bin of m types, with a and b centred: mean m a_mean b_mean, variance sum a^2 sum b^2 / (m - 1), third
    cumulant m sum a^3 sum b^3 / ((m - 1)(m - 2)); bins add.
    """
    shape = (profiles.shape[1], excess.shape[1])
    observed, mean, variance, third = (np.zeros(shape) for _ in range(4))
    for b in np.unique(bins[bins >= 0]):
        a, p = excess[bins == b].astype(np.float64), profiles[bins == b]
        m = len(a)
        observed += p.T @ a
        mean += np.outer(p.mean(axis=0), a.sum(axis=0))
        a, p = a - a.mean(axis=0), p - p.mean(axis=0)
        if m > 1:
            variance += np.outer((p**2).sum(axis=0), (a**2).sum(axis=0)) / (m - 1)
        if m > 2:
            third += np.outer((p**3).sum(axis=0), (a**3).sum(axis=0)) * m / ((m - 1) * (m - 2))
    return Moments(observed, mean, variance, third)


def associate(
    text: Text,
    fired_by_type: Shaped[np.ndarray, "n_types n_neurons"],
    fired_in_class: Shaped[np.ndarray, "n_classes n_neurons"],
) -> DataFrame:
    """Every (class, neuron): columns `word_class` and `neuron` (places), rate, elsewhere, lift, p_label, p_type, p, ...

    rate is the share of the class's tokens on which the neuron fires, with its Wilson 95% interval low, high (tokens
    taken as independent); elsewhere is the same outside the class.  q is left to `false_discovery` over the family.
    """
    tokens = text.counts.sum(axis=0)
    fired = fired_by_type.sum(axis=0, dtype=np.float64)
    excess = fired_by_type - np.outer(text.occurrences, fired / tokens.sum())
    p_type = type_moments(excess, text.profiles, frequency_bins(text.occurrences)).tail()
    p_label = label_null(fired_in_class, tokens, fired)
    inside = tokens[:, None]
    rate = fired_in_class / np.maximum(inside, 1)
    elsewhere = (fired - fired_in_class) / np.maximum(tokens.sum() - inside, 1)
    low, high = wilson(fired_in_class, inside)
    word_class, neuron = np.indices(rate.shape)
    columns = {"word_class": word_class, "neuron": neuron, "rate": rate, "low": low, "high": high}
    columns |= {"elsewhere": elsewhere, "n_fired": fired_in_class, "n_tokens": np.broadcast_to(inside, rate.shape)}
    columns |= {"p_label": p_label, "p_type": p_type, "p": np.maximum(p_label, p_type)}
    frame = DataFrame({name: np.ravel(values) for name, values in columns.items()})
    return frame[frame["n_tokens"] > 0].reset_index(drop=True)


def false_discovery(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Benjamini-Hochberg: the smallest false discovery rate at which each test is claimed."""
    return stats.false_discovery_control(p, method="bh") if len(p) else p


def wilson(hits: np.ndarray, tries: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95% interval of a share; (0, 1) for no tries."""
    n = np.maximum(tries, 1e-9)
    centre = (hits + z**2 / 2) / (n + z**2)
    reach = z / (n + z**2) * np.sqrt(np.maximum(hits * (n - hits) / n + z**2 / 4, 0))
    return np.clip(centre - reach, 0, 1), np.clip(centre + reach, 0, 1)


def exchanged(text: Text, seed: int) -> Text:
    """The text with profiles exchanged once over types of like frequency: what chance alone finds in it."""
    rng, order = np.random.default_rng(seed), np.arange(len(text.counts))
    bins = frequency_bins(text.occurrences)
    for b in np.unique(bins[bins >= 0]):
        inside = np.flatnonzero(bins == b)
        order[inside] = rng.permutation(inside)
    counts = text.profiles[order] * text.occurrences[:, None]
    return Text(np.round(counts).astype(np.int64))


def favourite_types(
    occurrences: Int[np.ndarray, " n_types"], fired_by_type: Shaped[np.ndarray, "n_types n_neurons"], top: int = 8
) -> DataFrame:
    """The types each neuron fires on most surely: columns neuron, rank, type, n_fired, n_seen, rate, low, high.

    Ordered by the lower end of Wilson's interval, so that a type seen once does not lead.
    """
    low, high = wilson(fired_by_type, occurrences[:, None])
    order = np.argsort(-low, axis=0, kind="stable")[:top]
    parts = []
    for rank, types in enumerate(order):
        neuron = np.arange(fired_by_type.shape[1])
        n_fired, n_seen = fired_by_type[types, neuron].astype(np.int64), occurrences[types]
        bounds = {"low": low[types, neuron], "high": high[types, neuron]}
        frame = {"neuron": neuron, "rank": rank, "type": types, "n_fired": n_fired, "n_seen": n_seen}
        parts.append(DataFrame(frame | {"rate": n_fired / np.maximum(n_seen, 1)} | bounds))
    held = pd.concat(parts, ignore_index=True)
    return held[held["n_fired"] > 0].sort_values(["neuron", "rank"], ignore_index=True)
