"""Routers of mixtures of experts read as dictionaries, on tiny models; expert means against a plain loop."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from probes import coherence, dictionaries, open_model, routed_supports
from probes.expert_means import Means, expert_means
from probes.stream import StreamConfig
from tests.probes.families import tiny_moe
from tests.probes.tiny import tiny_hf

CONFIG = StreamConfig(n_tokens=400, window=32)


@pytest.fixture(scope="module")
def model(tokenizer):
    return open_model(tiny_hf("olmoe", num_experts=8, num_experts_per_tok=2), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def tables(model, corpus):
    return routed_supports.measure(model, corpus, CONFIG, trials=50)


def test_each_layer_is_read_beside_a_random_router(model, tables) -> None:
    rows = tables["router_reading"].set_index(["layer", "router"])
    assert set(rows.index.get_level_values("layer")) == {0, 1, 2}
    for layer in range(3):
        report = coherence.measure(routed_supports.expert_rows(model, layer).t())
        row = rows.loc[(layer, "router")]
        assert row["mu"] == pytest.approx(report.mu) and row["k"] == 2
        assert row["certified"] == (report.mu * 3 < 1)
    assert set(tables["router_recovery"]["supports"]) == {"uniform", "given"}
    found = tables["router_overlap"]
    assert (found["chance"] == 0.25).all() and set(found["router"]) == {"router", "random router"}
    assert ((found["low"] <= found["mean"]) & (found["mean"] <= found["high"])).all()


def test_overlap_is_the_share_of_experts_two_tokens_have_in_common() -> None:
    g = torch.Generator().manual_seed(0)
    chosen = torch.rand(60, 8, generator=g).topk(2, dim=1).indices
    blocks = [SimpleNamespace(kind="moe", n_experts=8, k=2)]
    fake: Any = SimpleNamespace(n_experts=8, k=2, n_layers=1, blocks=blocks, d_model=5)
    supports = routed_supports.Supports(fake, [0])
    seen: Any = SimpleNamespace(
        layer=0, group=torch.zeros(60, dtype=torch.long), tokens=SimpleNamespace(block=torch.arange(60) % 7),
        sites={"expert_index": chosen, "router_input": torch.randn(60, 5, generator=g)},
    )  # fmt: skip
    supports.update(seen)
    slow = np.mean([len(set(a) & set(b)) / 2 for i, a in enumerate(chosen.tolist())
                    for j, b in enumerate(chosen.tolist()) if i != j])  # fmt: skip
    row = supports.overlap(0).set_index("router").loc["router"]
    assert row["mean"] == pytest.approx(slow) and row["ratio"] == pytest.approx(slow / 0.25)
    assert sorted(map(tuple, supports.selected(0).tolist())) == sorted(map(tuple, chosen.tolist()))
    same: Any = SimpleNamespace(**{**vars(seen), "sites": {**seen.sites, "expert_index": torch.tensor([[0, 1]] * 60)}})
    alike = routed_supports.Supports(fake, [0])
    alike.update(same)
    assert alike.overlap(0)["mean"].iloc[0] == pytest.approx(1)


def test_expert_means_are_means_of_what_experts_write(model, corpus) -> None:
    means, used = expert_means(model, corpus, 1, CONFIG)
    sums, counts = np.zeros((8, model.d_model)), np.zeros(8)

    class Slow(Means):
        def update(self, seen) -> None:
            if seen.layer == 1:
                for index, out, group in zip(
                    seen.sites["expert_index"], seen.sites["expert_output"], seen.group, strict=True
                ):
                    for e, vector in zip(index.tolist(), out, strict=True):
                        if group == 0:
                            sums[e] += vector.double().numpy()
                            counts[e] += 1

    from probes import stream

    stream.run(model, corpus, {"slow": Slow(model, 1)}, CONFIG, layers=[1])
    assert used == np.flatnonzero(counts).tolist()
    assert means == pytest.approx((sums[used] / counts[used, None]).T, abs=1e-9)
    with pytest.raises(ValueError, match="routed layers"):
        expert_means(model, corpus, 9, CONFIG)


def test_a_dense_model_has_no_router_to_read(tiny, corpus) -> None:
    with pytest.raises(ValueError, match="no mixture of experts"):
        routed_supports.measure(tiny, corpus, CONFIG)


@pytest.mark.parametrize(
    "kind", ["olmoe", "mixtral", "dbrx", "jetmoe", "switch_transformers", "gemma4_text", "nemotron_h", "gpt_oss"]
)
def test_routers_and_experts_of_a_family_are_dictionaries(kind) -> None:
    model = open_model(tiny_moe(kind))
    layer = routed_supports.routed_layers(model)[-1]
    block = model.blocks[layer]
    assert routed_supports.expert_rows(model, layer).shape == (block.n_experts, model.d_model)
    parts = [p for p in dictionaries.parts(model) if p.startswith(f"layer-{layer}-expert")]
    widths = {p: dictionaries.of_model(model, p).matrix.shape for p in parts}
    assert all(shape[0] == model.d_model for shape in widths.values())
    down = sum(shape[1] for p, shape in widths.items() if p.endswith("-down"))
    assert down == block.n_experts * block.d_mlp
