"""Figures of toy models draw what their tables say, in both grounds and every width, with labels and captions."""

from importlib import import_module

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from pandas import DataFrame

from app.figures import toys, toys_costs, toys_dynamics, toys_experts, toys_geometry, toys_phase, toys_polytopes
from app.figures.catalogue import Entry
from tests.toymodels.polytopes import antiprism, cross_polytope, cube, icosahedron
from toymodels import geometry, phase

MODULES = (
    "toys",
    "toys_costs",
    "toys_dynamics",
    "toys_experts",
    "toys_geometry",
    "toys_phase",
    "toys_polytopes",
    "toys_recovery",
)
ENTRIES: list[Entry] = [entry for name in MODULES for entry in import_module(f"app.figures.{name}").FIGURES]


def pentagon(scale: float = 1.1) -> torch.Tensor:
    angle = 2 * np.pi * torch.arange(5, dtype=torch.float64) / 5
    return scale * torch.stack([angle.cos(), angle.sin()])


def by_architecture() -> DataFrame:
    rows = [
        {"architecture": name, "n_context": size, "seed": seed, "fvu": value + 0.01 * seed}
        for name, value in {"dense": 0.57, "moe": 0.52, "cnp": 0.38, "cnp_moe": 0.25, "bayes_with": 0.0}.items()
        for size in (4, 16, 64)
        for seed in range(3)
    ]
    return DataFrame(rows)


@pytest.fixture(scope="module")
def tables() -> dict[str, DataFrame]:
    W, b = pentagon(), torch.zeros(5)
    film = torch.stack([s * W for s in (0.1, 0.5, 1.0)])
    panels = [("p = 1", torch.eye(2, 5).double()), ("p = 0.05", W)]
    densities = [1.0, 0.5, 0.2, 0.05]
    return {
        "toy_matrices": pd.concat([geometry.matrices(w, b).assign(panel=name, best_of=10) for name, w in panels]),
        "toy_features": pd.concat([geometry.features(w).assign(panel=name, best_of=10) for name, w in panels]),
        "toy_film": geometry.film([0, 10, 100], film).assign(best_of=10),
        "toy_dynamics": geometry.dimensionality_over_time([0, 10, 100], film).assign(best_of=10),
        "toy_losses": DataFrame({"step": [0, 10, 100], "loss": [np.nan, 0.1, 0.002]}),
        "toy_neurons": geometry.neuron_weights(W).assign(panel="p = 0.05", best_of=5),
        "toy_room": DataFrame(
            {
                "feature_probability": np.repeat(densities, 2),
                "best": [True, False] * 4,
                "dimensions_per_feature": np.repeat([1, 0.7, 0.5, 0.2], 2) + [0, 0.02] * 4,
                "n_features": 60,
                "d_hidden": 8,
            }
        ),
        "toy_dimensions": pd.concat([geometry.features(W).assign(feature_probability=p, best_of=2) for p in densities]),
        "toy_phase": phase.diagram(5, steps=30, seeds=2),
        "toy_phase_boundary": phase.boundary_curve(2),
        "toy_moe_runs": DataFrame(
            {
                "router": ["frozen"] * 4 + ["random"] * 4,
                "n_experts": [1, 1, 4, 4] * 2,
                "seed": [0, 1] * 4,
                "features_per_dimension": [3.4, 3.5, 2.6, 2.7, 3.4, 3.5, 3.0, 3.1],
                "n_features": 40,
                "d_hidden": 4,
            }
        ),
        "toy_process_runs": by_architecture(),
        "toy_adversarial_runs": DataFrame(
            {
                "feature_probability": [1.0, 0.3, 0.05],
                "best": True,
                "features_per_dimension": [1.0, 2.0, 5.0],
                "ratio": [1.0, 2.5, 13.0],
                "ratio_random": [0.5, 1.0, 2.0],
            }
        ),
        "toy_descent_runs": DataFrame(
            {
                "n_points": [20, 200, 2000],
                "seed": 0,
                "test_loss": [0.97, 1.08, 0.88],
                "train_loss": [0.0, 0.4, 0.8],
                "feature_dimensionality": [0.1, 0.1, 0.3],
                "point_dimensionality": [0.4, 0.1, 0.0],
            }
        ),
        "toy_recovery_runs": DataFrame(
            {
                "seed": range(3),
                "mean_max_cosine": [0.91, 0.9995, 0.97],
                "mean_max_cosine_start": [0.5, 0.52, 0.48],
                "mcc": [0.9, 0.999, 0.96],
                "f1": [0.8, 0.99, 0.9],
                "best": [False, True, False],
                "dead_latents": [1, 0, 0],
                "d_sae": 20,
                "n_represented": 10,
            }
        ),
        "toy_points": DataFrame(
            {"n_points": 3, "point": range(3), "x": [1, -0.5, -0.5], "y": [0, 0.87, -0.87], "gap": [120.0] * 3}
        ),
    }


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", ["screen", "column", "text", "wide"])
def test_every_figure_draws_everywhere_and_does_not_touch_its_tables(tables, entry: Entry, dark: bool, width) -> None:
    needed = {name: tables[name] for name in entry.needs}
    before = {name: frame.copy() for name, frame in needed.items()}
    figure = entry.draw(needed, dark=dark, width=width)
    assert isinstance(figure, go.Figure) and len(figure.data)
    assert figure.to_json() == entry.draw(needed, dark=dark, width=width).to_json()
    for name, frame in before.items():
        pd.testing.assert_frame_equal(needed[name], frame)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_every_figure_names_its_axes_and_says_what_was_measured(tables, entry: Entry) -> None:
    needed = {name: tables[name] for name in entry.needs}
    figure = entry.draw(needed)
    assert figure.layout.title.text
    caption = entry.caption(needed)
    assert len(caption) > 60 and "nan" not in caption
    assert figure.layout.meta["alt"] == caption
    if not any(trace.type == "scatter3d" for trace in figure.data):
        for kind in ("xaxis", "yaxis"):
            titles = [figure.layout[axis].title.text for axis in figure.layout if axis.startswith(kind)]
            assert any(titles), f"{entry.name} has no {kind} title"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_a_table_without_its_columns_gets_a_sentence(tables, entry: Entry) -> None:
    with pytest.raises(ValueError, match="lacks the columns"):
        entry.draw({name: tables[name].rename(columns=lambda c: f"x_{c}") for name in entry.needs})


def test_no_two_figures_share_a_name() -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)


def test_phase_colours_are_the_measured_phases_and_crosses_the_disagreements(tables) -> None:
    cells = tables["toy_phase"]
    figure = toys_phase.diagram(cells, tables["toy_phase_boundary"])
    heat = next(trace for trace in figure.data if trace.type == "heatmap")
    names = [c.removeprefix("loss: ") for c in cells.columns if c.startswith("loss: ")]
    for cell in cells.itertuples():
        assert names[int(heat.z[cell.row][cell.column])] == cell.measured
    crosses = [trace for trace in figure.data if trace.name == "differs from theory"]
    assert sum(len(trace.x) for trace in crosses) == int((~cells["agrees"]).sum())


def test_the_boundary_is_drawn_where_theory_puts_it(tables) -> None:
    figure = toys_phase.diagram(tables["toy_phase"], tables["toy_phase_boundary"])
    line = next(trace for trace in figure.data if trace.name == "boundary in theory")
    r = 10 ** np.asarray(line.x)
    np.testing.assert_allclose(10 ** np.asarray(line.y), np.where(r <= 1, 4 * r / (5 * r + 2), 4 / (5 + 2 * r)))


def test_the_film_has_a_frame_a_snapshot_and_ends_where_the_figure_stands(tables) -> None:
    figure = toys_polytopes.polytope(tables["toy_film"])
    assert [frame.name for frame in figure.frames] == ["0", "10", "100"]
    assert list(figure.frames[-1].data[1].x) == list(figure.data[1].x)
    assert len(figure.layout.sliders[0].steps) == 3
    assert not toys_polytopes.polytope(tables["toy_film"], width="column").frames
    solid = tables["toy_film"].assign(z=0.5)
    assert {trace.type for trace in toys_polytopes.polytope(solid).data} == {"scatter3d"}


@pytest.mark.parametrize(
    ("W", "edges"), [(cube(), 12), (cross_polytope(3), 12), (antiprism(1 / 3), 16), (icosahedron(), 30)]
)
def test_a_solid_is_drawn_with_its_own_edges_and_no_diagonals(W: torch.Tensor, edges: int) -> None:
    film = geometry.film([0, 10], torch.stack([0.1 * torch.ones_like(W), W]))
    figure = toys_polytopes.polytope(film)
    joined = np.stack([figure.data[2][axis] for axis in "xyz"], axis=1).reshape(-1, 3, 3)
    length = np.linalg.norm(joined[:, 0] - joined[:, 1], axis=1)
    nearest = torch.cdist(W.T, W.T).fill_diagonal_(torch.inf).min()
    assert len(length) == edges and np.isnan(joined[:, 2]).all()
    assert length.max() < 1.25 * nearest, "a diagonal of a square is 1.41 times its side"
    assert all(len(frame.data) == 3 for frame in figure.frames)


def test_captions_state_the_numbers(tables) -> None:
    assert "0.309" in toys_polytopes.polytope_caption(tables["toy_film"])
    assert "p = 1: 2 of 5 represented, 0 in superposition" in toys.stacks_caption(tables["toy_features"])
    assert "p = 0.05: 5 of 5 represented, 5 in superposition" in toys.stacks_caption(tables["toy_features"])
    assert "100% near 2/5" in toys_geometry.dimensionalities_caption(tables["toy_dimensions"])
    assert "D* = 1.000 at p = 1" in toys_geometry.staircase_caption(tables["toy_room"])
    assert "highest 1.080 at 200" in toys_costs.descent_caption(tables["toy_descent_runs"])
    assert "120-120° (regular: 120°)" in toys_costs.points_caption(tables["toy_points"])
    ratio = np.corrcoef([1, 2, 5], [1, 2.5, 13])[0, 1]
    assert f"{ratio:.3f}" in toys_costs.adversarial_caption(tables["toy_adversarial_runs"])
    assert "context and experts 0.260" in toys_experts.process_caption(tables["toy_process_runs"])
    assert "2.65 (E = 4)" in toys_experts.experts_caption(tables["toy_moe_runs"])
    assert "0.1 to 0.002" in toys_dynamics.caption(tables["toy_dynamics"], tables["toy_losses"])


def test_each_neurons_stack_adds_up_to_its_weights(tables) -> None:
    rows = tables["toy_neurons"]
    figure = toys_geometry.neurons(rows)
    drawn = sum(float(np.abs(trace.y).sum()) for trace in figure.data)
    shown = rows["value"].abs()
    assert drawn == pytest.approx(shown[shown > 0.05].sum())
