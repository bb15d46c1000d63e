"""On a CUDA device the numbers are those of the processor: counts and choices equal, float32 sums to 1e-4.

TF32 is off, as it is in torch unless somebody asks for it.  Toys and small language models are trained on the processor
alone, where their kernels are; there is nothing of theirs to compare.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.corpus import open_corpus
from probes import LanguageModel, coherence, open_model, sparsity, stream
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


def test_a_pass_over_text_finds_the_same(inputs: Path) -> None:  # noqa: F811
    here, there = both(inputs / "dense")
    corpus = open_corpus(inputs / "texts")
    first, second = (sparsity.measure(m, corpus, 1_500, controls=("random_init",), config=SMALL) for m in (here, there))
    assert first.keys() == second.keys()
    # a gate within rounding of 0 may fall on either side
    assert np.abs(first["neurons"]["frequency"] - second["neurons"]["frequency"]).max() <= 2 / 1_500
    for name in ("layers", "sinks"):
        for column in first[name].select_dtypes("number"):
            np.testing.assert_allclose(second[name][column], first[name][column], rtol=2e-3, atol=2e-3)


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


@pytest.mark.parametrize("shape", [(32, 3_000), (64, 700)])
def test_a_coherence_scan_finds_the_same(shape: tuple[int, int]) -> None:
    columns = random_directions(*shape, seed=1).float()
    here, there = (coherence.measure(columns, neighbours=4, device=device) for device in ("cpu", DEVICE))
    assert there.mu == pytest.approx(here.mu, abs=1e-5)
    np.testing.assert_allclose(there.nearest, here.nearest, atol=1e-5)
    assert there.k_babel == here.k_babel and there.k_guaranteed == here.k_guaranteed
