"""Dictionaries, weights, activations and tables of counts with something wrong in them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes import bounds, coherence, crowding, dictionaries, frames, recovery
from probes.describe import describe
from probes.information import entropy, jensen_shannon, mutual_information, normalised
from probes.matching import Matching, match, profile_similarity, together
from probes.nulls import NEGLIGIBLE
from probes.paths import diversity
from probes.specialization import association
from tests.properties.judge import judge
from tests.properties.strategies import FLAWS, flawed, matrices, numbers, texts
from toymodels import geometry, phase
from toymodels.ngram import KneserNey

MATRIX: dict[str, Callable[[Any], Any]] = {
    "probes.coherence.measure": lambda V: coherence.measure(V, neighbours=2),
    "probes.coherence.measure centred": lambda V: coherence.measure(V, centred=True),
    "probes.crowding.features_per_dimension": crowding.features_per_dimension,
    "probes.dictionaries.of_toy": lambda V: coherence.measure(dictionaries.of_toy(V).matrix),
    "probes.recovery.empirical": lambda V: recovery.empirical(V, k=1, trials=2),
    "probes.describe": describe,
    "toymodels.geometry.capacity": geometry.capacity,
    "toymodels.geometry.canonical_rotation": geometry.canonical_rotation,
    "toymodels.geometry.dimensions_per_feature": geometry.dimensions_per_feature,
    "toymodels.geometry.feature_dimensionality": geometry.feature_dimensionality,
    "toymodels.geometry.feature_norms": geometry.feature_norms,
    "toymodels.geometry.features": geometry.features,
    "toymodels.geometry.gram": geometry.gram,
    "toymodels.geometry.interference_graph": geometry.interference_graph,
    "toymodels.geometry.neuron_weights": geometry.neuron_weights,
    "toymodels.geometry.neurons": geometry.neurons,
    "toymodels.geometry.orient": geometry.orient,
    "toymodels.geometry.recognize": geometry.recognize,
    "toymodels.geometry.superposition": geometry.superposition,
}
"""Entry points that take one matrix."""


@pytest.mark.parametrize("entry", MATRIX)
@given(matrix=matrices())
def test_a_matrix_with_a_flaw(entry: str, matrix: Any) -> None:
    # a square may leave float64 where entries are near its end
    undefined = entry in ("probes.crowding.features_per_dimension", "probes.describe")  # all zero; all equal
    judge(entry, lambda: MATRIX[entry](matrix), nan=undefined, inf=entry.endswith(".feature_norms"))


@pytest.mark.parametrize("entry", MATRIX)
def test_a_matrix_with_each_flaw_alone(entry: str) -> None:
    undefined = entry in ("probes.crowding.features_per_dimension", "probes.describe")
    for matrix in (matrix for flaw in FLAWS for matrix in flawed(flaw)):
        judge(entry, partial(MATRIX[entry], matrix), nan=undefined, inf=entry.endswith(".feature_norms"))


@given(matrix=matrices(), other=matrices(), k=numbers, support=st.lists(st.integers(-2, 9), max_size=3), number=numbers)
def test_settings_beside_a_matrix(matrix: Any, other: Any, k: Any, support: list[int], number: Any) -> None:
    good = np.random.default_rng(0).standard_normal((4, 6))
    W = torch.from_numpy(good)
    judge("probes.coherence.exact_recovery", lambda: coherence.exact_recovery(good, support), inf=True)
    judge("probes.coherence.measure support", lambda: coherence.measure(good, support=support), inf=True)
    judge("probes.coherence.measure settings", lambda: coherence.measure(good, neighbours=k, duplicate=number))
    judge("probes.recovery.empirical k", lambda: recovery.empirical(good, k=k, trials=2))
    judge("probes.recovery.empirical noise", lambda: recovery.empirical(good, k=1, trials=2, noise=number))
    judge("probes.recovery.empirical range", lambda: recovery.empirical(good, k=1, trials=2, amplitudes=number))
    judge("probes.recovery.empirical supports", lambda: recovery.empirical(good, k=1, trials=2, supports=matrix))
    judge("probes.recovery.largest", lambda: recovery.largest(good, "thresholding", target=number, trials=2, k_max=k))
    judge("toymodels.geometry.recognize tolerance", lambda: geometry.recognize(W, tolerance=number, represented=number))
    judge("toymodels.geometry.neurons share", lambda: geometry.neurons(W, share=number))
    judge("toymodels.geometry.matrices", lambda: geometry.matrices(matrix, other))
    judge("toymodels.geometry.film", lambda: geometry.film([1, 2], matrix))
    judge("toymodels.geometry.dimensionality_over_time", lambda: geometry.dimensionality_over_time([1], matrix))


@given(d=numbers, n=numbers, k=numbers, mu=numbers)
def test_bounds_of_any_numbers(d: Any, n: Any, k: Any, mu: Any) -> None:
    for entry, call in {
        "probes.bounds.welch": lambda: bounds.welch(d, n),
        "probes.bounds.k_from_coherence": lambda: bounds.k_from_coherence(mu, n),
        "probes.bounds.k_from_babel": lambda: bounds.k_from_babel([mu, mu], n),
        "probes.bounds.thresholding_holds": lambda: bounds.thresholding_holds(mu, k),
        "probes.bounds.spark": lambda: bounds.spark(mu),
        "probes.bounds.square_root_bottleneck": lambda: bounds.square_root_bottleneck(d),
        "probes.bounds.random_coherence": lambda: bounds.random_coherence(d, n, mu),
        "probes.bounds.random_features": lambda: bounds.random_features(d, k),
        "probes.bounds.max_features": lambda: bounds.max_features(d, k),
        "probes.bounds.n_supports": lambda: bounds.n_supports(n, k) > 0,
        "probes.bounds.thresholding_predictor": lambda: bounds.thresholding_predictor(d, n, k),
        "probes.bounds.k_predicted_thresholding": lambda: bounds.k_predicted_thresholding(d, n),
        "probes.bounds.k_predicted_omp": lambda: bounds.k_predicted_omp(d, n),
        "probes.recovery.wilson": lambda: recovery.wilson(n, k, mu),
        "probes.crowding.of_random_directions": lambda: crowding.of_random_directions(d, n),
    }.items():
        judge(entry, call, inf=True)


@given(
    name=st.sampled_from([*frames.NAMED, "nope"]),
    sizes=st.lists(st.integers(0, 40) | st.just(10**9), max_size=3),
    rest=texts,
)
def test_frames_of_any_size(name: str, sizes: list[int], rest: str) -> None:
    text = f"{name}:{'x'.join(map(str, sizes))}{rest}"
    judge("probes.dictionaries.of_frame", lambda: dictionaries.of_frame(text).matrix)
    judge("probes.dictionaries.open_dictionary", lambda: dictionaries.open_dictionary(f"frame:{text}").matrix)


def spread(found: Matching) -> Matching:
    """The matching without the infinite z that a null promises where its draws have no spread, and only there."""
    random, scattered = (
        null._replace(z=0.0) if null.sd <= NEGLIGIBLE else null for null in (found.random, found.scattered)
    )
    return found._replace(random=random, scattered=scattered)


@given(matrix=matrices(), other=matrices(), number=numbers)
def test_tables_of_counts_and_of_experts(matrix: Any, other: Any, number: Any) -> None:
    n = len(matrix) if np.ndim(matrix) else 0
    labels, types = [str(i % 2) for i in range(n)], [str(i % 3) for i in range(n)]
    for entry, call in {
        "probes.information.mutual_information": lambda: mutual_information(matrix),
        "probes.information.normalised": lambda: normalised(matrix),
        "probes.information.entropy": lambda: entropy(matrix),
        "probes.information.jensen_shannon": lambda: jensen_shannon(matrix),
        "probes.matching.match": lambda: spread(match(matrix, 3)),
        "probes.matching.profile_similarity": lambda: profile_similarity(matrix, other),
        "probes.matching.together": lambda: together(matrix, other, 4, 4),
        "probes.paths.diversity": lambda: diversity(matrix),
        "probes.specialization.association": lambda: association(matrix, labels, types, n_permutations=2),
        "probes.specialization.association experts": lambda: association([0, 1], "ab", "ab", n_experts=number),
        "probes.specialization.association draws": lambda: association([0, 1], "ab", "ab", n_permutations=number),
    }.items():
        judge(entry, call, nan=True, inf="specialization" in entry)


@given(density=numbers | matrices(), importance=numbers | matrices(), n=numbers, points=numbers)
def test_phases_of_any_numbers(density: Any, importance: Any, n: Any, points: Any) -> None:
    for entry, call in {
        "toymodels.phase.candidate_losses": lambda: phase.candidate_losses(density, importance),
        "toymodels.phase.candidate_losses n": lambda: phase.candidate_losses(0.5, 1.0, n),
        "toymodels.phase.candidate_solutions": lambda: phase.candidate_solutions(density),
        "toymodels.phase.theoretical_phase": lambda: phase.theoretical_phase(density, importance),
        "toymodels.phase.boundary": lambda: phase.boundary(importance),
        "toymodels.phase.boundary_curve": lambda: phase.boundary_curve(points=points),
        "toymodels.phase.grid": lambda: phase.grid(points, densities=(n, points), importances=(points, n)),
        "toymodels.phase.diagram": lambda: phase.diagram(2, n_features=n, seeds=points, steps=1),
        "toymodels.phase.exact_loss": lambda: phase.exact_loss(density, importance, importance, importance),
        "toymodels.ngram.KneserNey": lambda: KneserNey(density, vocab_size=5, order=2).loss(importance),
        "toymodels.ngram.KneserNey order": lambda: KneserNey(np.arange(9), vocab_size=9, order=n),
    }.items():
        judge(entry, call)
