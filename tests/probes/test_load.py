import numpy as np
import pytest
import torch

from data.corpus import Corpus
from probes import open_model, stream
from probes.load import Load, load_entropy
from probes.stream import Observation, StreamConfig
from tests.probes.tiny import tiny_hf

READ = StreamConfig(n_tokens=600, tokens_per_document=60, window=32, batch_tokens=128)


def test_entropy_of_known_loads() -> None:
    assert load_entropy(np.array([5, 5, 5, 5])) == pytest.approx(1)
    assert load_entropy(np.array([7, 0, 0])) == 0
    assert load_entropy(np.array([1, 1, 0, 0])) == pytest.approx(0.5)


def test_choices_are_counted_as_the_router_made_them(tokenizer: object, corpus: Corpus) -> None:
    """Against all choices gathered and counted at once; merged halves give the whole."""
    model = open_model(tiny_hf("olmoe", num_experts=6, num_experts_per_tok=2), tokenizer=tokenizer)
    load, halves = Load(model), (Load(model), Load(model))
    seen_all: dict[int, list[torch.Tensor]] = {}

    class Watch:
        sites = ("expert_index",)
        calls = 0

        def update(self, seen: Observation) -> None:
            kept = seen.group == 0
            seen_all.setdefault(seen.layer, []).append(seen.sites["expert_index"][kept])
            halves[Watch.calls // model.n_layers % 2].update(seen)
            Watch.calls += 1

        def state(self) -> dict[str, np.ndarray]:
            return {}

    stream.run(model, corpus, {"load": load, "watch": Watch()}, READ)  # type: ignore[dict-item]
    table = load.tables().layers.set_index("layer")
    assert list(table.index) == [0, 1, 2]
    for layer, parts in seen_all.items():
        counts = torch.bincount(torch.cat(parts).flatten(), minlength=6).numpy()
        assert table["value"][layer] == pytest.approx(load_entropy(counts))
        assert table["low"][layer] < table["value"][layer] < table["high"][layer]
        assert table["n_tokens"][layer] == sum(map(len, parts))
    halves[0].merge(halves[1])
    assert halves[0].tables().layers.equals(load.tables().layers)


def test_a_dense_model_has_no_load(tokenizer: object, corpus: Corpus) -> None:
    model = open_model(tiny_hf(), tokenizer=tokenizer)
    load = Load(model)
    assert len(load.tables().layers) == 0
