"""Experts and labels: planted associations, closed forms, scikit-learn, and routers in which nothing may be found."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

from probes import nulls, specialization
from probes.associations import Text as AllTypes
from probes.associations import exchanged
from probes.cells import _type_moments
from probes.choices import choices
from probes.information import jensen_shannon, mutual_information
from tests.probes.planted_routes import Text, against, hashed, planted_text, uniform


@pytest.fixture(scope="module")
def text() -> Text:
    return planted_text(12_000, seed=0)


def test_bijective_router_tells_everything(text: Text) -> None:
    _, experts = np.unique(text.labels, return_inverse=True)
    found = against(text, experts, n_permutations=20)
    assert found.nmi == pytest.approx(1, abs=1e-12)
    assert found.normalised == pytest.approx([1] * 5, abs=1e-12)
    share = np.bincount(experts) / len(experts)
    assert found.mi == pytest.approx(stats.entropy(share), abs=1e-12)
    assert found.within_type.z > 10  # a router that knows the class knows more than the type


def test_every_verb_to_expert_3_and_the_rest_elsewhere() -> None:
    """p = .124, E = 8: PMI = ln(1/p), I = H(p), NMI .18 and not 1."""
    n = 8 * 875 * 25
    labels = np.where(np.arange(n) % 1000 < 124, "VERB", "other")
    experts = np.full(n, 3)
    rest = labels == "other"
    experts[rest] = np.resize([0, 1, 2, 4, 5, 6, 7], rest.sum())
    found = specialization.association(experts, labels, np.arange(n) % 1000, np.arange(n) // 1000, n_permutations=2)
    p = 0.124
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    cell = found.cells.query("expert == 3 and label == 'VERB'").iloc[0]
    assert cell.pmi == pytest.approx(np.log(1 / p), abs=1e-12)
    assert cell.share == cell.recall == 1
    assert found.mi == pytest.approx(entropy, abs=1e-12)
    assert found.nmi == pytest.approx(entropy / (entropy + (1 - p) * np.log(7)), abs=1e-9)
    assert round(found.nmi, 2) == 0.18


def test_agrees_with_scikit_learn(text: Text) -> None:
    experts = hashed(text, n_experts=7, k=3, seed=1)
    found = against(text, experts, n_permutations=2)
    flat, labels = experts.ravel(), np.repeat(text.labels, 3)
    assert found.mi == pytest.approx(mutual_info_score(flat, labels), abs=1e-10)
    for name, value in {"mean": "arithmetic", "geometric": "geometric", "max": "max"}.items():
        theirs = normalized_mutual_info_score(flat, labels, average_method=value)
        assert getattr(found.normalised, name) == pytest.approx(theirs, abs=1e-10)
    by_type = [  # the chain rule, type by type
        mutual_info_score(flat[kind == np.repeat(text.types, 3)], labels[kind == np.repeat(text.types, 3)])
        * (text.types == kind).mean()
        for kind in np.unique(text.types)
    ]
    assert found.within_type.value == pytest.approx(sum(by_type), abs=1e-10)


def test_both_layouts_and_any_order_of_slots_are_one(text: Text) -> None:
    experts = uniform(text, n_experts=6, k=2, seed=4)
    wide = against(text, experts, n_permutations=5)
    token = np.repeat(np.arange(len(text.labels)), 2)
    order = np.random.default_rng(0).permutation(len(token))
    long = specialization.association(
        experts.ravel()[order],
        pd.Categorical(np.repeat(text.labels, 2)[order]),
        pd.Series(np.repeat(text.types, 2)[order]),
        np.repeat(text.documents, 2)[order].astype(str),
        tokens=token[order],
        n_permutations=5,
    )
    assert long.null_label == pytest.approx(wide.null_label) and long.null_type == pytest.approx(wide.null_type)
    assert long.within_type == pytest.approx(wide.within_type)
    pd.testing.assert_frame_equal(long.cells, wide.cells)


def test_uniform_router_lies_inside_its_null() -> None:
    """In 95 +- 3% of 200 seeds, for one expert and for two experts a token."""
    inside = []
    for seed in range(200):
        text = planted_text(1500, seed)
        made = choices(uniform(text, n_experts=6, k=1 + seed % 2, seed=seed), text.labels, text.types)
        counts = nulls.count(made)
        null = nulls.against(
            float(mutual_information(counts)), nulls.label_draws(made, 400, np.random.default_rng(seed))
        )
        assert null.mean == pytest.approx(specialization.expected_by_chance(made, counts), rel=0.12)
        inside.append(null.low <= null.value <= null.high)
    assert 0.92 <= np.mean(inside) <= 0.98


def test_token_hash_router_beats_the_label_null_but_not_the_type_null() -> None:
    z = []
    for seed in range(20):
        text = planted_text(6000, seed)
        made = choices(hashed(text, n_experts=8, k=2, seed=seed + 100), text.labels, text.types)
        seen, rng = nulls.by_type(made), np.random.default_rng(seed)
        mi = float(mutual_information(nulls.count(made)))
        within = nulls.within_types(made, seen, 200, rng)
        z.append(nulls.against(mi, nulls.type_draws(seen, within.deviations, rng)).z)
        assert within.value == pytest.approx(0, abs=1e-12)  # nothing but the type
        assert nulls.against(mi, nulls.label_draws(made, 50, rng)).z > 15
    assert np.abs(z).max() < 3
    assert 0.7 <= np.sqrt(np.mean(np.square(z))) <= 1.3


def test_routing_by_class_beats_the_type_null(text: Text) -> None:
    """A router that sends nouns to a pair of experts, most of the time."""
    rng = np.random.default_rng(5)
    experts = uniform(text, n_experts=8, k=1, seed=5)[:, 0]
    nouns = text.labels == np.unique(text.labels)[0]
    experts[nouns & (rng.random(len(nouns)) < 0.8)] = 2
    found = against(text, experts)
    assert found.null_type.z > 5 and found.null_type.p < 0.01
    best = found.cells.sort_values("pmi").iloc[-1]
    assert best.expert == 2 and best.label == np.unique(text.labels)[0]
    assert best.q < 0.001 and best.low > best.null_high


def test_context_is_found_where_types_say_nothing(text: Text) -> None:
    """Labels drawn apart from the types; half of one label's tokens go to expert 0."""
    rng = np.random.default_rng(8)
    labels = rng.choice(["after to", "elsewhere"], len(text.types), p=[0.2, 0.8])
    experts = uniform(text, n_experts=6, k=1, seed=9)[:, 0]
    experts[(labels == "after to") & (rng.random(len(labels)) < 0.5)] = 0
    found = specialization.association(experts, labels, text.types, text.documents)
    assert found.within_type.z > 10 and found.null_type.z > 3
    assert found.cells.query("expert == 0 and label == 'after to'").q.item() < 1e-6


def test_interval_covers_what_was_drawn_from() -> None:
    """Joint shares known: the interval holds the true I in 95% of draws, give or take."""
    joint = np.array([[0.3, 0.1, 0.1], [0.1, 0.1, 0.3]])
    true, covered = float(mutual_information(joint)), []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        drawn = rng.choice(6, 3000, p=joint.ravel())
        made = choices(drawn // 3, drawn % 3, np.zeros(3000), np.arange(3000) // 30)
        low, high, n = specialization.interval(made, float(mutual_information(nulls.count(made))), rng)
        assert n == 100
        covered.append(low <= true <= high)
    assert np.mean(covered) > 0.88


def test_cells_against_slow_counting(text: Text) -> None:
    found = against(text, hashed(text, n_experts=5, k=2, seed=3), n_permutations=2, min_count=30)
    experts, labels = hashed(text, n_experts=5, k=2, seed=3).ravel(), np.repeat(text.labels, 2)
    for row in found.cells.itertuples():
        hits = ((experts == row.expert) & (labels == row.label)).sum()
        base = (labels == row.label).mean()
        assert (row.n, row.n_expert) == (hits, (experts == row.expert).sum())
        assert row.base == pytest.approx(base)
        if max(hits, base * row.n_expert) >= 30:
            assert row.pmi == pytest.approx(np.log(hits / row.n_expert / base))
            assert row.p == pytest.approx(max(row.p_label, row.p_type)) or row.p >= max(row.p_label, row.p_type)
        else:
            assert np.isnan([row.pmi, row.p, row.q]).all()
    tested = found.cells.dropna(subset="p").sort_values("p")
    steps = tested.p.to_numpy() * len(tested) / np.arange(1, len(tested) + 1)
    assert tested.q.to_numpy() == pytest.approx(np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1))


def test_null_share_is_the_mean_over_exchanges(text: Text) -> None:
    """Closed form against drawn exchanges of the labels' profiles."""
    experts = hashed(text, n_experts=4, k=1, seed=6)[:, 0]
    made = choices(experts, text.labels, text.types)
    seen, rng = nulls.by_type(made), np.random.default_rng(0)
    order, drawn = np.arange(len(made.type_names)), []
    for _ in range(3000):
        for b in np.unique(seen.bins):
            inside = np.flatnonzero(seen.bins == b)
            order[inside] = rng.permutation(inside)
        table = seen.routed.T @ seen.text.profiles[order]
        drawn.append(table / seen.routed.sum(axis=0)[:, None])
    frame = specialization.association(experts, text.labels, text.types, n_permutations=2).cells
    assert frame["null"].to_numpy() == pytest.approx(np.mean(drawn, axis=0).ravel(), abs=0.01)
    assert frame["null_high"].to_numpy() == pytest.approx(np.quantile(drawn, 0.975, axis=0).ravel(), abs=0.02)


def test_untestable_share() -> None:
    """One type holds half of the text, alone in its octave; 40 types of 25 tokens have an octave to themselves."""
    types = np.append(np.zeros(1000), np.repeat(np.arange(1, 41), 25))
    rng = np.random.default_rng(0)
    experts, labels = rng.integers(0, 4, 2000), rng.integers(0, 3, 2000)
    assert specialization.association(experts, labels, types, n_permutations=2).untestable == 0.5
    few = specialization.association(experts, labels, types % 5, n_permutations=2)
    assert few.untestable == 1


def test_the_interval_is_that_of_documents_drawn_the_slow_way() -> None:
    rng = np.random.default_rng(5)
    documents = np.repeat(np.arange(12), 40)
    labels = rng.integers(0, 2, 480)
    experts = np.where(rng.random(480) < rng.random(12)[documents], labels, rng.integers(0, 3, 480))
    made = choices(experts, labels, labels, documents)
    tables = np.array([np.histogram2d(labels[documents == d], experts[documents == d], (2, 3))[0] for d in range(12)])
    mi = mutual_info_score(None, None, contingency=tables.sum(axis=0))
    slow = [mutual_info_score(None, None, contingency=tables[rng.integers(0, 12, 12)].sum(axis=0)) for _ in range(4000)]
    ends = np.mean([specialization.interval(made, mi, np.random.default_rng(seed))[:2] for seed in range(40)], axis=0)
    wanted = np.maximum(2 * mi - np.quantile(slow, [0.975, 0.025]), 0)
    assert wanted[0] > 0 and ends - mi == pytest.approx(wanted - mi, rel=0.04)


def test_types_that_are_all_routed_alike_move_nothing() -> None:
    """Three octaves of 40 types: of 2 tokens, all to one expert; of 8 and of 32, anywhere."""
    types = np.repeat(np.arange(120), np.repeat([2, 8, 32], 40))
    rng = np.random.default_rng(0)
    experts, labels = np.where(types < 40, 1, rng.integers(0, 4, len(types))), rng.integers(0, 3, len(types))
    found = specialization.association(experts, labels, types, n_permutations=2)
    assert found.untestable == pytest.approx(2 / (2 + 8 + 32))


def test_jensen_shannon_closed_forms() -> None:
    profiles = np.array([[1, 0, 0], [0, 1, 1], [2, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=float)
    apart = jensen_shannon(profiles)
    assert apart[0, 2] == 0 and apart[0, 1] == pytest.approx(np.log(2))
    mixture = (profiles[0] + profiles[3] / 2) / 2
    direct = (stats.entropy([1, 0], mixture[:2]) + stats.entropy([0.5, 0.5], mixture[:2])) / 2
    assert apart[0, 3] == apart[3, 0] == pytest.approx(direct)
    assert np.isnan(apart[4]).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"experts": []}, "experts is empty"),
        ({"labels": ["a"]}, "labels has 1 entries, experts has 4"),
        ({"labels": ["a", None, "b", "a"]}, "labels has 1 missing entries, the first at 1"),
        ({"types": [1.0, 2.0, np.nan, 1.0]}, "types has 1 missing"),
        ({"experts": [0, 1.5, 2, 1]}, "1.5"),
        ({"experts": [0, -2, 2, 1]}, "numbered from 0"),
        ({"experts": [-1, -1, -1, -1]}, "nobody got"),
        ({"experts": ["a", "b", "c", "d"]}, "whole numbers"),
        ({"experts": [[0], [1, 2], [0], [1]]}, "no array of whole numbers but list"),
        ({"n_experts": 2}, "n_experts=2"),
        ({"tokens": [0, 0, 1, 1]}, "two labels"),
        ({"experts": [[1, 0], [2, 1], [0, 0], [1, 2]]}, "token 2 names an expert twice"),
        ({"n_permutations": 1}, "at least 2"),
        ({"experts": np.zeros((2, 2, 1), int)}, "3 dimensions"),
        ({"experts": np.zeros((4, 1), int), "tokens": [0, 1, 2, 3]}, "leave `tokens` out"),
    ],
)  # fmt: skip
def test_bad_input_is_answered_with_a_sentence(change: dict, sentence: str) -> None:
    good = {"experts": [0, 1, 2, 1], "labels": list("abba"), "types": [1, 2, 3, 1], "groups": [0, 0, 1, 1]}
    with pytest.raises(ValueError, match=sentence):
        specialization.association(**(good | change))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 4), st.sampled_from("abc"), st.integers(0, 6), st.integers(0, 2)), min_size=1),
    st.integers(0, 3),
)
def test_any_small_input_has_an_exact_answer(rows: list[tuple[int, str, int, int]], seed: int) -> None:
    experts, labels, types, groups = map(list, zip(*rows, strict=True))
    if max(experts) < 0:
        with pytest.raises(ValueError, match="nobody got"):
            specialization.association(experts, labels, types, groups)
        return
    found = specialization.association(experts, labels, types, groups, seed, n_permutations=3)
    got = [row for row in rows if row[0] >= 0]
    assert found.n == found.n_tokens == len(got)
    assert found.mi == pytest.approx(mutual_info_score([r[0] for r in got], [r[1] for r in got]), abs=1e-10)
    assert 0 <= found.nmi <= 1 + 1e-12 and 0 <= found.untestable <= 1
    if len({r[0] for r in got}) == 1 or len({r[1] for r in got}) == 1:
        assert found.mi == found.nmi == found.null_label.z == found.null_type.z == 0
    assert not found.cells[["share", "base", "lift", "recall", "null", "null_high"]].isna().any(axis=None)
    assert found.cells["n"].sum() == len(got)


def test_empty_slots_are_left_out(text: Text) -> None:
    experts = uniform(text, n_experts=6, k=2, seed=4)
    experts[::5, 1], experts[::10, 0] = -1, -1
    found = against(text, experts, n_permutations=2)
    kept = experts.ravel() >= 0
    assert (found.n, found.n_tokens) == (kept.sum(), (experts >= 0).any(axis=1).sum())
    assert found.mi == pytest.approx(
        mutual_info_score(experts.ravel()[kept], np.repeat(text.labels, 2)[kept]), abs=1e-10
    )


def test_the_tokens_of_one_type_meet_its_labels_by_chance() -> None:
    """One type has none to be exchanged with: what is left is the hypergeometric variance of its own tokens."""
    counts, routed = np.array([[30, 12]]), np.array([[7, 35]])
    seen = nulls.ByType(AllTypes(counts), routed, np.zeros(1, dtype=np.int64))
    found = _type_moments(seen, np.array([[5, 2], [25, 10]]))
    wanted = [[stats.hypergeom(42, held, chosen).var() for held in (30, 12)] for chosen in (7, 35)]
    np.testing.assert_allclose(found.variance, wanted)


def test_exchanged_profiles_stay_within_types_of_like_frequency() -> None:
    rng = np.random.default_rng(0)
    often = np.repeat([8, 64, 512], 40)
    first = rng.permutation(often.size) % 9  # of eight tokens so many have the first label: exact at every frequency
    text = AllTypes(np.stack([first * often // 8, often - first * often // 8], axis=1))
    found = exchanged(text, seed=1)
    assert (found.occurrences == often).all() and (found.counts != text.counts).any()
    for n in (8, 64, 512):
        assert sorted(found.counts[often == n, 0]) == sorted(text.counts[often == n, 0])
    assert sorted(found.counts[often == 64, 0] * 8) != sorted(text.counts[often == 512, 0])
