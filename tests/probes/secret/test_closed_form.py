"""Students in closed form against formulas, planted structure and an independent library."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import adjusted_rand_score

from probes.secret.closed_form import Shape, fit_experts, fit_mixture, reduced_rank
from probes.secret.codes import fit_codes, thresholding
from probes.secret.pairs import Pairs, under
from probes.secret.score import gap, missed, ratio


def sparse_inputs(n: int, d: int, n_atoms: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(d, n_atoms, generator=g), dim=0)
    support = torch.rand(n, n_atoms, generator=g).topk(k, dim=1).indices
    size = 0.5 + torch.rand(n, k, generator=g)
    return torch.einsum("nk,nkd->nd", size, atoms.T[support]), atoms


def test_a_linear_teacher_gives_the_reduced_rank_optimum() -> None:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(4000, 24, generator=g) @ torch.randn(24, 24, generator=g)
    pairs = Pairs.of(x, x @ torch.randn(24, 16, generator=g) + 3)
    for rank in (2, 5, 9):
        found = missed(reduced_rank(pairs, rank, ridge=0.0), pairs, pairs.train).fvu
        y = pairs.y[pairs.train] - pairs.y[pairs.train].mean(0)
        # the outputs are exactly linear in x: what is left are their own trailing singular values
        s = np.linalg.svd(y.astype(np.float64), compute_uv=False)
        assert found == pytest.approx(float((s[rank:] ** 2).sum() / (s**2).sum()), rel=1e-3, abs=1e-6)


def test_a_full_rank_cell_is_ridge_regression() -> None:
    g = torch.Generator().manual_seed(2)
    x = torch.randn(900, 10, generator=g) + 2
    pairs = Pairs.of(x, torch.tanh(x) @ torch.randn(10, 6, generator=g))
    variance = float(pairs.x[pairs.train].var(axis=0).mean())
    ours = fit_mixture(pairs, Shape(n_experts=1, rank=6, ridge=40.0, prior=False))
    other = Ridge(alpha=40.0 * variance).fit(pairs.x[pairs.train], pairs.y[pairs.train])
    np.testing.assert_allclose(
        ours(torch.from_numpy(pairs.x[pairs.test])).numpy(), other.predict(pairs.x[pairs.test]), atol=2e-3
    )


def planted(n: int = 6000) -> tuple[Pairs, np.ndarray]:
    g = torch.Generator().manual_seed(3)
    centres = 6 * torch.randn(8, 20, generator=g)
    region = torch.randint(0, 8, (n,), generator=g)
    x = centres[region] + torch.randn(n, 20, generator=g)
    maps, offsets = torch.randn(8, 20, 12, generator=g), torch.randn(8, 12, generator=g)
    y = torch.einsum("ni,nij->nj", x, maps[region]) + offsets[region]
    return Pairs.of(x, y), region.numpy()


def test_a_planted_mixture_is_found_and_matched() -> None:
    pairs, region = planted()
    student = fit_mixture(pairs, Shape(n_experts=8, rank=12, ridge=0.01))
    routed = student.route(torch.from_numpy(pairs.x))[:, 0].numpy()
    assert adjusted_rand_score(region, routed) > 0.9
    assert missed(student, pairs, pairs.test).fvu < 0.02
    dense = missed(reduced_rank(pairs, 12), pairs, pairs.test)
    worse, low, high = ratio(dense, missed(student, pairs, pairs.test))
    assert low < worse < high and low > 5


def test_experts_of_a_mixture_of_two_nearest_cells_cost_twice_and_sum_to_the_answer() -> None:
    pairs, _ = planted(2000)
    student = fit_mixture(pairs, Shape(n_experts=8, rank=3, k=2, shared=2))
    x = torch.from_numpy(pairs.x[pairs.test[:50]])
    index, weight = student.choose(x)
    slow = torch.stack([
        row @ student.shared_read @ student.shared_write
        + sum(w * (row @ student.read[e] @ student.write[e] + student.bias[e]) for e, w in zip(i, p, strict=True))
        for row, i, p in zip(x, index, weight, strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(student(x), slow, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(weight.sum(dim=1), torch.ones(50))
    distance = torch.cdist(x, student.centroids)
    assert torch.equal(index[:, 0], distance.argmin(dim=1))
    assert student.cost.expert == 2 * 3 * (20 + 12) and student.cost.shared == 2 * (20 + 12)
    assert student.cost.stored == student.cost.shared + 8 * (3 * 32 + 12) + student.cost.router


def test_prior_keeps_cells_of_few_rows_from_harm() -> None:
    g = torch.Generator().manual_seed(4)
    x = torch.randn(3000, 30, generator=g)
    pairs = Pairs.of(x, x @ torch.randn(30, 30, generator=g))
    shrunk = {p: missed(fit_mixture(pairs, Shape(n_experts=64, rank=30, prior=p)), pairs, pairs.test).fvu
              for p in (True, False)}  # fmt: skip
    assert shrunk[True] < 0.01 < 0.2 < shrunk[False]


def test_sparse_inputs_are_matched_by_few_neurons_and_gaussian_ones_are_not() -> None:
    x, atoms = sparse_inputs(20_000, 128, 1024, 4)
    teacher = torch.randn(128, 128, generator=torch.Generator().manual_seed(5)) / 128**0.5
    real = Pairs.of(x, x @ teacher)
    gaussian = under("gaussian", real, lambda rows: rows @ teacher)
    encode = thresholding(atoms, 4)
    found = {name: missed(fit_codes(p, encode, 4), p, p.test).fvu for name, p in (("s", real), ("g", gaussian))}
    dense = missed(reduced_rank(real, 4), real, real.test).fvu
    assert dense >= 0.85
    assert found["s"] <= 0.06
    assert found["g"] >= 0.70


def test_a_gap_of_equal_conditions_holds_zero() -> None:
    pairs, _ = planted(3000)
    runs = [(missed(reduced_rank(pairs, 2), pairs, pairs.test), missed(reduced_rank(pairs, 6), pairs, pairs.test))]
    value, low, high = gap(runs, runs)
    assert value == 0 and low < 0 < high


def test_shapes_that_do_not_fit_are_told() -> None:
    pairs, _ = planted(500)
    cells = torch.zeros(1, 20)
    assert fit_experts(pairs, cells, Shape(n_experts=1, rank=0)).bias.shape == (1, 12)
    for wrong in ({"n_experts": 1000}, {"rank": 13}, {"k": 9, "n_experts": 8}, {"shared": -1}):
        with pytest.raises(ValueError, match=r"is not in|exceeds"):
            fit_mixture(pairs, Shape(**({"n_experts": 4, "rank": 2} | wrong)))


def test_a_table_of_cells_holds_their_means() -> None:
    pairs, _ = planted(1_000)
    table = fit_mixture(pairs, Shape(n_experts=12, rank=0, prior=False))
    x, y = (torch.from_numpy(pairs.x), torch.from_numpy(pairs.y))
    cell = torch.cdist(x, table.centroids).argmin(dim=1)
    for c in cell[pairs.train].unique():
        torch.testing.assert_close(table.bias[c], y[pairs.train][cell[pairs.train] == c].mean(dim=0))
    torch.testing.assert_close(table(x), table.bias[cell])
    far = torch.cat([table.centroids, torch.full((1, 20), 1e4)])  # a cell that no row chooses
    torch.testing.assert_close(
        fit_experts(pairs, far, Shape(n_experts=13, rank=0, prior=False)).bias[12], y[pairs.train].mean(dim=0)
    )


@pytest.mark.parametrize("shared", [0, 2])
def test_no_cell_is_off_on_average(shared: int) -> None:
    """An intercept that is not penalised: residuals of the rows it was fitted on sum to zero in every cell."""
    pairs, _ = planted(1_000)
    student = fit_mixture(pairs, Shape(n_experts=6, rank=3, shared=shared, ridge=1.0))
    x, y = (torch.from_numpy(rows[pairs.train]) for rows in (pairs.x, pairs.y))
    cell, off = student.route(x)[:, 0], student(x) - y
    for e in range(6):
        torch.testing.assert_close(off[cell == e].mean(dim=0), torch.zeros(12), atol=1e-3, rtol=0)


def test_a_table_of_mixed_cells_holds_their_weighted_means() -> None:
    pairs, _ = planted(600)
    table = fit_mixture(pairs, Shape(n_experts=6, rank=0, k=2, prior=False))
    x, y = (torch.from_numpy(rows[pairs.train]) for rows in (pairs.x, pairs.y))
    index, weight = table.choose(x)
    for e in range(6):
        chosen = index == e
        share = (weight * chosen).sum(dim=1, keepdim=True)
        torch.testing.assert_close(table.bias[e], (share * y).sum(dim=0) / share.sum(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_temperature_is_the_mean_fall_of_the_score_over_the_chosen_cells(k: int) -> None:
    """x . c - |c|^2 / 2 falls by half the rise of the squared distance; half of that fall is the temperature."""
    pairs, _ = planted(400)
    centroids = torch.from_numpy(pairs.x[:8]).clone()
    found = fit_experts(pairs, centroids, Shape(n_experts=8, rank=1, k=k)).temperature
    far = torch.cdist(torch.from_numpy(pairs.x[pairs.train]).double(), centroids.double()).square().sort(dim=1).values
    assert found == pytest.approx(float((far[:, k - 1] - far[:, 0]).mean()) / 4 if k > 1 else 1.0, rel=1e-3)


def test_what_is_missed_has_no_scale() -> None:
    """A student half way between y and its mean misses a quarter of the spread, however small y is, far from zero."""
    pairs, _ = planted(500)
    for size in (1.0, 1e-4):
        y = torch.from_numpy(pairs.y + 1_000) * size
        mean = y[torch.from_numpy(pairs.test)].mean(dim=0)
        found = missed(lambda x, mean=mean: (x + mean) / 2, Pairs.of(y, y), pairs.test)
        assert found.fvu == pytest.approx(0.25, rel=1e-3) and len(found.error) == 10
