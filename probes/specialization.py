"""What experts specialise in: the association of routing with labels, against what chance and token identity give.

    I(E;C) = sum_ec p(e, c) ln( p(e, c) / (p(e) p(c)) )      nats, p over (token, slot) pairs

An untrained router passes a test against exchanged labels: like tokens have like embeddings, hence like experts.  So
three nulls are drawn (see `nulls`): labels exchanged over tokens, routing exchanged over token types of like frequency,
and labels exchanged inside each type, which leaves what the context adds, I(E;C|type).

Sources: Cover and Thomas 2006 (mutual information); Miller 1955 (its bias); Benjamini and Hochberg 1995; Muennighoff et
al. 2024 (OLMoE), who report domain and vocabulary specialization without a null.
"""

from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from pandas import DataFrame

from probes import nulls
from probes.associations import MIN_TYPES
from probes.cells import MIN_COUNT, cells
from probes.choices import Choices, Codes, choices, cross
from probes.information import Normalised, mutual_information, normalised
from probes.nulls import ByType, Null, count

N_BLOCKS = 200
"""Documents are dealt into at most as many blocks, which the interval resamples."""
N_RESAMPLES = 1000


class Association(NamedTuple):
    """How much the choice of expert and the label tell of one another."""

    mi: float
    """I(E;C) in nats."""
    low: float
    high: float
    """95% interval of I, its bias taken off, from resampled documents; NaN for a single one."""
    nmi: float
    """I over the larger of H(E) and H(C)."""
    normalised: Normalised
    """The other customary denominators."""
    null_label: Null
    expected_label: float
    """(E - k)(C - 1) / 2N, the closed form of null_label.mean; (E - 1)(C - 1) / 2N for one slot a token."""
    null_type: Null
    within_type: Null
    """I(E;C|type) and its null: what the context adds to the token's identity."""
    untestable: float
    """Share of tokens that the type null treats badly: see `untestable_share`."""
    n: int
    """(token, slot) pairs."""
    n_tokens: int
    n_types: int
    n_groups: int
    cells: DataFrame
    """One row an (expert, label): see `cells.cells`."""


def association(
    experts: Any,
    labels: Codes,
    types: Codes,
    groups: Codes | None = None,
    seed: int = 0,
    *,
    tokens: Codes | None = None,
    n_permutations: int = 100,
    n_experts: int | None = None,
    min_count: int = MIN_COUNT,
) -> Association:
    """Association of expert choice and label.

    experts          (n_tokens, k), or one entry a (token, slot)
    labels           word class, domain, position, ... of each token (each entry)
    types            identity of each token: its id or its text
    groups           document of each token, what the interval resamples.  A label that is the same all over each
                     group is exchanged over groups, not tokens
    tokens           for one entry a (token, slot): which entries are slots of one token.  Without it every entry is a
                     token of its own, which makes the nulls too narrow where k > 1
    Raises ValueError with a sentence: see `choices.choices`.
    """
    if not isinstance(n_permutations, Integral) or not 2 <= n_permutations <= 10**6:
        raise ValueError(f"n_permutations={n_permutations}; a null needs at least 2 draws, and a million is enough")
    made = choices(experts, labels, types, groups, tokens, n_experts)
    rng = np.random.default_rng(seed)
    seen = nulls.by_type(made)
    counts = count(made)
    mi = float(mutual_information(counts))
    shared = normalised(counts)
    within = nulls.within_types(made, seen, n_permutations, rng)
    low, high, n_groups = interval(made, mi, rng)
    return Association(
        mi=mi,
        low=low,
        high=high,
        nmi=shared.max,
        normalised=shared,
        null_label=nulls.against(mi, nulls.label_draws(made, n_permutations, rng)),
        expected_label=expected_by_chance(made, counts),
        null_type=nulls.against(mi, nulls.type_draws(seen, within.deviations, rng)),
        within_type=nulls.against(within.value, within.draws),
        untestable=untestable_share(seen),
        n=made.n_slots,
        n_tokens=made.n_tokens,
        n_types=len(made.type_names),
        n_groups=n_groups,
        cells=cells(made, seen, counts, min_count),
    )


def expected_by_chance(made: Choices, counts: np.ndarray) -> float:
    """Expectation of I(E;C) if labels ignore the experts: sum_e (1 - r_e) (C - 1) / 2N, r_e the share of tokens at e.

    It is (E - 1)(C - 1) / 2N for one slot a token (Miller 1955) and (E - k)(C - 1) / 2N for k different experts a
    token, because the slots of one token exclude one another.
    """
    rate = counts.sum(axis=1) / made.n_tokens
    return float((1 - rate[rate > 0]).sum() * (made.n_labels - 1) / (2 * made.n_slots))


def untestable_share(seen: ByType, least: int = MIN_TYPES) -> float:
    """Share of tokens whose type has fewer than `least` types in its octave of frequency, or is routed as all its bin.

    The first are exchanged with types of another frequency (mostly "," and "."), the second move nothing.
    """
    n = seen.text.occurrences
    octave = np.floor(np.log2(np.maximum(n, 1))).astype(np.int64)
    bad = np.bincount(octave, weights=n > 0)[octave] < least
    profiles = seen.routed / np.maximum(n, 1)[:, None]
    for b in np.unique(seen.bins):
        inside = seen.bins == b
        bad[inside] |= inside.sum() < least or not np.ptp(profiles[inside], axis=0).any()
    return float(n[bad].sum() / n.sum())


def interval(made: Choices, mi: float, rng: np.random.Generator) -> tuple[float, float, int]:
    """95% interval of I from resampled documents, and the number of blocks resampled.

    Basic bootstrap, (2 I - q97.5, 2 I - q2.5): resampling adds to I the bias that I has already, and this takes it
    off.  Without groups, runs of successive tokens stand for documents.
    """
    if made.n_groups:
        block = made.group % N_BLOCKS
    else:
        block = np.arange(made.n_tokens) * N_BLOCKS // made.n_tokens
    used, block = np.unique(block, return_inverse=True)
    if len(used) < 2:
        return float("nan"), float("nan"), len(used)
    shape = (len(used), made.n_labels, made.n_experts)
    tables = np.zeros((shape[0] * shape[1], shape[2]))
    cross(made.expert, made.start, block * made.n_labels + made.label, tables)
    weights = rng.multinomial(len(used), np.full(len(used), 1 / len(used)), size=N_RESAMPLES).astype(np.float64)
    draws = mutual_information((weights @ tables.reshape(len(used), -1)).reshape(-1, *shape[1:]))
    low, high = 2 * mi - np.quantile(draws, [0.975, 0.025])
    return float(max(low, 0.0)), float(max(high, 0.0)), len(used)
