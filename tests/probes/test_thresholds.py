import numpy as np
import pytest
import torch

from data.corpus import Corpus
from probes import LanguageModel, histogram, open_model, stream
from probes.firing import N_FOLDS
from probes.histogram import EDGES, N_BINS, LogHistogram, Mapped, count, share_below, size_quantile
from probes.stream import StreamConfig
from probes.thresholds import ABSOLUTE, SHARES, Tails, Thresholds
from tests.probes.oracle import Everything
from tests.probes.tiny import tiny_hf

SMALL = StreamConfig(n_tokens=600, window=32, batch_tokens=128, shard_tokens=150)


def counted(z: torch.Tensor) -> np.ndarray:
    out = np.zeros((1, 2, N_BINS), dtype=np.int64)
    bits, shift = (z.view(torch.int16), 0) if z.dtype == torch.bfloat16 else (z.view(torch.int32), 16)
    count(bits.numpy(), shift, np.zeros(len(z), dtype=np.int64), out)
    return out[0]


@pytest.mark.parametrize("law", ["gaussian", "cubed", "lognormal", "relu"])
def test_shares_and_quantiles_are_within_a_thousandth_of_the_sorted_values(law: str) -> None:
    g = torch.randn(200, 1000, generator=torch.Generator().manual_seed(0))
    z = {"gaussian": g, "cubed": g**3, "lognormal": g.exp(), "relu": g.relu()}[law]
    counts = counted(z).sum(axis=0)
    assert counts.sum() == z.numel()
    ordered = np.sort(z.abs().numpy().ravel())
    for t in (1e-3, 0.01, 0.137, 0.5, 1.0, 2.7):
        assert share_below(counts, t, atoms=False) == pytest.approx((ordered < t).mean(), abs=1e-3)
    for p in (0.6, 0.75, 0.9, 0.99):
        t = size_quantile(counts, p, atoms=False)
        assert (ordered < t).mean() == pytest.approx(p, abs=1e-3)


def test_bfloat16_is_counted_value_by_value() -> None:
    z = torch.randn(100, 500, generator=torch.Generator().manual_seed(1)).bfloat16()
    counts = counted(z).sum(axis=0)
    ordered = np.sort(z.float().abs().numpy().ravel())
    for t in (0.01, 0.5, 0.501, 1.0, 1.9999):
        assert share_below(counts, t, atoms=True) == (ordered < t).mean()
    for p in (0.1, 0.5, 0.9):
        assert size_quantile(counts, p, atoms=True) == np.quantile(ordered, p, method="inverted_cdf")


def test_signs_zeros_and_extremes_have_their_bins() -> None:
    z = torch.tensor([[0.0, -0.0, 1e-30, 1.0, -1.0, 1e30, float("inf")]])
    counts = counted(z)
    one = int(np.searchsorted(EDGES, 1.0))
    assert counts[1, 0] + counts[0, 0] == 3 and counts[1, one] == 1 and counts[0, one] == 1
    assert counts[1, -1] == 2 and counts.sum() == 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_counting_as_a_gpu_does_gives_the_same(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    z = (torch.randn(60, 40, generator=generator) ** 9).to(dtype)
    z[0, :6] = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e30, -float("inf")])
    fold = torch.randint(-1, N_FOLDS, (60,), generator=generator)
    out = np.zeros((N_FOLDS, 2, N_BINS), dtype=np.int64)
    bits = histogram._bits(z)
    count(bits.numpy(), 8 * (bits.element_size() - 2), fold.numpy(), out)
    assert (histogram.counted(bits, fold).numpy() == out).all() and out[:, :, [0, -1]].all(axis=2).any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_threshold_agrees_with_sorting(dtype: str, corpus: Corpus, tokenizer: object) -> None:
    model = open_model(tiny_hf(), tokenizer=tokenizer, dtype=dtype)
    oracle, mine = Everything(), Thresholds(model)
    mine.inputs.stride = mine.gates.stride = 1
    stream.run(model, corpus, {"oracle": oracle, **mine.parts()}, SMALL)
    table = mine.tables().thresholds.set_index(["layer", "measure", "setting"])
    for layer in range(model.n_layers):
        z, x, gate = (oracle.of(layer, s).float() for s in ("neurons", "ffn_input", "gate"))
        for t in ABSOLUTE:
            assert table.value[layer, "density_absolute", t] == pytest.approx(
                float((z.abs() >= t).float().mean()), abs=1e-3
            )
        rms = float(z.square().mean().sqrt())
        assert table.value[layer, "density_rms", 0.3] == pytest.approx(
            float((z.abs() >= 0.3 * rms).float().mean()), abs=1e-3
        )
        assert table.n_tokens[layer, "density_rms", 0.3] == len(z)
        # between the two sizes nearest to the quantile there are few values: the share tells how far off it is
        within = 1e-3 if dtype == "float32" else 0.006
        for p in SHARES:
            for measure, values in (("teal", z), ("teal_input", x), ("cats", torch.nn.functional.silu(gate))):
                t = table.value[layer, f"threshold_{measure}", p]
                assert float((values.abs() <= t).float().mean()) == pytest.approx(
                    p, abs=max(within, 3 / values.numel())
                )


def test_tails_agree_with_leaving_neurons_out_one_threshold_at_a_time(tiny: LanguageModel) -> None:
    tails = Tails(tiny)
    z = torch.randn(7, tiny.d_mlp, generator=torch.Generator().manual_seed(2)) ** 3
    down = torch.as_tensor(tails.down[1])
    found = tails._tails(z, 1).numpy()
    for j in (58, 60, 62, 64):
        for row in range(len(z)):
            parts = z[row, :, None] * down.T
            small = parts.norm(dim=1) < tails.GRID[j]
            tail = parts[small].sum(0).norm() / parts.sum(0).norm()
            assert found[row, j, 0] == pytest.approx(float(tail), abs=1e-5)
            assert found[row, j, 1] == pytest.approx(1 - float(small.float().mean()))
    assert (found[:, 0] == [0, 1]).all() and (found[:, -1] == [1, 0]).all()


def test_one_active_neuron_makes_the_whole_output() -> None:
    """With one neuron active, leaving out all others costs nothing: density is 1 / d_mlp at any tail below 1."""
    model = open_model(tiny_hf())
    tails = Tails(model)
    z = torch.zeros(4, model.d_mlp)
    z[:, 3] = 2.0
    found = tails._tails(z, 0).numpy()
    assert tails.at(found.sum(axis=0), 4, 0.2) == pytest.approx(1 / model.d_mlp, rel=0.25)


def test_merged_halves_are_the_whole(tiny: LanguageModel, corpus: Corpus) -> None:
    whole, halves = LogHistogram(tiny, "neurons"), (LogHistogram(tiny, "neurons"), LogHistogram(tiny, "neurons"))
    turns: list[int] = []

    class Alternating(Everything):
        def update(self, seen: stream.Observation) -> None:
            turns.append(len(turns))
            halves[turns[-1] // 2 % 2].update(seen)

    stream.run(tiny, corpus, {"whole": whole, "halves": Alternating()}, SMALL)
    halves[0].merge(halves[1])
    for name, array in whole.arrays.items():
        assert array.sum() and (halves[0].arrays[name] == array).all()


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9, 1.0])
def test_the_quantile_of_bins_of_one_value_is_that_of_the_sorted_values(share: float) -> None:
    """Exact however large the largest: an outlier must not take digits from a small quantile."""
    rng = np.random.default_rng(3)
    sizes = np.sort(np.append(rng.exponential(1e-5, 60), 1e6))
    counts = rng.integers(0, 5, (8, len(sizes)))
    counts[0, -1] = 1
    keep = np.array([0, 2, 5])
    values = np.repeat(sizes, counts[keep].sum(axis=0))
    assert Mapped(sizes, sizes, counts).quantile(keep, share) == np.quantile(values, share, method="inverted_cdf")
    assert np.isnan(Mapped(sizes, sizes, 0 * counts).quantile(keep, share))


def test_a_quantile_that_falls_between_two_bins_is_the_least_size_that_holds_its_share() -> None:
    bins = Mapped(np.array([0.0, 2.0]), np.array([1.0, 3.0]), np.array([[10, 30]]))
    assert bins.quantile(np.array([0]), 0.25) == pytest.approx(1.0, abs=1e-8)


def test_the_quantile_of_wider_bins_spreads_their_values_evenly() -> None:
    """Two bins, [0, 1] and [1, 3], of 10 and 30 values: a quarter lies below 1, five eighths below 2."""
    bins = Mapped(np.array([0.0, 1.0]), np.array([1.0, 3.0]), np.array([[10, 30]]))
    for share, size in ((0.125, 0.5), (0.25, 1.0), (0.625, 2.0), (1.0, 3.0)):
        assert bins.quantile(np.array([0]), share) == pytest.approx(size, abs=1e-8)
