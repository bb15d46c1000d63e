"""Geometry against its mathematics: known polytopes, invariances, and arrangements in which nothing may be found."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toymodels import geometry

GOLDEN = (1 + math.sqrt(5)) / 2


def polygon(k: int, turn: float = 0.3) -> torch.Tensor:
    angle = turn + 2 * math.pi * torch.arange(k, dtype=torch.float64) / k
    return torch.stack([angle.cos(), angle.sin()])


def simplex(k: int) -> torch.Tensor:
    centred = torch.eye(k, dtype=torch.float64) - 1 / k
    basis = torch.linalg.svd(centred)[0][:, : k - 1]
    points = basis.T @ centred
    return points / points.norm(dim=0)


def antiprism(height_squared: float) -> torch.Tensor:
    h, r = math.sqrt(height_squared), math.sqrt(1 - height_squared)
    low = [(r * math.cos(a), r * math.sin(a), -h) for a in np.arange(4) * math.pi / 2]
    high = [(r * math.cos(a), r * math.sin(a), h) for a in np.arange(4) * math.pi / 2 + math.pi / 4]
    return torch.tensor(low + high, dtype=torch.float64).T


def icosahedron() -> torch.Tensor:
    points = [np.roll((0, s, t * GOLDEN), i) for s, t in itertools.product((-1, 1), repeat=2) for i in range(3)]
    return torch.tensor(np.array(points).T) / math.sqrt(1 + GOLDEN**2)


def cube() -> torch.Tensor:
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64).T / math.sqrt(3)


def cross_polytope(d: int) -> torch.Tensor:
    eye = torch.eye(d, dtype=torch.float64)
    return torch.cat([eye, -eye], dim=1)


def direct_sum(*blocks: torch.Tensor) -> torch.Tensor:
    return torch.block_diag(*blocks)


def random_rotation(d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]


def hidden(W: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """The same geometry, rotated and with its features in another order."""
    order = torch.randperm(W.shape[1], generator=torch.Generator().manual_seed(seed))
    return random_rotation(W.shape[0], seed) @ W[:, order]


KNOWN = {
    "dedicated dimension": (torch.ones(1, 1, dtype=torch.float64), 1.0),
    "orthogonal": (torch.eye(4, dtype=torch.float64), 1.0),
    "antipodal digon": (cross_polytope(1), 1 / 2),
    "triangle": (polygon(3), 2 / 3),
    "tetrahedron": (simplex(4), 3 / 4),
    "5-cell": (simplex(5), 4 / 5),
    "simplex of 7": (simplex(7), 6 / 7),
    "square": (cross_polytope(2), 1 / 2),
    "pentagon": (polygon(5), 2 / 5),
    "hexagon": (polygon(6), 1 / 3),
    "octagon": (polygon(8), 1 / 4),
    "13-gon": (polygon(13), 2 / 13),
    "octahedron": (cross_polytope(3), 1 / 2),
    "16-cell": (cross_polytope(4), 1 / 2),
    "6-dimensional cross-polytope": (cross_polytope(6), 1 / 2),
    "square antiprism": (antiprism(1 / 3), 3 / 8),
    "cube": (cube(), 3 / 8),
    "icosahedron": (icosahedron(), 1 / 4),
}


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


def test_interference_graph_has_the_edges_of_the_pieces_and_no_others() -> None:
    W = direct_sum(2 * polygon(5), cross_polytope(1))
    edges = geometry.interference_graph(W)
    inside = {frozenset(pair) for pair in itertools.combinations(range(5), 2)} | {frozenset((5, 6))}
    assert {frozenset(pair) for pair in zip(edges["source"], edges["target"], strict=True)} == inside
    assert edges.groupby("component").size().tolist() == [10, 1]
    digon = edges[edges["source"] == 5].iloc[0]
    assert digon["cosine"] == pytest.approx(-1) and digon["dot"] == pytest.approx(-1)
    assert edges.loc[edges["source"] == 0, "dot"].abs().max() == pytest.approx(4 * abs(math.cos(4 * math.pi / 5)))


@pytest.mark.parametrize("name", KNOWN)
def test_rotated_and_reflected_runs_plot_alike(name: str) -> None:
    ideal, _ = KNOWN[name]
    once, twice = (geometry.orient(random_rotation(len(ideal), seed) @ ideal) for seed in (1, 2))
    torch.testing.assert_close(once, twice, atol=1e-7, rtol=0)
    # Two runs that gave the vertices to other features show the same set of points.
    other = geometry.orient(hidden(ideal, seed=5))
    nearest = torch.cdist(other.T, once.T).min(dim=1).values
    assert float(nearest.max()) < 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 10_000))
def test_canonical_rotation_is_orthogonal_and_depends_on_the_gram_alone(d: int, n: int, seed: int) -> None:
    W = torch.randn(d, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    Q = geometry.canonical_rotation(W)
    torch.testing.assert_close(Q @ Q.T, torch.eye(d, dtype=torch.float64), atol=1e-9, rtol=0)
    turned = geometry.orient(random_rotation(d, seed + 1) @ W)
    torch.testing.assert_close(turned, geometry.orient(W), atol=1e-6, rtol=0)


def test_a_film_is_turned_as_one() -> None:
    film = torch.stack([s * random_rotation(2, 4) @ polygon(5) for s in (0.1, 0.5, 1.0)])
    turned = geometry.orient(film)
    torch.testing.assert_close(geometry.gram(turned), geometry.gram(film), atol=1e-9, rtol=0)
    torch.testing.assert_close(turned[0] * 10, turned[2], atol=1e-9, rtol=0)


def test_neurons_are_counted_by_what_they_answer_to() -> None:
    W = torch.tensor(
        [[1.0, 0.0, 0.1, 0.0], [0.5, -1.0, 0.0, 0.5], [0.01, 0.0, 0.0, 0.02], [1.0, 1.0, 1.0, 1.0]],
        dtype=torch.float64,
    )
    table = geometry.neurons(W)
    assert table["kind"].tolist() == ["monosemantic", "polysemantic", "dead", "polysemantic"]
    assert table["n_features"].tolist() == [1, 3, 0, 4]
    assert table["top_feature"].tolist()[:2] == [0, 1]
    assert table["effective_features"][3] == pytest.approx(4)
    assert table["effective_features"][1] == pytest.approx(1.5**2 / (1 + 2 / 16))
    assert table["top_share"][1] == pytest.approx(1 / 1.5)


def staircase(levels: list[float], width: int) -> np.ndarray:
    return np.repeat(levels, width)


def test_planted_jumps_are_found_and_drift_is_not() -> None:
    import pandas as pd

    steps = np.arange(40)
    noise = np.random.default_rng(0).uniform(-0.005, 0.005, (3, 40))
    curves = {
        0: staircase([0, 0.5, 0.4, 0.9], 10),
        1: np.linspace(0, 0.9, 40),
        2: np.full(40, 0.5),
    }
    curves = {k: v + noise[k] for k, v in curves.items()}
    table = pd.concat(
        [pd.DataFrame({"step": steps, "feature": k, "dimensionality": v}) for k, v in curves.items()]
    ).sample(frac=1, random_state=0)
    found = geometry.jumps(table, height=0.08, slope=0.4)
    assert found["feature"].tolist() == [0, 0, 0]
    assert found["start"].tolist() == [9, 19, 29]
    assert found["stop"].tolist() == [10, 20, 30]
    np.testing.assert_allclose(found["change"], [0.5, -0.1, 0.5], atol=0.011)


def test_a_move_over_several_snapshots_is_one_jump() -> None:
    import pandas as pd

    values = [0, 0, 0.1, 0.3, 0.5, 0.5, 0.5]
    found = geometry.jumps(pd.DataFrame({"step": range(7), "feature": 0, "dimensionality": values}))
    assert len(found) == 1
    assert found.loc[0, ["start", "stop", "change"]].tolist() == [1, 4, 0.5]


def test_dimensionality_over_time_is_that_of_each_snapshot() -> None:
    film = torch.stack([torch.eye(2), torch.tensor([[1.0, -1.0], [0.0, 0.0]])])
    table = geometry.dimensionality_over_time([0, 10], film)
    assert table["dimensionality"].tolist() == [1, 1, 0.5, 0.5]
    assert table["step"].tolist() == [0, 0, 10, 10]
    with pytest.raises(ValueError, match="2 snapshots"):
        geometry.dimensionality_over_time([0], film)


def test_tables_hold_every_entry() -> None:
    W, b = torch.tensor([[1.0, -1.0, 0.5], [0.0, 2.0, 0.0]]), torch.tensor([0.1, 0.2, 0.3])
    table = geometry.matrices(W, b)
    square = table[table["matrix"] == "W^T W"].pivot_table(index="row", columns="column", values="value").to_numpy()
    np.testing.assert_allclose(square, [[1, -1, 0.5], [-1, 5, -0.5], [0.5, -0.5, 0.25]])
    np.testing.assert_allclose(table.loc[table["matrix"] == "b", "value"], [0.1, 0.2, 0.3], rtol=1e-6)
    weights = geometry.neuron_weights(W)
    assert weights.loc[(weights["neuron"] == 1) & (weights["feature"] == 1), "value"].tolist() == [2.0]


def test_a_film_of_a_plane_keeps_every_length_and_angle() -> None:
    snapshots = torch.stack([0.5 * polygon(5), polygon(5)])
    table = geometry.film([0, 7], snapshots)
    last = table[table["step"] == 7][["x", "y"]].to_numpy()
    np.testing.assert_allclose(last @ last.T, geometry.gram(polygon(5)).numpy(), atol=1e-9)
    assert (table["z"] == 0).all()
    with pytest.raises(ValueError, match="d_hidden=4"):
        geometry.film([0], torch.zeros(1, 4, 4))
