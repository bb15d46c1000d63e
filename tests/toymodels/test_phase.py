"""Phase diagrams against integration by SciPy, finite differences and the closed forms."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate

from data.progress import Cancelled
from toymodels import phase


def random_model(n: int, seed: int, stack: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    p = torch.rand(stack, n, generator=generator, dtype=torch.float64)
    importance = torch.rand(stack, n, generator=generator, dtype=torch.float64) * 3
    return draw(stack, n - 1, n), 0.5 * draw(stack, n), p, importance


def loss_at(x: np.ndarray, W: np.ndarray, b: np.ndarray, importance: np.ndarray) -> float:
    return float(importance @ (x - np.maximum(W.T @ (W @ x) + b, 0)) ** 2)


@pytest.mark.parametrize("seed", range(4))
def test_two_features_agree_with_adaptive_integration(seed: int) -> None:
    W, b, p, importance = random_model(2, seed, stack=1)
    w, bias, chance, weight = (t[0].numpy() for t in (W, b, p, importance))
    expected = 0.0
    for active in itertools.product((0, 1), repeat=2):
        mass = np.prod([c if on else 1 - c for c, on in zip(chance, active, strict=True)])

        def at(*free: float, active: tuple[int, ...] = active) -> float:
            values = iter(free)
            return loss_at(np.array([next(values) if on else 0.0 for on in active]), w, bias, weight)

        k = sum(active)
        expected += mass * (at() if k == 0 else integrate.nquad(at, [(0, 1)] * k, opts={"limit": 200})[0])
    assert float(phase.exact_loss(W, b, p, importance)[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("n", "seed"), [(1, 0), (2, 1), (3, 2), (3, 3), (4, 4)])
def test_exact_loss_agrees_with_a_large_sample(n: int, seed: int) -> None:
    W, b, p, importance = (
        random_model(n, seed)
        if n > 1
        else (torch.tensor([[[0.8]]]), torch.tensor([[-0.1]]), torch.tensor([[0.3]]), torch.tensor([[2.0]]))
    )
    W, b, p, importance = (t.double() for t in (W, b, p, importance))
    rng = np.random.default_rng(seed)
    for i in range(len(W)):
        x = rng.uniform(size=(400_000, n)) * (rng.uniform(size=(400_000, n)) < p[i].numpy())
        w = W[i].numpy()
        each = ((x - np.maximum(x @ w.T @ w + b[i].numpy(), 0)) ** 2) @ importance[i].numpy()
        error = each.std() / np.sqrt(len(each))
        assert abs(float(phase.exact_loss(W[i], b[i], p[i], importance[i])) - each.mean()) < 4.5 * error


@pytest.mark.parametrize("k", [1, 2, 3])
def test_moments_of_a_cut_cube_agree_with_a_fine_grid(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    b = 0.6 * torch.randn(8, generator=generator, dtype=torch.float64)
    a = [torch.randn(8, generator=generator, dtype=torch.float64) for _ in range(k)]
    cells = {1: 100_000, 2: 700, 3: 90}[k]
    axis = (np.arange(cells) + 0.5) / cells
    x = np.stack(np.meshgrid(*[axis] * k, indexing="ij"), axis=-1).reshape(-1, k)
    found = phase.moments(b, a)
    for i in range(8):
        inside = x[x @ np.array([float(v[i]) for v in a]) + float(b[i]) > 0]
        share = 3.0 / cells
        assert float(found.volume[i]) == pytest.approx(len(inside) / len(x), abs=share)
        for row in range(k):
            assert float(found.first[row][i]) == pytest.approx(inside[:, row].sum() / len(x), abs=share)
            for column in range(row + 1):
                product = (inside[:, row] * inside[:, column]).sum() / len(x)
                assert float(found.second[row][column][i]) == pytest.approx(product, abs=share)


def test_moments_of_exact_cases() -> None:
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    whole = phase.moments(one, [zero, zero, zero])
    assert [float(whole.volume), float(whole.first[2]), float(whole.second[1][0]), float(whole.second[1][1])] == (
        pytest.approx([1, 1 / 2, 1 / 4, 1 / 3], abs=1e-14)
    )
    assert float(phase.moments(-one, [zero, zero]).volume) == 0
    # The tetrahedron x + y + z < 1 has volume 1/6 and E over it of x is 1/24, of x^2 1/60, of x y 1/120.
    corner = phase.moments(one, [-one, -one, -one])
    measured = [corner.volume, corner.first[0], corner.first[2], corner.second[2][2], corner.second[2][0]]
    assert [float(m) for m in measured] == pytest.approx([1 / 6, 1 / 24, 1 / 24, 1 / 60, 1 / 120], abs=1e-14)


@pytest.mark.parametrize("n", [2, 3])
def test_gradients_are_those_of_the_loss(n: int) -> None:
    W, b, p, importance = random_model(n, 10 + n)
    _, by_W, by_b = phase.loss_and_gradients(W, b, p, importance)
    step = 1e-6
    for values, slopes in ((W, by_W), (b, by_b)):
        for place in itertools.product(*[range(size) for size in values.shape[1:]]):
            moved = torch.zeros_like(values)
            moved[(slice(None), *place)] = step
            at = [(W + s * moved, b) if values is W else (W, b + s * moved) for s in (1, -1)]
            up, down = (phase.exact_loss(*model, p, importance) for model in at)
            torch.testing.assert_close(slopes[(slice(None), *place)], (up - down) / (2 * step), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("s", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("r", [0.1, 1.0, 7.0])
def test_each_closed_form_is_the_exact_loss_of_its_solution(n: int, s: float, r: float) -> None:
    importance = torch.ones(n, dtype=torch.float64)
    importance[-1] = r
    p = torch.full((n,), s, dtype=torch.float64)
    losses = phase.candidate_losses(s, r, n)
    for name, variants in phase.candidate_solutions(s, n).items():
        for W, b in variants:
            assert float(phase.exact_loss(W, b, p, importance)) == pytest.approx(float(losses[name]), rel=1e-12)


@pytest.mark.parametrize("name", phase.PHASES[3])
def test_each_closed_form_of_three_features_is_the_mean_of_a_sample(name: str) -> None:
    s, r = 0.4, 1.7
    rng = np.random.default_rng(7)
    x = rng.uniform(size=(1_000_000, 3)) * (rng.uniform(size=(1_000_000, 3)) < s)
    for W, b in phase.candidate_solutions(s, 3)[name]:
        w = W.numpy()
        each = ((x - np.maximum(x @ w.T @ w + b.numpy(), 0)) ** 2) @ np.array([1, 1, r])
        expected = float(phase.candidate_losses(s, r, 3)[name])
        assert abs(each.mean() - expected) < 4.5 * each.std() / np.sqrt(len(each))


@pytest.mark.parametrize("n", [2, 3])
def test_on_the_boundary_the_two_best_candidates_cost_the_same(n: int) -> None:
    r = np.geomspace(0.1, 10, 41)
    s = phase.boundary(r, n)
    ranked = np.sort(np.stack(list(phase.candidate_losses(s, r, n).values())), axis=0)
    np.testing.assert_allclose(ranked[0], ranked[1], rtol=1e-12)
    below, above = (phase.theoretical_phase(s * factor, r, n) for factor in (0.99, 1.01))
    assert all("superposition" in name for name in below)
    assert not any("superposition" in name for name in above)


def test_the_boundary_of_two_features_has_its_published_values() -> None:
    assert phase.boundary(1.0) == pytest.approx(4 / 7)
    assert phase.boundary(0.1) == pytest.approx(0.4 / 2.5)
    assert phase.boundary(10.0) == pytest.approx(4 / 25)
    np.testing.assert_allclose(phase.boundary([0.2, 0.5]), phase.boundary([5.0, 2.0]))
    curve = phase.boundary_curve(3)
    assert set(curve["curve"]) == {"superposition", "exchange"}
    assert curve.loc[curve["curve"] == "superposition", "density"].max() == pytest.approx(4 / 7)


def test_a_small_diagram_of_two_features_agrees_with_theory() -> None:
    table = phase.diagram(12)
    assert len(table) == 144
    share = phase.agreement(table).iloc[0]
    assert share["agreeing_off_boundary"] == 1.0
    assert share["agreeing"] >= 0.93
    # No fit may lose to the closed form: theory is a feasible solution, so training must reach it or better.
    assert (table["loss"] <= table["loss_theory"] * 1.001).all()
    assert 0.5 < share["single_fits_agreeing"] < 0.95
    assert table["theory"].nunique() == 3


def test_a_small_diagram_of_three_features_agrees_with_theory() -> None:
    table = phase.diagram(5, n_features=3, densities=(0.05, 1.0))
    off = table[table["off_boundary"]]
    assert off["agrees"].all()
    assert table["theory"].nunique() == 4
    assert (table["loss"] <= table["loss_theory"] * 1.02).mean() > 0.95


def test_random_weights_do_not_agree_with_theory() -> None:
    table = phase.diagram(8, steps=1, seeds=1)
    assert phase.agreement(table)["agreeing"].iloc[0] < 0.75


def test_cells_off_the_boundary_have_neighbours_of_one_phase() -> None:
    table = phase.diagram(8, steps=1, seeds=1)
    theory = table.pivot_table(index="row", columns="column", values="theory", aggfunc="first").to_numpy()
    for cell in table.itertuples():
        near = theory[max(cell.row - 1, 0) : cell.row + 2, max(cell.column - 1, 0) : cell.column + 2]
        assert cell.off_boundary == (len(set(near.ravel())) == 1)


def test_the_same_seed_gives_the_same_diagram() -> None:
    first, again, other = (phase.diagram(3, steps=5, seeds=2, seed=s)["loss"] for s in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


def test_progress_rises_to_the_end_and_can_stop_the_work() -> None:
    seen = []
    phase.diagram(3, steps=25, seeds=2, progress=lambda done, total, note="": seen.append(done / total))
    assert seen == sorted(seen) and seen[-1] == 1

    def stop(done: float, total: float, note: str = "") -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        phase.diagram(3, steps=25, seeds=2, progress=stop)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"resolution": 1}, "resolution=1"),
        ({"n_features": 4}, "n_features=4"),
        ({"seeds": 0}, "seeds=0"),
        ({"densities": (0.0, 1.0)}, "densities"),
        ({"densities": (0.1, 1.5)}, "densities"),
        ({"importances": (2.0, 1.0)}, "importances"),
    ],
)
def test_bad_settings_get_a_sentence(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        phase.diagram(**{"resolution": 4, **settings})


@pytest.mark.parametrize("function", [phase.candidate_losses, phase.theoretical_phase])
def test_densities_and_importances_have_their_domain(function: Callable[[float, float], object]) -> None:
    function(1.0, 7.0)
    for density, importance in ((1.01, 1.0), (-0.01, 1.0), (0.5, -0.01), (0.5, math.inf)):
        with pytest.raises(ValueError, match="is a number in 0"):
            function(density, importance)


def test_too_many_features_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="5 features"):
        phase.exact_loss(torch.zeros(4, 5), torch.zeros(5), torch.ones(5), torch.ones(5))


@pytest.mark.parametrize("place", range(1, 4))
@pytest.mark.parametrize("shape", [(3,), (3, 1), (4, 2), ()])
def test_shapes_that_do_not_fit_the_loss_get_a_sentence(place: int, shape: tuple[int, ...]) -> None:
    given = [torch.ones(3, 1, 2), torch.ones(3, 2), torch.ones(3, 2), torch.ones(3, 2)]
    given[place] = torch.ones(shape)
    if shape == (3, 1):  # one number for both features
        assert phase.exact_loss(*given).shape == (3,)
        return
    with pytest.raises(ValueError, match=r"2 features|do not fit"):
        phase.exact_loss(*given)


def test_leading_axes_of_the_loss_broadcast() -> None:
    """A stack of models under one bias, and one model under a stack of densities, is the loss of each by itself."""
    W, b, p, importance = random_model(3, 5, stack=2)
    p = p.unsqueeze(1)  # densities by models
    together = phase.exact_loss(W, b[0], p, importance[0])
    assert together.shape == (2, 2)
    for i, j in itertools.product(range(2), range(2)):
        alone = phase.exact_loss(W[j], b[0], p[i, 0], importance[0])
        assert float(together[i, j]) == pytest.approx(float(alone), rel=1e-12)


def test_a_loss_beyond_the_type_gets_a_sentence() -> None:
    b = torch.full((2,), 1e30)
    with pytest.raises(ValueError, match="scale W, b"):
        phase.exact_loss(torch.ones(1, 2), b, torch.ones(2), torch.ones(2))
