"""Coherence against closed forms, against the whole Gram matrix, and under cancel and resume."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from data.progress import Cancelled
from data.runs import create
from probes import bounds, coherence, frames, scan
from probes.columns import Columns
from probes.scan import nearest

CLOSED = [
    (frames.orthonormal(6), 0.0, 6),
    (frames.simplex(3), 1 / 3, 1),
    (frames.simplex(10), 1 / 10, 5),
    (frames.mercedes_benz(), 1 / 2, 1),
    (frames.icosahedron(), 1 / math.sqrt(5), 1),
    (frames.lines_28(), 1 / 3, 1),
    (frames.dirac_hadamard(16), 1 / 4, 2),
    (frames.dirac_hadamard(64), 1 / 8, 4),
    (frames.dirac_hadamard(1024), 1 / 32, 16),
    (frames.mutually_unbiased(3), 1 / math.sqrt(3), 1),
    (frames.mutually_unbiased(5), 1 / math.sqrt(5), 1),
    (frames.mutually_unbiased(11), 1 / math.sqrt(11), 2),
]


def gram(V: torch.Tensor) -> torch.Tensor:
    """The slow way: all |cosines|, zero on the diagonal."""
    V = V.to(torch.complex128 if V.is_complex() else torch.float64)
    V = V / torch.linalg.vector_norm(V, dim=0)
    return (V.mH @ V).abs().fill_diagonal_(0)


@pytest.mark.parametrize(("V", "mu", "k"), CLOSED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_closed_forms(V, mu, k, dtype) -> None:
    narrow = V.to(torch.complex64 if V.is_complex() else torch.float32) if dtype == torch.float32 else V
    report = coherence.measure(narrow, dtype=dtype)
    assert report.mu == pytest.approx(mu, abs=1e-6)
    assert report.k_guaranteed == k
    assert report.k_guaranteed <= report.k_babel <= report.k_erc
    assert report.mu >= report.welch - 1e-6


@pytest.mark.parametrize("V", [frames.simplex(7), frames.mercedes_benz(), frames.icosahedron(), frames.lines_28()])
def test_equiangular_tight_frames_meet_welch(V) -> None:
    report = coherence.measure(V)
    assert report.welch_ratio == pytest.approx(1, abs=1e-6)
    steps = np.diff(report.babel[: V.shape[1] - 1], prepend=0)
    assert steps == pytest.approx(report.welch, abs=1e-6)


def test_bases_between_which_all_cosines_are_equal_have_a_linear_babel_function() -> None:
    report = coherence.measure(frames.dirac_hadamard(64))
    assert report.babel == pytest.approx(np.arange(1, 33) / 8, abs=1e-6)
    assert report.k_babel == 4
    assert report.spark == pytest.approx(9)


@pytest.mark.parametrize(("d", "n"), [(20, 700), (3, 1500), (64, 65), (1, 5), (5, 2), (40, 2300)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_agrees_with_the_whole_gram_matrix(d, n, dtype) -> None:
    V = torch.randn(d, n, generator=torch.Generator().manual_seed(d * n)) * torch.logspace(-3, 3, n)
    slow = gram(V)
    report = coherence.measure(V, dtype=dtype, neighbours=3)
    assert report.mu == pytest.approx(float(slow.max()), abs=1e-6)
    assert slow[report.pair] == pytest.approx(float(slow.max()), abs=1e-6)
    assert report.nearest == pytest.approx(slow.max(1).values.numpy(), abs=1e-6)
    top = slow.topk(min(32, n - 1), dim=1).values.cumsum(1).max(0).values
    assert report.babel[: len(top)] == pytest.approx(top.numpy(), abs=2e-5)
    unit = V.double() / torch.linalg.vector_norm(V.double(), dim=0)
    rows = report.neighbours
    signed = (unit[:, rows["feature"].to_numpy(copy=True)] * unit[:, rows["neighbour"].to_numpy(copy=True)]).sum(0)
    assert rows["cosine"].to_numpy() == pytest.approx(signed.numpy(), abs=1e-6)
    off = (unit.T @ unit).fill_diagonal_(0)
    assert report.average_coherence == pytest.approx(float(off.sum(1).abs().max()) / (n - 1), abs=1e-6)


@pytest.mark.parametrize(("strip", "tile"), [(64, 64), (64, 256), (100, 37), (1024, 2048)])
@pytest.mark.parametrize("kind", ["random", "shared direction", "ascending", "equal", "duplicates"])
@pytest.mark.parametrize("compiled", [True, False])
def test_tiles_of_any_size_find_the_same_neighbours(strip, tile, kind, compiled) -> None:
    g = torch.Generator().manual_seed(0)
    V = torch.randn(12, 530, generator=g, dtype=torch.float64)
    if kind == "shared direction":
        V += 3
    if kind == "ascending":  # every later column is closer to the next: each tile beats all before it
        V = torch.cat([torch.ones(1, 530), torch.linspace(2, 0.01, 530).expand(1, 530), 0.01 * V[:3]]).double()
    if kind == "equal":
        V = frames.simplex(529)
    if kind == "duplicates":
        V[:, 200:400] = V[:, :1]
    found = nearest(Columns(V), 32, dtype=torch.float64, strip=strip, tile=tile, compiled=compiled)
    slow = gram(V)
    assert torch.allclose(found.values, slow.topk(32, dim=1).values, atol=1e-9)
    assert torch.allclose(slow.gather(1, found.others.long()), found.values, atol=1e-9)
    unit = V / torch.linalg.vector_norm(V, dim=0)
    cosines = (unit.T @ unit).gather(1, found.others.long())
    assert (found.negative == (cosines < 0))[found.values > 1e-6].all()
    for row in found.others:
        assert len(row.unique()) == 32


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 10**6))
def test_bounds_are_ordered_and_scale_free(d, n, seed) -> None:
    V = torch.randn(d, n, generator=torch.Generator().manual_seed(seed))
    report = coherence.measure(V)
    assert report.welch - 1e-6 <= report.mu <= 1
    assert report.k_guaranteed <= report.k_babel <= report.k_erc <= n
    scaled = coherence.measure(V * torch.logspace(-12, 12, n))
    assert scaled.mu == pytest.approx(report.mu, abs=1e-5)


def test_exact_recovery_condition_against_its_definition() -> None:
    V = torch.randn(8, 15, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    V /= torch.linalg.vector_norm(V, dim=0)
    support = [1, 4, 9]
    rest = [j for j in range(15) if j not in support]
    expected = np.abs(np.linalg.lstsq(V[:, support].numpy(), V[:, rest].numpy(), rcond=None)[0]).sum(0).max()
    assert coherence.exact_recovery(V, support) == pytest.approx(expected, abs=1e-9)
    assert coherence.measure(V, support=support).erc == pytest.approx(expected, abs=1e-9)


def test_condition_holds_up_to_k_erc_and_fails_beyond() -> None:
    from itertools import combinations

    V = frames.random_directions(12, 14, seed=1)
    report = coherence.measure(V)
    assert report.k_erc_exact
    worst = [max(coherence.exact_recovery(V, s) for s in combinations(range(14), k)) for k in (1, 2, 3)]
    assert report.k_erc == sum(np.maximum.accumulate(worst) < 1)


def test_dependent_support_never_recovers() -> None:
    V = torch.tensor([[1.0, 0, 1], [0, 1, 1], [0, 0, 0]])
    assert coherence.exact_recovery(V, [0, 1, 2]) == math.inf
    with pytest.raises(ValueError, match="different features"):
        coherence.exact_recovery(V, [0, 0])


def test_centring_removes_a_shared_direction() -> None:
    g = torch.Generator().manual_seed(0)
    V = torch.randn(100, 300, generator=g) + 2.0
    raw, centred = coherence.measure(V), coherence.measure(V, centred=True)
    assert raw.average_coherence > 0.5
    assert centred.average_coherence < 0.01
    unit = V.double() / torch.linalg.vector_norm(V.double(), dim=0)
    assert centred.mu == pytest.approx(float(gram(unit - unit.mean(1, keepdim=True)).max()), abs=1e-6)
    assert centred.centred and not raw.centred


def test_near_duplicates_are_clustered() -> None:
    g = torch.Generator().manual_seed(0)
    V = torch.randn(50, 400, generator=g)
    V[:, 100:180] = V[:, 5:6] + 1e-4 * torch.randn(50, 80, generator=g)  # more than the scan keeps for each
    V[:, 300] = -3 * V[:, 7]
    report = coherence.measure(V)
    groups = {tuple(part) for part in report.clusters.groupby("cluster")["feature"].apply(list)}
    assert groups == {(5, *range(100, 180)), (7, 300)}
    assert report.k_guaranteed == 0 and report.mu == pytest.approx(1, abs=1e-6) and report.mu <= 1
    assert coherence.measure(frames.random_directions(50, 400)).clusters.empty


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_bad_columns_are_named(bad, dtype) -> None:
    V = torch.randn(4, 6000, generator=torch.Generator().manual_seed(0)).to(dtype)
    V[1, 5000] = bad
    with pytest.raises(ValueError, match="column 5000"):
        coherence.measure(V)
    V[:, 5000] = 0
    with pytest.raises(ValueError, match="column 5000 is zero"):
        coherence.measure(V)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0, 3), (3, 0)])
def test_what_is_not_a_matrix_is_refused(shape) -> None:
    with pytest.raises(ValueError, match="shape"):
        coherence.measure(np.ones(shape))
    with pytest.raises(ValueError, match="numbers"):
        coherence.measure(np.array([["a"]]))


def test_sparse_matrices_and_too_many_neighbours_are_refused() -> None:
    for V in (torch.eye(3).to_sparse(), csr_array(np.eye(3))):
        with pytest.raises(ValueError, match="sparse"):
            coherence.measure(V)
    V = frames.random_directions(16, 40)
    for count in (-1, 33, 40):
        with pytest.raises(ValueError, match=f"neighbours={count}.*0 to 32"):
            coherence.measure(V, neighbours=count)
    assert len(coherence.measure(V, neighbours=32).neighbours) == 40 * 32
    assert coherence.measure(V, neighbours=0).neighbours.empty
    assert len(coherence.measure(frames.simplex(3), neighbours=32).neighbours) == 4 * 3


def test_one_feature_one_dimension_integers_and_halves() -> None:
    one = coherence.measure(np.array([[3.0], [4.0]]))
    assert (one.mu, one.pair, one.k_guaranteed, one.k_erc) == (0.0, None, 1, 1)
    line = coherence.measure(np.array([[1, -2, 3]]))
    assert (line.mu, line.k_guaranteed) == (1.0, 0)
    assert len(line.clusters) == 3
    ints = np.array([[1, 1], [1, 0]])
    for kind in (np.int8, np.int64, np.uint8, np.float16, np.float32, ">f4", np.longdouble, bool):
        assert coherence.measure(ints.astype(kind)).mu == pytest.approx(math.sqrt(0.5), abs=1e-6)
    assert coherence.measure(torch.tensor(ints, dtype=torch.bfloat16)).mu == pytest.approx(math.sqrt(0.5), abs=1e-6)


def test_gradients_and_views_are_no_obstacle() -> None:
    V = torch.randn(30, 9, generator=torch.Generator().manual_seed(0), requires_grad=True).t()[:, ::2]
    assert coherence.measure(V).mu == pytest.approx(float(gram(V.detach()).max()), abs=1e-6)


def test_memory_mapped_input_gives_the_same_report(tmp_path: Path) -> None:
    V = np.random.default_rng(0).standard_normal((24, 900)).astype(np.float32)
    np.save(tmp_path / "rows.npy", V.T)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r").T
    first, second = coherence.measure(V), coherence.measure(mapped)
    assert first.mu == second.mu and first.pair == second.pair
    assert (first.babel == second.babel).all()


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_stopped_scan_goes_on_where_it_stopped(tmp_path: Path, monkeypatch, centred, compiled) -> None:
    monkeypatch.setattr(scan, "EVERY", 0.0)
    monkeypatch.setattr(coherence, "nearest", partial(scan.nearest, compiled=compiled))
    V = torch.randn(16, 3500, generator=torch.Generator().manual_seed(0))
    run = create("scan", {"of": "V"}, kind="probe.coherence", root_folder=tmp_path)

    def stop(at: float, total: float, note: str = "") -> None:
        if at > 0.6 * total:
            raise Cancelled

    with pytest.raises(Cancelled):
        coherence.measure(V, centred=centred, progress=stop, checkpoint=run)
    seen: list[float] = []
    report = coherence.measure(V, centred=centred, progress=lambda a, b, note="": seen.append(a / b), checkpoint=run)
    assert seen[0] > 0.4 and seen[-1] == 1
    whole = coherence.measure(V, centred=centred)
    assert report.mu == whole.mu and np.array_equal(report.babel, whole.babel)
    assert report.neighbours["cosine"].equals(whole.neighbours["cosine"])
    assert list(report.neighbours["neighbour"]) == list(whole.neighbours["neighbour"])


def test_two_dictionaries_share_a_run_and_no_scan(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(scan, "EVERY", 0.0)
    V = torch.randn(16, 600, generator=torch.Generator().manual_seed(0))
    W = V.clone()
    W[3, 77] += 0.01
    run = create("scan", {"of": "V"}, kind="probe.coherence", root_folder=tmp_path)
    for matrix in (V, W):
        assert coherence.measure(matrix, checkpoint=run).mu == coherence.measure(matrix).mu
        assert coherence.measure(matrix, centred=True, checkpoint=run).mu == coherence.measure(matrix, centred=True).mu
    assert len(run.tensor_names()) == 4
    scan.forget(run)
    assert not list(run.path.glob("*scan*")) and not list(run.path.glob(".*scan*"))


def test_a_random_dictionary_has_the_expected_coherence() -> None:
    for d, n in ((16, 64), (64, 256)):
        found = [coherence.measure(frames.random_directions(d, n, seed=s)).mu for s in range(60)]
        below = sum(mu < bounds.random_coherence(d, n) for mu in found)
        assert 18 <= below <= 42  # binomial(60, 1/2) leaves this with probability .001


def test_sizes_that_bounds_allow() -> None:
    assert bounds.welch(7, 28) == pytest.approx(1 / 3)
    assert bounds.n_supports(8, 2) == 36 and bounds.n_supports(4, 2) == 10
    assert bounds.k_from_coherence(1 / 3, 28) == 1 and bounds.k_from_coherence(0.33, 28) == 2
    # no dictionary that certifies k can have more columns than max_features says
    for V, k in ((frames.simplex(9), 4), (frames.dirac_hadamard(16), 2), (frames.dirac_hadamard(64), 4)):
        assert coherence.measure(V).k_guaranteed >= k
        assert V.shape[1] <= bounds.max_features(V.shape[0], k)
    assert bounds.max_features(2, 2) < math.pi / math.acos(1 / 3) + 1
    assert bounds.random_coherence(32, round(bounds.random_features(32, 2))) == pytest.approx(1 / 3, abs=0.02)


def test_tables_can_be_kept(tmp_path: Path) -> None:
    run = create("r", {}, kind="probe.coherence", root_folder=tmp_path)
    run.save_tables(coherence.measure(frames.lines_28()).tables())
    assert run.table("summary").set_index("quantity").loc["k_guaranteed", "value"] == 1
    assert run.table_names() == ["babel", "clusters", "nearest", "neighbours", "summary"]


@pytest.mark.parametrize("n", [2, 5, 40])
def test_random_coherence_in_space_is_a_closed_form(n: int) -> None:
    # On the sphere the height of a point is uniform, so a pair is beyond t with chance 1 - t.
    assert bounds.random_coherence(3, n) == pytest.approx(1 - 2 * math.log(2) / (n * (n - 1)))


def test_lines_in_the_plane_certify_as_many_as_fit() -> None:
    # Two lines at right angles meet with cosine 0; of three, two meet with at least cos 60 = 1/2, above 1/3.
    assert bounds.max_features(2, 2) == 2 and bounds.max_features(1, 2) == 1


def test_supports_are_counted_in_closed_form() -> None:
    assert bounds.n_supports(8, 2) == 8 + 28 and bounds.n_supports(4, 2) == 4 + 6
    assert bounds.n_supports(5, 5) == bounds.n_supports(5, 9) == 2**5 - 1


def test_levenshteins_bound_where_it_holds_and_nowhere_else() -> None:
    # 3F - d^2 - 2d <= (d + 2)(F - d) / 9 for k = 2: F <= 640/17 in eight dimensions; void from 25 dimensions on.
    assert bounds.max_features(8, 2) == 37
    assert bounds.max_features(26, 2) > 26 * 27 / 2


def test_random_signs_are_signs() -> None:
    V = frames.rademacher(7, 50, seed=3)
    assert set((V * math.sqrt(7)).round(decimals=12).unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(("k", "margin"), [(2, 1.0), (4, 0.9), (5, 1.05)])
def test_the_sharp_family_has_its_gram_matrix(k: int, margin: float) -> None:
    mu, sign = margin / (2 * k - 1), torch.ones(2 * k - 1, dtype=torch.float64)
    sign[-1] = -1
    V = frames.tight(k, margin)
    wanted = -mu * torch.outer(sign, sign)
    torch.testing.assert_close(V.T @ V, wanted.fill_diagonal_(1.0))


@pytest.mark.parametrize(("d", "n"), [(2, 3), (3, 4), (3, 6), (4, 5)])
def test_k_erc_is_that_of_all_supports_up_to_the_largest(d: int, n: int) -> None:
    from itertools import combinations

    for V in (frames.mercedes_benz(), *(frames.random_directions(d, n, seed=seed) for seed in range(5))):
        report = coherence.measure(V)
        sizes = range(1, min(V.shape[1] - 1, V.shape[0]) + 1)
        worst = [max(coherence.exact_recovery(V, s) for s in combinations(range(V.shape[1]), k)) for k in sizes]
        assert report.k_erc_exact and report.k_erc == sum(np.maximum.accumulate(worst) < 1)


def test_two_equal_columns_are_a_cluster() -> None:
    found = coherence.measure(torch.tensor([[3.0, 1.0], [0.0, 0.0]])).clusters
    assert found["feature"].tolist() == [0, 1] and found["size"].tolist() == [2, 2]
