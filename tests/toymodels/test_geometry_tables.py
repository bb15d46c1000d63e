"""What figures of geometry read: edges, canonical rotations, neurons and jumps, planted and with nothing planted."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toymodels.polytopes import (
    KNOWN,
    cross_polytope,
    direct_sum,
    hidden,
    polygon,
    random_rotation,
)
from toymodels import geometry


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
