"""On a CUDA device the numbers are those of the processor: counts and choices equal, float32 sums to 1e-4.

What ends in a count or a rank may differ where two numbers are equal to rounding.

TF32 is off, as it is in torch unless somebody asks for it.  Toys and small language models are trained on the processor
alone, where their kernels are; there is nothing of theirs to compare.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from data.corpus import Corpus, open_corpus
from probes import (
    LanguageModel,
    coherence,
    experts,
    histogram,
    keeping,
    ladder,
    memory,
    open_model,
    rank,
    recovery,
    routing,
    saes,
    secret,
    sparsity,
    stream,
)  # fmt: skip
from probes.frames import random_directions
from probes.stream import StreamConfig
from tests.faults.conftest import inputs  # noqa: F401  a fixture
from tests.probes.conftest import tokenizer  # noqa: F401  a fixture

DEVICE = "cuda"
SMALL = StreamConfig(n_tokens=1_500, window=32, batch_tokens=256, shard_tokens=400)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def both(place: Path, **options: Any) -> tuple[LanguageModel, LanguageModel]:
    return open_model(str(place)), open_model(str(place), **(options or {"device": DEVICE}))


@pytest.fixture(scope="module")
def mixture(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The mixture with an embedding for its padding token, whose zeros leave all experts equal to the router."""
    hf = open_model(str(inputs / "mixture")).hf
    hf.get_input_embeddings().weight[0] = hf.get_input_embeddings().weight[1:].mean(dim=0)
    place = tmp_path_factory.mktemp("mixture")
    hf.save_pretrained(place)
    open_model(str(inputs / "mixture")).tokenizer.save_pretrained(place)
    return place


def test_a_pass_over_text_finds_the_same(inputs: Path) -> None:  # noqa: F811
    here, there = both(inputs / "dense")
    corpus = open_corpus(inputs / "texts")
    first, second = (sparsity.measure(m, corpus, 1_500, controls=("random_init",), config=SMALL) for m in (here, there))
    assert first.keys() == second.keys()
    # a gate within rounding of 0 may fall on either side
    assert np.abs(first["neurons"]["frequency"] - second["neurons"]["frequency"]).max() <= 2 / 1_500
    for name in ("layers", "sinks", "thresholds", "positions"):
        agree(first[name], second[name], 2e-3)


def agree(first: pd.DataFrame, second: pd.DataFrame, within: float) -> None:
    """The same rows, and numbers that differ by no more than `within`, absolutely and relatively."""
    assert list(first.columns) == list(second.columns) and len(first) == len(second) > 0
    for column in first:
        if pd.api.types.is_float_dtype(first[column]):
            np.testing.assert_allclose(second[column], first[column], rtol=within, atol=within, err_msg=column)
        else:
            assert (first[column] == second[column]).all(), column


def of_routing(model: LanguageModel, corpus: Corpus) -> pd.DataFrame:
    asked: dict[str, Any] = {"tagger": None, "n_permutations": 5, "draws": 2, "config": SMALL}
    found = routing.measure(model, corpus, 1_500, **asked)
    return found.load.query("condition != 'hash'")[["condition", "layer", "expert", "share", "weight_share"]]


def of_experts(model: LanguageModel, corpus: Corpus) -> pd.DataFrame:
    asked: dict[str, Any] = {"layers": [0], "replace": ("zero", "mean"), "tagger": None, "curves": False}
    found = experts.measure(model, corpus, n_tokens=600, config=SMALL, **asked)
    return found.damage[["layer", "expert", "replacement", "of", "word_class", "value", "share"]]


def of_secret(model: LanguageModel, corpus: Corpus) -> pd.DataFrame:
    found = secret.fit(model, layer=1, corpus=corpus, n_tokens=1_500, n_experts=4, n_active=8)
    return pd.DataFrame({"fvu": [found.fvu], "train": [found.fvu_train]})


def of_an_autoencoder(model: LanguageModel, corpus: Corpus) -> pd.DataFrame:
    config = saes.SaeConfig(layer=1, d_sae=48, k=4, n_tokens=1_500, steps=40, batch_size=64)
    return saes.measure(model, corpus, config)[0].sae[["condition", "l0", "loss", "loss_sae", "loss_zero", "fvu"]]


def of_rank(model: LanguageModel, corpus: Corpus) -> pd.DataFrame:
    found = rank.measure(model, corpus, 400, config=SMALL, controls=("shuffled",), pattern_windows=2)
    assert len(found.rank_patterns)
    seen = found.rank_residuals.query("variant == 'full' and measure != 'stable_rank'")
    return seen[["layer", "condition", "first", "measure", "value", "n_windows"]]


def of_keeping(model: LanguageModel, corpus: Corpus) -> pd.DataFrame:
    found = keeping.measure(model, corpus, 400, shares=(0.5, 0.1), config=SMALL)
    return found.keeping[["choice", "layer", "share", "loss", "n_tokens"]]


def of_ladder(model: LanguageModel, corpus: Corpus) -> pd.DataFrame:
    return ladder.measure([model], corpus, 400, config=SMALL).ladder[["condition", "rung", "layer", "active_share"]]


def of_memory(model: LanguageModel, corpus: Corpus) -> pd.DataFrame:
    found = memory.measure(model, corpus, 600, layers=[1], controls=(), config=SMALL)
    return found.memory_agreement[["layer", "sign", "rate", "chance", "n_neurons"]]


@pytest.mark.parametrize("probe", [of_secret, of_an_autoencoder, of_rank, of_keeping, of_ladder, of_memory])
def test_a_probe_finds_the_same(probe: Any, inputs: Path) -> None:  # noqa: F811
    first, second = (probe(model, open_corpus(inputs / "texts")) for model in both(inputs / "dense"))
    agree(first, second, 5e-3)


@pytest.mark.parametrize("probe", [of_routing, of_experts, of_ladder])
def test_a_probe_of_experts_finds_the_same(probe: Any, inputs: Path, mixture: Path) -> None:  # noqa: F811
    first, second = (probe(model, open_corpus(inputs / "texts")) for model in both(mixture))
    agree(first, second, 5e-3)


def test_in_bfloat16_a_model_stays_itself(inputs: Path) -> None:  # noqa: F811
    ids = torch.randint(3, 300, (4, 64), generator=torch.Generator().manual_seed(0))
    for name in ("dense", "mixture"):
        exact, there = both(inputs / name, device=DEVICE, dtype="bfloat16")
        off = (there.logits(ids).cpu().float() - exact.logits(ids)).norm() / exact.logits(ids).norm()
        assert there.dtype == torch.bfloat16 and 0 < off < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_counted_the_same(dtype: torch.dtype) -> None:
    """ReLU's: nearly all are 0 and meet in one bin."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3_000, 700, generator=generator).sub(1).relu().to(dtype)
    fold = torch.randint(-1, histogram.N_FOLDS, (3_000,), generator=generator)
    there = histogram.counted(histogram._bits(values.to(DEVICE)), fold.to(DEVICE)).cpu()
    here = histogram.counted(histogram._bits(values), fold)
    assert (here == there).all() and here.sum() == (fold >= 0).sum() * 700


def test_planted_codes_are_recovered_as_often() -> None:
    columns = random_directions(32, 96, seed=1)
    here, there = (recovery.empirical(columns, k=(2, 6), trials=100, device=device) for device in ("cpu", DEVICE))
    assert (here["successes"] - there["successes"]).abs().max() <= 1
    assert here["successes"].between(10, 90).any()  # where rounding could show


def test_experts_are_captured_the_same(inputs: Path) -> None:  # noqa: F811
    here, there = both(inputs / "mixture")
    ids = torch.randint(3, 300, (4, 64), generator=torch.Generator().manual_seed(0))
    seen: list[dict[tuple[int, str], torch.Tensor]] = []
    for model in (here, there):
        kept: dict[tuple[int, str], torch.Tensor] = {}

        def keep(at: int, found: dict[str, torch.Tensor], kept: Any = kept) -> None:
            kept.update({(at, name): tensor.cpu() for name, tensor in found.items()})

        model.observe(ids, ("expert_index", "expert_weight", "router_logits", "ffn_output"), keep)
        seen.append(kept)
    assert seen[0].keys() == seen[1].keys()
    for key, tensor in seen[0].items():
        if key[1] == "expert_index":
            assert (seen[1][key] == tensor).float().mean() >= 0.999
        elif key[1] != "expert_weight":  # whose order follows the choice
            torch.testing.assert_close(seen[1][key], tensor, **CLOSE)


def test_a_model_is_spread_over_devices(inputs: Path) -> None:  # noqa: F811
    pytest.importorskip("accelerate", reason="device_map needs the package accelerate")
    here, there = both(inputs / "dense", device_map="auto")
    ids = torch.randint(3, 300, (2, 32), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(there.logits(ids).cpu(), here.logits(ids), **CLOSE)


def test_sums_of_a_pass_lie_on_the_processor(inputs: Path) -> None:  # noqa: F811
    """States are saved and merged as numpy arrays, whatever the model lies on."""
    _, there = both(inputs / "dense")
    held = sparsity.Held(there)
    stream.run(there, open_corpus(inputs / "texts"), held.parts(), SMALL)
    assert all(isinstance(a, np.ndarray) for part in held.parts().values() for a in part.state().values())


@pytest.mark.parametrize("shape", [(32, 3_000), (64, 700), (16, 20_000)])
def test_a_coherence_scan_finds_the_same(shape: tuple[int, int]) -> None:
    columns = random_directions(*shape, seed=1).float()
    columns[:, 5] = columns[:, -3] + 0.01 * columns[:, 1]
    here, there = (coherence.measure(columns, neighbours=4, device=device) for device in ("cpu", DEVICE))
    assert there.mu == pytest.approx(here.mu, abs=1e-5)
    np.testing.assert_allclose(there.nearest, here.nearest, atol=1e-5)
    assert there.k_babel == here.k_babel and there.k_guaranteed == here.k_guaranteed
