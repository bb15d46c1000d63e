"""Dimensionality and the naming of polytopes, against known polytopes, invariances and noise that has no name."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toymodels.polytopes import (
    KNOWN,
    antiprism,
    cross_polytope,
    direct_sum,
    hidden,
    polygon,
    simplex,
)
from toymodels import geometry


@pytest.mark.parametrize("name", KNOWN)
def test_each_known_polytope_has_its_name_and_its_fraction_of_a_dimension(name: str) -> None:
    ideal, fraction = KNOWN[name]
    W = hidden(1.135 * ideal, seed=len(name))
    found = geometry.recognize(W)
    assert found.name == name
    assert found.recognized
    assert found.deviation < 1e-9
    assert found.norm_spread < 1e-9
    torch.testing.assert_close(
        geometry.feature_dimensionality(W), torch.full((W.shape[1],), fraction, dtype=torch.float64)
    )
    torch.testing.assert_close(
        geometry.feature_dimensionality(W).sum(), torch.tensor(float(W.shape[0]), dtype=torch.float64)
    )


@pytest.mark.parametrize("height_squared", [0.27, 0.3141, 1 / 3, 0.36])
def test_square_antiprisms_of_every_height_are_one_family(height_squared: float) -> None:
    found = geometry.recognize(hidden(antiprism(height_squared)))
    assert found.name == "square antiprism"
    assert found.deviation < 1e-6


def test_direct_sums_are_taken_apart() -> None:
    W = hidden(direct_sum(0.7 * polygon(5), cross_polytope(1), cross_polytope(1), simplex(4), torch.eye(2).double()))
    found = geometry.recognize(W)
    assert found.name == "pentagon + tetrahedron + 2 x antipodal digon + 2 x dedicated dimension"
    assert found.deviation < 1e-9
    table = geometry.parts(found)
    assert table["n_features"].tolist() == [5, 4, 2, 2, 1, 1]
    assert table["dimension"].sum() == W.shape[0]
    # Within a piece, D_i = dimension / features: the pieces do not see each other.
    by_part = [geometry.feature_dimensionality(W)[list(part.features)] for part in found.parts]
    for expected, measured in zip(table["dimensions_per_feature"], by_part, strict=True):
        torch.testing.assert_close(measured, torch.full_like(measured, expected))


def test_the_order_of_a_part_is_the_order_of_the_polygon() -> None:
    shuffled = [3, 0, 4, 1, 2]
    W = polygon(5)[:, shuffled]
    vertices = geometry.recognize(W).parts[0].features
    around = [shuffled[v] for v in vertices]
    steps = {(b - a) % 5 for a, b in itertools.pairwise([*around, around[0]])}
    assert steps in ({1}, {4})


def test_collapsed_features_are_not_called_a_digon() -> None:
    W = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert geometry.recognize(W).name == "collapsed group + dedicated dimension"


def test_deviation_is_the_largest_change_of_a_cosine() -> None:
    W = polygon(5).clone()
    turn = 0.02
    rotation = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    W[:, 0] = torch.tensor(rotation, dtype=torch.float64) @ W[:, 0]
    expected = max(
        abs(math.cos(2 * math.pi * k / 5 + s * turn) - math.cos(2 * math.pi * k / 5)) for k in (1, 2) for s in (1, -1)
    )
    found = geometry.recognize(W)
    assert found.name == "pentagon"
    assert found.deviation == pytest.approx(expected, rel=1e-9)
    assert geometry.recognize(W, tolerance=0.9 * expected).name == "irregular"


def test_noise_is_not_named() -> None:
    generator = torch.Generator().manual_seed(0)
    names = [geometry.recognize(torch.randn(3, 8, generator=generator)).name for _ in range(200)]
    assert set(names) == {"irregular"}
    nearest = geometry.recognize(torch.randn(3, 8, generator=generator)).parts[0]
    assert nearest.nearest != "irregular"
    assert nearest.deviation > 0.1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 12),
    st.integers(0, 10_000),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([1e-18, 1.0, 1e15]),
)
def test_dimensionality_is_capacity_and_is_bounded_by_the_rank(
    d: int, n: int, seed: int, dtype: torch.dtype, scale: float
) -> None:
    W = torch.randn(d, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    oracle = np.empty(n)
    columns = W.numpy()
    for i in range(n):
        unit = columns[:, i] / np.linalg.norm(columns[:, i])
        oracle[i] = np.dot(columns[:, i], columns[:, i]) / sum(np.dot(unit, columns[:, j]) ** 2 for j in range(n))
    W = (scale * W).to(dtype)
    D = geometry.feature_dimensionality(W)
    assert D.dtype == dtype
    np.testing.assert_allclose(D.numpy(), oracle, rtol=2e-4 if dtype == torch.float32 else 1e-9)
    # Capacity written out from its own definition, C_i = (W_i . W_i)^2 / sum_j (W_i . W_j)^2.
    products = columns.T @ columns
    np.testing.assert_allclose(
        geometry.capacity(W).numpy(),
        np.diag(products) ** 2 / (products**2).sum(1),
        rtol=2e-4 if dtype == torch.float32 else 1e-9,
    )
    assert (D > 0).all() and (D <= 1 + 1e-5).all()
    assert float(D.sum()) <= min(d, n) + 1e-4


def test_superposition_is_the_interference_that_dimensionality_counts() -> None:
    W = torch.randn(4, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    squared = geometry.feature_norms(W) ** 2
    torch.testing.assert_close(
        geometry.feature_dimensionality(W), squared / (squared + geometry.superposition(W)), rtol=1e-10, atol=0
    )


def test_stacks_are_measured_matrix_by_matrix() -> None:
    W = torch.randn(2, 3, 4, 7, generator=torch.Generator().manual_seed(1))
    D = geometry.feature_dimensionality(W)
    assert D.shape == (2, 3, 7)
    torch.testing.assert_close(D[1, 2], geometry.feature_dimensionality(W[1, 2]))


def test_dimensions_per_feature_of_exact_cases() -> None:
    assert geometry.dimensions_per_feature(torch.eye(7)) == 1.0
    assert geometry.dimensions_per_feature(cross_polytope(3)) == pytest.approx(0.5, abs=1e-15)
    assert geometry.dimensions_per_feature(polygon(5)) == pytest.approx(0.4, abs=1e-15)
    assert geometry.dimensions_per_feature(torch.tensor([[2.0]])) == 0.25


def test_nothing_learned_is_zero_or_a_sentence() -> None:
    zero = torch.zeros(2, 3)
    assert geometry.feature_dimensionality(zero).tolist() == [0, 0, 0]
    assert geometry.capacity(zero).tolist() == [0, 0, 0]
    assert geometry.superposition(zero).tolist() == [0, 0, 0]
    assert geometry.recognize(zero).name == "nothing"
    assert geometry.recognize(zero).unrepresented == (0, 1, 2)
    assert geometry.interference_graph(zero).empty
    assert geometry.neurons(zero)["kind"].tolist() == ["dead", "dead"]
    assert torch.equal(geometry.canonical_rotation(zero), torch.eye(2))
    with pytest.raises(ValueError, match="all zeros"):
        geometry.dimensions_per_feature(zero)


def test_one_zero_feature_beside_a_whole_one() -> None:
    W = torch.tensor([[1.0, 0.0]])
    assert geometry.feature_dimensionality(W).tolist() == [1, 0]
    found = geometry.recognize(W)
    assert (found.name, found.unrepresented) == ("dedicated dimension", (1,))


@pytest.mark.parametrize(
    ("W", "sentence"),
    [
        (torch.tensor([[1.0, math.nan]]), "NaN or infinite"),
        (torch.tensor([[1.0, math.inf]]), "NaN or infinite"),
        (torch.zeros(3), "shape"),
        (torch.zeros(2, 0), "no entries"),
        (torch.zeros(2, 2, dtype=torch.int64), "floating-point"),
        (np.eye(2), "torch tensor"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [geometry.feature_dimensionality, geometry.dimensions_per_feature, geometry.recognize, geometry.neurons],
)
def test_bad_weights_get_a_sentence(function, W, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        function(W)


@pytest.mark.parametrize("function", [geometry.recognize, geometry.neurons, geometry.interference_graph])
def test_weights_whose_squares_overflow_get_a_sentence(function) -> None:
    with pytest.raises(ValueError, match="scale W down"):
        function(torch.full((2, 2), 1e300, dtype=torch.float64))


@pytest.mark.parametrize("tolerance", [0, -1, 0.5, math.nan])
def test_a_senseless_tolerance_gets_a_sentence(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance"):
        geometry.recognize(torch.eye(2), tolerance=tolerance)


def test_features_at_right_angles_do_not_interfere_however_little_is_tolerated() -> None:
    graph = geometry.interference_graph(torch.eye(4)[:, [0, 1, 2, 2]], tolerance=0.0)
    assert graph[["source", "target", "component"]].to_numpy().tolist() == [[2, 3, 2]]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_what_is_represented_is_a_share_of_the_longest_column(scale: float) -> None:
    W = scale * torch.tensor([[1.0, -1.0, 0.0, 0.05], [0.0, 0.0, 0.2, 0.0]])
    assert geometry.recognize(W).unrepresented == (3,)
    assert geometry.recognize(W, represented=0.3).unrepresented == (2, 3)
