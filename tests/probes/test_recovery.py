"""Recovery: never wrong where it is guaranteed, sharp on the tight family, and the same as scikit-learn and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from sklearn.linear_model import orthogonal_mp

from probes import coherence, frames, recovery, router_reading, solvers
from probes.planted import SupportSource, adversarial_signs


def planted(V, k, n, seed, noise=0.0):
    g = torch.Generator().manual_seed(seed)
    active = SupportSource(None, V.shape[1]).draw(k, n, g)
    values = 1 + torch.rand(n, k, generator=g, dtype=torch.float64)
    codes = torch.zeros(V.shape[1], n, dtype=torch.float64).scatter_(0, active.t(), values.t())
    return codes, V @ codes + noise * torch.randn(len(V), n, generator=g, dtype=torch.float64)


@pytest.mark.parametrize(("V", "k"), [
    (frames.dirac_hadamard(64), 4),
    (frames.dirac_hadamard(256), 8),
    (frames.random_directions(256, 300, seed=1), 2),
    (frames.simplex(15), 7),
])  # fmt: skip
@pytest.mark.parametrize("signs", ["random", "adversarial"])
def test_inside_the_bound_nothing_fails(V, k, signs) -> None:
    assert coherence.measure(V).k_guaranteed >= k
    for method, trials in (("thresholding", 5_000), ("omp", 2_000)):
        table = recovery.empirical(V, k=k, methods=method, signs=signs, trials=trials)
        assert table["successes"].tolist() == [trials]


@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_the_bound_is_sharp(k) -> None:
    for margin, rate in ((0.999, 1.0), (1.001, 0.0)):
        V = frames.tight(k, margin)
        assert coherence.measure(V).mu * (2 * k - 1) == pytest.approx(margin, abs=1e-6)
        assert coherence.measure(V).k_guaranteed == (k if margin < 1 else k - 1)
        table = recovery.empirical(
            V, k=k, supports=[list(range(k))], signs="adversarial", methods=("thresholding", "omp"), trials=50
        )
        assert table["rate"].tolist() == [rate, rate]


def test_a_simplex_gives_one_vector_two_codes() -> None:
    k = 4
    V = frames.simplex(2 * k - 1)
    assert coherence.measure(V).mu * (2 * k - 1) == pytest.approx(1)
    assert torch.allclose(V[:, :k].sum(1), -V[:, k:].sum(1), atol=1e-12)


def test_adversarial_signs_raise_the_rival_as_high_as_any_signs_can() -> None:
    V = frames.random_directions(8, 20, seed=2)
    supports = SupportSource(None, 20).draw(3, 30, torch.Generator().manual_seed(0))
    chosen = adversarial_signs(V, supports)
    every = torch.tensor([[a, b, c] for a in (1, -1) for b in (1, -1) for c in (1, -1)], dtype=torch.float64)
    for support, signs in zip(supports, chosen, strict=True):
        rest = [j for j in range(20) if j not in support]
        best = (V[:, rest].t() @ V[:, support] @ every.t()).abs().max()
        assert float((V[:, rest].t() @ V[:, support] @ signs.double()).abs().max()) == pytest.approx(float(best))


def test_omp_agrees_with_scikit_learn() -> None:
    V = frames.random_directions(40, 120, seed=0)
    for k, noise in ((3, 0.0), (8, 0.05), (15, 0.2)):
        _, X = planted(V, k, 40, seed=k, noise=noise)
        ours = solvers.omp(V, X, k).sort(1).values.numpy()
        theirs = orthogonal_mp(V.numpy(), X.numpy(), n_nonzero_coefs=k)
        for mine, column in zip(ours, theirs.T, strict=True):
            assert mine.tolist() == np.flatnonzero(column).tolist()


def test_basis_pursuit_agrees_with_linear_programming() -> None:
    V = frames.random_directions(20, 50, seed=0)
    _, X = planted(V, 5, 8, seed=1)
    codes = solvers.lasso_codes(V, X, steps=3_000, tolerance=1e-9)
    both = np.hstack([V.numpy(), -V.numpy()])
    for x, mine in zip(X.t().numpy(), codes.t(), strict=True):
        least = linprog(np.ones(100), A_eq=both, b_eq=x, bounds=(0, None)).fun
        assert float(mine.abs().sum()) == pytest.approx(least, rel=1e-3)


def test_lasso_agrees_with_scikit_learn() -> None:
    from sklearn.linear_model import Lasso

    V = frames.random_directions(30, 60, seed=0)
    _, X = planted(V, 4, 5, seed=1, noise=0.1)
    penalty = 0.1
    ours = solvers.lasso_codes(V, X, penalty=penalty, steps=5_000, tolerance=1e-10)
    for x, mine in zip(X.t(), ours.t(), strict=True):
        scale = float((V.t() @ x).abs().max())
        theirs = Lasso(alpha=penalty * scale / 30, fit_intercept=False, tol=1e-10, max_iter=100_000)
        theirs.fit(V.numpy(), x.numpy())
        assert mine.numpy() == pytest.approx(theirs.coef_, abs=1e-3 * scale)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (7, 20), (95, 100)])
def test_wilson_solves_its_own_equation(successes, trials) -> None:
    from scipy.stats import binomtest

    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert recovery.wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_table_says_what_was_done() -> None:
    V = frames.random_directions(32, 64)
    table = recovery.empirical(V, k=[1, 3], amplitudes=(1, 10), trials=20, seed=3)
    assert list(table.columns[:5]) == ["method", "k", "amplitude_range", "trials", "successes"]
    assert {"low", "high"} <= set(table.columns)
    assert set(table["method"]) == {"thresholding", "omp", "lasso"}
    assert (table["amplitude_range"] == 10).all()
    assert ((table["low"] <= table["rate"]) & (table["rate"] <= table["high"])).all()
    assert recovery.empirical(V, k=[1, 3], amplitudes=10, trials=20, seed=3).equals(table)


def test_a_wide_dynamic_range_defeats_thresholding_first() -> None:
    V = frames.random_directions(128, 256)
    equal = recovery.largest(V, "thresholding", trials=200)[0]
    wide = recovery.largest(V, "thresholding", trials=200, amplitudes=(1, 10))[0]
    omp = recovery.largest(V, "omp", trials=200, amplitudes=(1, 10))[0]
    assert wide < equal <= omp


def test_co_occurring_supports_are_used() -> None:
    V = torch.eye(20, dtype=torch.float64)
    V[1] = V[0] + 0.05 * V[1]  # row operations: features 0 and 1 nearly the same direction
    V = V.t().contiguous()
    together = recovery.empirical(V, k=2, supports=[[0, 1]], methods="thresholding", signs="adversarial", trials=20)
    apart = recovery.empirical(V, k=2, supports=[[5, 9, -1]], methods="thresholding", trials=20)
    assert apart["rate"].item() == 1 and apart["supports"].item() == "given"
    assert together["rate"].item() == 1  # both are nearest to their own sum
    split = recovery.empirical(V, k=2, supports=[[0, 7]], methods="thresholding", amplitudes=10, trials=200)
    assert 0.3 < split["rate"].item() < 0.7  # where feature 7 is the smaller, feature 1 takes its place
    codes = torch.zeros(5, 20)
    codes[:, 5], codes[:, 9], codes[:, 3] = 2.0, -3.0, 0.5
    drawn = SupportSource(codes, 20).draw(2, 10, torch.Generator().manual_seed(0))
    assert {tuple(sorted(row)) for row in drawn.tolist()} == {(5, 9)}


def test_uniform_supports_are_uniform() -> None:
    g = torch.Generator().manual_seed(0)
    for k, n in ((2, 30), (20, 30)):
        drawn = SupportSource(None, n).draw(k, 6_000, g)
        assert (drawn.sort(1).values.diff(dim=1) > 0).all()
        counts = torch.bincount(drawn.flatten(), minlength=n).double()
        expected = 6_000 * k / n
        assert float(((counts - expected) ** 2 / expected).sum()) < 70  # chi-square, 29 degrees: p < 1e-4


@pytest.mark.parametrize(("settings", "words"), [
    ({"k": 0}, "k=0"),
    ({"k": 9}, "choose"),
    ({"k": [1.5]}, "whole"),
    ({"k": 2.0}, "whole"),
    ({"k": ["1"]}, "whole"),
    ({"methods": "magic"}, "magic"),
    ({"amplitudes": (3, 1)}, "range"),
    ({"signs": "odd"}, "odd"),
    ({"noise": -1}, "noise"),
    ({"trials": 0}, "trials"),
    ({"k": 3, "supports": [[0, 1]]}, "at most 2"),
    ({"supports": [[0, 99]]}, "99"),
    ({"supports": [[1, 1]]}, "twice"),
    ({"supports": torch.zeros(3, 5)}, "columns"),
])  # fmt: skip
def test_bad_requests_are_one_sentence(settings, words) -> None:
    with pytest.raises(ValueError, match=words):
        recovery.empirical(frames.random_directions(6, 8), **{"k": 2, "trials": 5} | settings)
    with pytest.raises(ValueError, match="complex"):
        recovery.empirical(frames.mutually_unbiased(3), k=1)


def test_edges() -> None:
    assert recovery.empirical(torch.ones(1, 1), k=1, trials=5)["successes"].tolist() == [5, 5, 5]
    copies = torch.ones(3, 4)
    copies[0] = torch.tensor([1.0, 1, -1, 2])
    assert recovery.largest(torch.tensor([[1.0, 1], [0, 0]]), "omp")[0] == 0
    assert recovery.empirical(copies.half(), k=4, trials=5)["k"].tolist() == [4, 4, 4]


def test_bars_stand_in_their_order_on_a_random_dictionary() -> None:
    V = frames.random_directions(128, 256)
    bars, table = recovery.bars(V, coherence.measure(V), trials=100)
    k = bars.set_index("bar")["k"]
    assert k["mu"] <= k["babel"] < k["thresholding"] < k["omp"] < k["lasso"]
    assert k["thresholding predictor"] == pytest.approx(k["thresholding"], rel=0.35)
    assert k["omp predictor"] == pytest.approx(k["omp"], rel=0.4)
    assert (bars["low"] <= bars["k"]).all() and (bars["k"] <= bars["high"]).all()
    assert set(table["method"]) == {"thresholding", "omp", "lasso"}


def test_routed_supports_overlap_by_chance_only_when_they_do() -> None:
    g = torch.Generator().manual_seed(0)
    uniform = torch.rand(4_000, 16, generator=g).topk(4, dim=1).indices
    row = router_reading.overlap(uniform, 16).iloc[0]
    assert row["ratio"] == pytest.approx(1, abs=0.02)
    slow = np.mean(
        [len(set(a) & set(b)) / 4 for a, b in zip(uniform[::2].tolist(), uniform[1::2].tolist(), strict=True)]
    )
    assert row["mean"] == pytest.approx(slow, abs=0.02)
    same = torch.arange(4).expand(50, 4)
    assert router_reading.overlap(same, 16)["mean"].item() == pytest.approx(1)


def test_a_router_of_orthogonal_rows_is_certified_and_a_crowded_one_is_not() -> None:
    g = torch.Generator().manual_seed(0)
    chosen = torch.rand(500, 8, generator=g).topk(2, dim=1).indices
    tables = router_reading.measure(torch.eye(8, 32), chosen)
    assert tables["router"].set_index("router").loc["router", "certified"]
    crowded = torch.randn(8, 4, generator=g)
    assert not router_reading.measure(crowded, chosen)["router"].set_index("router").loc["router", "certified"]
    assert (tables["recovery"].query("router == 'router'")["rate"] == 1).all()


def test_planted_clusters_separate_and_permuted_labels_do_not() -> None:
    table = router_reading.separability(ks=(2, 8), shared=(0.0, 0.9), n_clusters=8, n_tokens=1_500)
    assert (table.query("signs == 'positive' and shared == 0")["accuracy"] > 0.9).all()
    positive, random = (table.query(f"signs == '{s}'")["accuracy"].to_numpy() for s in ("positive", "random"))
    assert (positive > random).all()
    spread = 5 * math.sqrt(0.125 * 0.875 / 750)
    assert table["null"].mean() == pytest.approx(0.125, abs=spread)
    assert table.groupby("shared")["mu"].first().is_monotonic_increasing


def test_codes_of_yes_and_no_are_their_numbers() -> None:
    """Which features are active is all that is asked of codes: True and 1.0 say the same."""
    seen = np.eye(8, dtype=bool) | np.eye(8, k=1, dtype=bool)
    yes, number = (
        recovery.empirical(frames.random_directions(6, 8), k=2, trials=5, supports=codes)["successes"].tolist()
        for codes in (seen, seen.astype(float))
    )
    assert yes == number


def test_codes_are_drawn_in_batches_of_a_hundred_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, draw = [], SupportSource.draw

    def counted(self: SupportSource, k: int, n: int, generator: torch.Generator) -> torch.Tensor:
        drawn.append(n)
        return draw(self, k, n, generator)

    monkeypatch.setattr(SupportSource, "draw", counted)
    recovery.empirical(frames.random_directions(256, 300), k=64, trials=1_100, methods="thresholding")
    assert sum(drawn) == 1_100 and max(drawn) * 64 * 256 * 8 <= 2**27 and max(drawn) * 300 * 8 <= 2**26
