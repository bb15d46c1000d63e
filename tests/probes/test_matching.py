"""Experts of two runs, routes through depth, and routers of random directions."""

from itertools import permutations

import numpy as np
import pytest

from probes.information import mutual_information
from probes.matching import match, profile_similarity, together
from probes.paths import diversity
from probes.random_router import random_router
from tests.probes.planted_routes import planted_text, uniform


def test_relabelled_experts_are_found_again() -> None:
    rng = np.random.default_rng(0)
    profiles = rng.dirichlet(np.full(12, 0.3), 16)
    order = rng.permutation(16)
    noisy = np.array([rng.multinomial(500, p) for p in profiles[order]])
    found = match(profile_similarity(np.round(profiles * 1000), noisy))
    assert (order[found.pairs["second"]] == found.pairs["first"]).all()
    assert (found.pairs["similarity"] > found.pairs["rival"]).all()
    assert found.random.z > 8 and found.scattered.z > 5


def test_matching_is_the_best_of_all() -> None:
    similarity = np.random.default_rng(1).random((5, 5))
    best = max(similarity[np.arange(5), list(p)].mean() for p in permutations(range(5)))
    assert match(similarity).random.value == pytest.approx(best)
    assert match(similarity).random.mean == pytest.approx(similarity.mean(), abs=0.05)
    assert len(match(similarity[:, :3]).pairs) == 3


def test_unrelated_runs_beat_random_matchings_but_not_scattered_similarities() -> None:
    """The best matching of noise looks good: z against the scattered null has mean about 0 over seeds."""
    z = [match(np.random.default_rng(seed).random((16, 16)), seed=seed) for seed in range(20)]
    assert np.mean([m.random.z for m in z]) > 4
    assert abs(np.mean([m.scattered.z for m in z])) < 0.7
    assert max(abs(m.scattered.z) for m in z) < 4


def test_tokens_at_both_experts_against_sets() -> None:
    text = planted_text(400, 0)
    a, b = uniform(text, 5, 2, 1), uniform(text, 6, 3, 2)
    a[::7, 1] = -1
    both = together(a, b, 5, 6)
    for i in range(5):
        for j in range(6):
            assert both[i, j] == len(set(np.nonzero((a == i).any(1))[0]) & set(np.nonzero((b == j).any(1))[0]))
    assert together(a, a, 5, 5).trace() == (a >= 0).sum()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: match(np.zeros((0, 3))), "give \\(experts, experts\\)"),
        (lambda: match(np.array([[np.nan]])), "not finite"),
        (lambda: profile_similarity(np.ones((2, 3)), np.ones((2, 4))), "3 and 4 labels"),
        (lambda: together(np.zeros((3, 1), int), np.zeros((2, 1), int), 1, 1), "3 and 2 tokens"),
        (lambda: together([[0]], np.zeros((1, 1), int), 1, 1), "not list"),
        (lambda: diversity([[0, 1]]), "not list"),
        (lambda: diversity(np.zeros((0, 2), int)), "tokens, layers"),
        (lambda: diversity(np.array([[0, -1]])), "no expert"),
        (lambda: random_router(np.zeros((0, 4)), np.ones(3), 1, 0), "at least one token"),
        (lambda: random_router(np.full((5, 4), np.nan), np.ones(3), 1, 0), "NaN"),
        (lambda: random_router(np.ones((5, 4)), np.array([1, 0, 0]), 2, 0), "k=2"),
        (lambda: random_router(np.ones((5, 4)), np.array([8, 1, 1]), 2, 0), "expert 0 would need 1.60"),
    ],
)
def test_bad_input_is_answered_with_a_sentence(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_diversity_of_known_chains() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 4, 4000)
    copied = dict(diversity(np.stack([first, first, first], axis=1)).to_numpy())
    assert copied["distinct"] == 4
    share = np.bincount(first) / 4000
    effective = np.exp(-(share * np.log(share)).sum())
    assert copied["effective"] == copied["markov"] == pytest.approx(effective)
    assert copied["independent"] == pytest.approx(effective**3)
    # a path that layer 3 takes up from layer 1 over a layer of noise: the chain of neighbours cannot see it
    skipping = dict(diversity(np.stack([first, rng.integers(0, 4, 4000), first], axis=1)).to_numpy())
    assert skipping["effective"] == pytest.approx(16, rel=0.02) and skipping["markov"] == pytest.approx(64, rel=0.02)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_random_router_keeps_the_load(k: int) -> None:
    rng = np.random.default_rng(k)
    inputs = rng.standard_normal((6000, 24)) * np.linspace(3, 0.1, 24) + 4 * rng.standard_normal(24)
    load = np.array([300, 100, 50, 0, 120, 80, 200, 150])
    found = random_router(inputs, load, k, seed=0) if k < 4 else random_router(inputs, load + 300, k, seed=0)
    wanted = load if k < 4 else load + 300
    got = np.bincount(found.experts.ravel(), minlength=8) / found.experts.size
    assert found.experts.shape == (6000, k) and found.load_error < 0.01
    assert got == pytest.approx(wanted / wanted.sum(), abs=0.01)
    assert all(len(set(row)) == k for row in found.experts[:200])
    other = random_router(inputs, wanted, k, seed=1).experts
    assert (other != found.experts).any()


def test_random_router_shows_the_geometry_of_its_input() -> None:
    """Clusters far apart are told apart by random directions; labels without geometry are not."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 4000)
    centres = rng.standard_normal((4, 16)) * 8
    inputs = centres[label] + rng.standard_normal((4000, 16))
    chosen = random_router(inputs, np.ones(8), 1, seed=0).experts[:, 0]
    table = np.zeros((8, 4))
    np.add.at(table, (chosen, label), 1)
    assert mutual_information(table) > 0.5
    noise = np.zeros((8, 4))
    np.add.at(noise, (chosen, rng.permutation(label)), 1)
    assert mutual_information(noise) < 0.01
