import math

import numpy as np
import pytest
import torch
from scipy import stats

from data.corpus import Corpus
from probes import LanguageModel, open_model, sparsity
from probes.describe import MEASURES, token_measures
from probes.stream import StreamConfig
from tests.probes.tiny import tiny_hf

SMALL = StreamConfig(n_tokens=600, window=32, batch_tokens=128, shard_tokens=300)


def test_gaussian_activations_have_the_known_values() -> None:
    z = torch.randn(4000, 1536, generator=torch.Generator().manual_seed(0))
    found = sparsity.describe(z)
    assert found["energy_top10"] == pytest.approx(0.4393, abs=0.005)
    assert found["participation_ratio"] == pytest.approx(1 / 3, abs=0.005)
    assert found["hoyer"] == pytest.approx(0.2021, abs=0.005)
    assert found["gini"] == pytest.approx(0.4142, abs=0.005)
    assert found["kurtosis"] == pytest.approx(3, abs=0.05)


def test_extremes_are_exact() -> None:
    one = torch.zeros(1, 100)
    one[0, 7] = -3.0
    single = sparsity.describe(one)
    assert single["energy_top1"] == pytest.approx(1) and single["hoyer"] == pytest.approx(0.9)
    assert single["gini"] == pytest.approx(0.99) and single["participation_ratio"] == pytest.approx(0.01)
    equal = sparsity.describe(torch.full((2, 100), 2.0) * torch.tensor([1.0, -1.0]).repeat(50))
    assert equal["energy_top20"] == pytest.approx(0.2) and equal["participation_ratio"] == pytest.approx(1)
    assert equal["hoyer"] == pytest.approx(0, abs=1e-6) and equal["gini"] == pytest.approx(0, abs=1e-6)


def test_measures_agree_with_their_definitions_token_by_token() -> None:
    z = torch.randn(5, 40, generator=torch.Generator().manual_seed(1)).double() ** 3
    fast = token_measures(z.float())
    for row, values in zip(z.numpy(), fast, strict=True):
        named = dict(zip(MEASURES, values.tolist(), strict=True))
        energy = np.sort(row**2)[::-1]
        assert named["energy_top10"] == pytest.approx(energy[:4].sum() / energy.sum(), rel=1e-5)
        pairs = np.abs(np.abs(row)[:, None] - np.abs(row)[None, :]).sum()
        assert named["gini"] == pytest.approx(pairs / (2 * 40 * np.abs(row).sum()), rel=1e-4)
        assert named["kurtosis"] == pytest.approx(stats.kurtosis(row, fisher=False), rel=1e-4)
        l1, l2 = np.abs(row).sum(), math.sqrt((row**2).sum())
        assert named["hoyer"] == pytest.approx(1 - l1 / (math.sqrt(40) * l2), rel=1e-4)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_measures_do_not_depend_on_scale(scale: float) -> None:
    z = torch.randn(50, 64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(token_measures(z * scale), token_measures(z), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("z", "says"),
    [
        (torch.zeros(3), "shape"),
        (torch.zeros(0, 4), "a matrix with entries"),
        (torch.tensor([[1.0, 2.0], [torch.nan, 1.0]]), "NaN or infinity, first in row 1"),
        (torch.zeros(3, 4), "all zero"),
    ],
)
def test_bad_activations_are_said_in_one_sentence(z: torch.Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sparsity.describe(z)


def test_every_measure_stands_beside_its_controls(tiny: LanguageModel, corpus: Corpus) -> None:
    found = sparsity.measure(tiny, corpus, 600, config=SMALL)
    layers = found.layers
    assert set(layers.condition) == {"real", *sparsity.CONTROLS}
    assert set(layers.measure) == {"firing_frequency", *MEASURES}
    real = layers[(layers.condition == "real") & (layers.sinks == "without")]
    assert (real.low <= real.value).all() and (real.value <= real.high).all() and (real.n_blocks > 1).all()
    assert found.neurons.groupby("condition").size().eq(tiny.n_layers * tiny.d_mlp).all()


def test_an_untrained_model_is_its_own_random_control(tiny: LanguageModel, corpus: Corpus) -> None:
    """Random weights against other random weights: the control must find nothing."""
    layers = sparsity.measure(tiny, corpus, 600, config=SMALL, controls=("random_init",)).layers
    means = layers[layers.measure == "firing_frequency"].groupby("condition").value.mean()
    assert means["real"] == pytest.approx(0.5, abs=0.05) and means["random_init"] == pytest.approx(0.5, abs=0.05)


def test_a_neuron_that_never_fires_and_one_that_always_does_are_found(corpus: Corpus, tokenizer: object) -> None:
    hf = tiny_hf("gpt_neox", hidden_act="relu")
    with torch.no_grad():
        hf.base_model.layers[1].mlp.dense_h_to_4h.bias[5] = -1e4
        hf.base_model.layers[1].mlp.dense_h_to_4h.bias[6] = 1e4
    model = open_model(hf, tokenizer=tokenizer)
    neurons = sparsity.measure(model, corpus, 600, config=SMALL, controls=()).neurons
    frequency = neurons[neurons.layer == 1].set_index("neuron").frequency
    assert frequency[5] == 0 and frequency[6] == 1 and 0 < frequency[7] < 1


def test_unknown_controls_and_routed_models_are_refused(tiny: LanguageModel, corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="'noise' is not a control"):
        sparsity.measure(tiny, corpus, 100, controls=("noise",))  # type: ignore[arg-type]
    routed = open_model(tiny_hf("olmoe", num_experts=4))
    with pytest.raises(ValueError, match="no dense feed-forward block"):
        sparsity.measure(routed, corpus, 100)
    with pytest.raises(ValueError, match="without a tokenizer"):
        sparsity.measure(open_model(tiny_hf()), corpus, 100)
