"""What chance shows: the association of experts and labels after an exchange that should not matter.

(a) Labels exchanged over whole tokens (over whole groups if the label belongs to the group): any router that ignores
    the text.  With k experts a token the expectation of I is close to (E - k)(C - 1) / 2N, N = tokens * k.
(b) Routing profiles (the share of a type's slots at each expert) exchanged over token types of like frequency: any
    router that looks at nothing but the token's identity.  The table of counts of one exchange pi is

        N_ec = sum_v n_vc R_{pi(v), e} / n_{pi(v)} + D_ec

    n_vc tokens of type v with label c, R_ve of them at expert e, and D the deviation of one draw of (c) from its mean:
    such a router, too, meets the labels of one type by chance.
(c) Labels exchanged over the tokens of each type (over whole groups if the label belongs to them), for I(E;C|type):
    nothing but the token's identity.

(a) and (c) look at tokens, (c) at those whose type has two labels or more; (b) needs only the counts by type.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numba import njit
from scipy import sparse

from probes.associations import Text, frequency_bins
from probes.choices import Choices, cross
from probes.information import mutual_information

NEGLIGIBLE = 1e-12
"""Nats below which two values of I differ by rounding only."""


class Null(NamedTuple):
    """An observed value against what an exchange gives."""

    mean: float
    sd: float
    z: float
    """(value - mean) / sd; 0 if nothing moves and the value is the mean, infinite if it is not."""
    low: float
    """2.5% of the draws lie below."""
    high: float
    """2.5% of the draws lie above."""
    p: float
    """(1 + draws at least as large) / (1 + draws): no smaller than 1 / (1 + n)."""
    value: float
    """What was observed, in nats."""
    n: int
    """Draws."""

    @property
    def excess(self) -> float:
        """What is left of the value beyond the null, value - mean."""
        return self.value - self.mean


def against(value: float, draws: Float[np.ndarray, " n"]) -> Null:
    """Summary of a value and its draws."""
    mean, sd = float(draws.mean()), float(draws.std(ddof=1)) if len(draws) > 1 else 0.0
    gap = value - mean
    if sd > NEGLIGIBLE:
        z = gap / sd
    else:
        z = 0.0 if abs(gap) <= NEGLIGIBLE else float(np.copysign(np.inf, gap))
    low, high = np.quantile(draws, [0.025, 0.975])
    p = (1 + int((draws >= value - NEGLIGIBLE).sum())) / (1 + len(draws))
    return Null(mean, sd, z, float(low), float(high), p, float(value), len(draws))


class ByType(NamedTuple):
    """What is known of routing when only types are looked at."""

    text: Text
    """Tokens by type and label."""
    routed: Int[np.ndarray, "n_types n_experts"]
    """Slots by type and expert."""
    bins: Int[np.ndarray, " n_types"]
    """Types of like frequency, exchanged with one another."""


def by_type(made: Choices) -> ByType:
    """Count."""
    n_types = len(made.type_names)
    labelled = tally(made.type, made.label, (n_types, made.n_labels))
    routed = np.zeros((n_types, made.n_experts), dtype=np.int32)
    cross(made.expert, made.start, made.type, routed)
    return ByType(Text(labelled), routed, frequency_bins(labelled.sum(axis=1)))


def count(made: Choices) -> Int[np.ndarray, "n_experts n_labels"]:
    """Slots by expert and label."""
    table = np.zeros((made.n_labels, made.n_experts), dtype=np.int64)
    cross(made.expert, made.start, made.label, table)
    return table.T


def label_draws(made: Choices, n: int, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """I(E;C) after each exchange of labels over tokens, or over groups if the label belongs to them."""
    whole = made.of_groups()
    held = _of_group(made) if whole else made.label.astype(np.min_scalar_type(made.n_labels))
    tables = np.zeros((n, made.n_labels, made.n_experts), dtype=np.int64)
    for table in tables:
        dealt = rng.permutation(held)
        cross(made.expert, made.start, dealt[made.group] if whole else dealt, table)
    return mutual_information(tables)


def type_draws(
    seen: ByType, deviations: Float[np.ndarray, "n n_experts n_labels"], rng: np.random.Generator
) -> np.ndarray:
    """I(E;C) after each exchange of profiles over types of like frequency; as many draws as deviations."""
    labelled, routed = sparse.csr_array(seen.text.counts), sparse.csr_array(seen.routed)
    occurrences = seen.text.occurrences.astype(np.float64)
    order = np.arange(len(occurrences))
    inside = [np.flatnonzero(seen.bins == b) for b in np.unique(seen.bins)]
    tables = deviations.astype(np.float64)  # a copy
    for table in tables:
        for types in inside:
            order[types] = rng.permutation(types)
        _exchanged(
            labelled.indptr, labelled.indices, labelled.data, routed.indptr, routed.indices, routed.data,
            occurrences, order, table,
        )  # fmt: skip
    return mutual_information(tables)


class Within(NamedTuple):
    """Draws of (c)."""

    value: float
    """I(E;C|type) as observed, in nats."""
    draws: Float[np.ndarray, " n"]
    deviations: Float[np.ndarray, "n n_experts n_labels"]
    """Counts of each draw less their expectation."""


def within_types(made: Choices, seen: ByType, n: int, rng: np.random.Generator) -> Within:
    """Exchange labels over the tokens of each type, or over whole groups if the label belongs to them.

    Groups of two labels differ in their words, and an exchange over all groups mixes labels in types that had one: I
    is then too large by chance.  So the mean of the draws is that of exchanges inside each type, among its own groups;
    their spread, in which a group's types move together, that of exchanges over all.
    """
    if not made.of_groups():
        inside = _Inside(made, (seen.text.counts > 0).sum(axis=1) > 1)
        values, tables = inside.drawn(seen, [inside.label, *(inside.exchanged(rng) for _ in range(n))])
        return Within(values[0], values[1:], tables[1:])
    held, everywhere = _of_group(made), _Inside(made, seen.text.occurrences > 0)
    of_tokens = (rng.permutation(held)[made.group[everywhere.tokens]] for _ in range(n))
    values, tables = everywhere.drawn(seen, [everywhere.label, *of_tokens])
    own = _Inside(made, (seen.text.counts > 0).sum(axis=1) > 1)
    centre, _ = own.drawn(seen, (own.exchanged(rng) for _ in range(n)))
    return Within(values[0], values[1:] - values[1:].mean() + centre.mean(), tables[1:])


class _Inside:
    """Tokens of some types, sorted by type and group."""

    def __init__(self, made: Choices, types: np.ndarray):
        whole, tokens = made.of_groups(), np.flatnonzero(types[made.type])
        keys = [made.group[tokens], made.type[tokens]] if whole else [made.type[tokens]]
        self.tokens = tokens[np.lexsort(keys)]
        self.type, self.label = made.type[self.tokens], made.label[self.tokens]
        self.block = np.append(np.flatnonzero(np.diff(self.type, prepend=-1)), len(tokens))
        length = np.diff(made.start)[self.tokens]
        self.start = np.append(0, np.cumsum(length))
        slot = np.repeat(made.start[self.tokens] - self.start[:-1], length) + np.arange(self.start[-1])
        self.expert, self.made = made.expert[slot], made
        # what is exchanged: a token, or all tokens of one type in one group
        unit = np.diff(made.group[self.tokens], prepend=-1) != 0 if whole else np.ones(len(tokens), dtype=bool)
        unit[self.block[:-1]] = True
        self.unit = np.flatnonzero(unit)
        self.sizes = np.diff(np.append(self.unit, len(tokens)))
        # with units of like size only, or a label that is rare in a type would gain tokens and thereby information
        octave, of_type = np.log2(np.maximum(self.sizes, 1)).astype(np.int64), self.type[self.unit]
        self.turn = np.lexsort([octave, of_type])
        same = of_type[self.turn] * (octave.max(initial=0) + 1) + octave[self.turn]
        self.alike = np.append(np.flatnonzero(np.diff(same, prepend=-1)), len(self.unit))

    def exchanged(self, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
        """Labels exchanged inside each type."""
        label = self.label[self.unit[self.turn]]
        _shuffle_blocks(label, self.alike, rng)
        back = np.empty_like(label)
        back[self.turn] = label
        return np.repeat(back, self.sizes)

    def drawn(self, seen: ByType, labels: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """I(E;C|type) of each labelling, and its counts less their expectation."""
        largest = int(np.diff(self.start[self.block]).max(initial=0))
        steps = np.diff(np.arange(largest + 2) * np.log(np.maximum(np.arange(largest + 2), 1)))
        profiles = seen.routed / np.maximum(seen.text.occurrences, 1)[:, None]
        values, tables = [], []
        for label in labels:
            table = np.zeros((self.made.n_experts, self.made.n_labels))
            total = _conditional(self.expert, self.start, label, self.block, steps, table)
            tables.append(table - profiles.T @ tally(self.type, label, seen.text.counts.shape))
            values.append(max(total / self.made.n_slots, 0.0))
        return np.array(values), np.array(tables)


def tally(row: Int[np.ndarray, " n"], column: Int[np.ndarray, " n"], shape: tuple[int, int]) -> np.ndarray:
    """Table of how often each (row, column) occurs."""
    return np.bincount(row.astype(np.int64) * shape[1] + column, minlength=shape[0] * shape[1]).reshape(shape)


def _of_group(made: Choices) -> np.ndarray:
    """The label of each group."""
    held = np.zeros(made.n_groups, dtype=np.min_scalar_type(made.n_labels))
    held[made.group] = made.label
    return held


@njit(cache=True)
def _exchanged(label_at, labels, n_label, expert_at, experts, n_expert, occurrences, order, table):
    """Add to table[expert, label] the expected counts when type v is routed as type order[v] is."""
    for v in range(len(order)):
        other = order[v]
        for i in range(label_at[v], label_at[v + 1]):
            weight = n_label[i] / occurrences[other]
            for j in range(expert_at[other], expert_at[other + 1]):
                table[experts[j], labels[i]] += weight * n_expert[j]


@njit(cache=True)
def _shuffle_blocks(label, block, rng):
    """Fisher-Yates within each block."""
    for b in range(len(block) - 1):
        low = block[b]
        for t in range(block[b + 1] - 1, low, -1):
            other = low + int(rng.random() * (t - low + 1))
            label[t], label[other] = label[other], label[t]


@njit(cache=True)
def _conditional(expert, start, label, block, steps, table):
    """N * I(E;C|type) from sums of n ln n, one step (n + 1) ln(n + 1) - n ln n for each slot; counts go to table."""
    n_experts, n_labels = table.shape
    both = np.zeros((n_experts, n_labels), dtype=np.int64)
    of_expert = np.zeros(n_experts, dtype=np.int64)
    of_label = np.zeros(n_labels, dtype=np.int64)
    total = 0.0
    for b in range(len(block) - 1):
        n = 0
        for t in range(block[b], block[b + 1]):
            c = label[t]
            for j in range(start[t], start[t + 1]):
                e = expert[j]
                total += steps[both[e, c]] - steps[of_expert[e]] - steps[of_label[c]] + steps[n]
                both[e, c] += 1
                of_expert[e] += 1
                of_label[c] += 1
                n += 1
                table[e, c] += 1
        for t in range(block[b], block[b + 1]):
            of_label[label[t]] = 0
            for j in range(start[t], start[t + 1]):
                both[expert[j], label[t]] = 0
                of_expert[expert[j]] = 0
    return total
