import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal

from data import Cancelled, runs
from data.corpus import Corpus
from probes import LanguageModel, ladder, open_model, stream
from probes.budget import FeedForward, budget
from probes.stream import StreamConfig
from tests.probes.oracle import Everything
from tests.probes.tiny import tiny_hf

SMALL = StreamConfig(n_tokens=400, window=32, batch_tokens=128, shard_tokens=150)


def test_the_known_block_has_its_size() -> None:
    dense = FeedForward(d_model=4096, d_mlp=11008, matrices=2)
    assert dense.total_parameters == dense.active_parameters == dense.multiply_adds == 90_177_536
    assert dense.bytes(32) / 2**20 == 344.0 and dense.bytes(2) / 2**20 == 21.5
    assert FeedForward(d_model=4096, d_mlp=11008, bias=True).total_parameters == 90_177_536 + 11008 + 4096
    assert FeedForward(d_model=1, d_mlp=1, n_experts=64, k=8).combinations == 4_426_165_368
    assert FeedForward(d_model=1, d_mlp=1, n_experts=16, k=2).combinations == 120


def test_parameters_are_those_of_real_modules() -> None:
    """Counted on transformers' own blocks."""
    hf = tiny_hf("llama")
    mlp = sum(p.numel() for p in hf.base_model.layers[0].mlp.parameters())
    assert FeedForward(d_model=32, d_mlp=64, matrices=3).total_parameters == mlp
    routed = tiny_hf("olmoe", num_experts=6, num_experts_per_tok=2)
    mlp = sum(p.numel() for p in routed.base_model.layers[0].mlp.parameters())
    block = FeedForward(d_model=32, d_mlp=64, matrices=3, n_experts=6, k=2)
    assert block.total_parameters == mlp
    assert block.active_parameters == 2 * 3 * 32 * 64 + 32 * 6 and block.combinations == math.comb(6, 2)
    plain = tiny_hf("gpt_neox")
    mlp = sum(p.numel() for p in plain.base_model.layers[0].mlp.parameters())
    assert FeedForward(d_model=32, d_mlp=64, bias=True).total_parameters == mlp


def test_budget_rows_hold_all_widths() -> None:
    table = budget(FeedForward(), FeedForward(d_model=64, d_mlp=32, n_experts=8, k=2, n_shared=1)).set_index("block")
    row = table.loc["64 x 32, 2 of 8 experts + 1 shared"]
    assert row.parameters == 9 * 2 * 64 * 32 + 64 * 8 and row.active_parameters == 3 * 2 * 64 * 32 + 64 * 8
    assert row.mib_32 == 2 * row.mib_16 == 4 * row.mib_8 == 8 * row.mib_4 == 16 * row.mib_2
    assert row.combinations == "28" and row.active_share == pytest.approx(row.active_parameters / row.parameters)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"matrices": 4}, "2 .in, out. or 3"),
        ({"n_experts": 4, "k": 5}, "choose 1 <= k"),
        ({"n_shared": 1}, "need n_exp"),
    ],
)
def test_impossible_blocks_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FeedForward(**settings)


def test_distinct_sets_are_exact_until_full_and_near_after() -> None:
    sets = ladder.DistinctSets(1, 12, size=512)
    chosen = [c for k in range(6) for c in itertools.combinations(range(12), k)]
    sums = torch.stack([sets.weights[list(c)].sum() for c in chosen])
    sets.add(0, sums[:400].repeat(3))
    assert sets.count(0) == 400
    sets.add(0, sums)
    assert sets.count(0) == pytest.approx(len(chosen), rel=0.15) and len(chosen) == 1586
    halves = [ladder.DistinctSets(1, 12, size=512) for _ in range(2)]
    for half, part in zip(halves, (sums[::2], sums[1::2]), strict=True):
        half.add(0, part)
    halves[0].merge(halves[1])
    assert (halves[0].smallest == sets.smallest).all()


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_sets_seen_agree_with_sets_kept_in_memory(kind: str, corpus: Corpus, tokenizer: Any) -> None:
    hf = tiny_hf("olmoe", num_experts=6, num_experts_per_tok=2) if kind == "moe" else tiny_hf()
    model = open_model(hf, tokenizer=tokenizer)
    oracle, mine = Everything(), ladder.ActiveSets(model)
    oracle.sites = (*mine.sites, "ffn_output")  # type: ignore[assignment]
    stream.run(model, corpus, {"o": oracle, "m": mine}, SMALL)
    table = mine.tables().ladder.set_index("layer")
    for layer in range(model.n_layers):
        if kind == "moe":
            seen = {tuple(sorted(row)) for row in oracle.of(layer, "expert_index").tolist()}
            assert table.active_share[layer] == pytest.approx(1 / 3) and seen <= set(
                itertools.combinations(range(6), 2)
            )
            assert table.log2_possible[layer] == pytest.approx(math.log2(15))
        else:
            gate = oracle.of(layer, "gate") > 0
            seen = {tuple(row) for row in gate.tolist()}
            assert table.active_share[layer] == pytest.approx(float(gate.float().mean()))
        assert table.n_sets[layer] == len(seen)
    ids = torch.cat([s.tokens.flat(s.tokens.ids)[s.group == 0] for s in oracle.seen if s.layer == 0])
    assert table.n_sets[-1] == len(ids.unique()) and table.active_share[-1] == 1 / 300


def test_the_state_restores_the_whole(tiny: LanguageModel, corpus: Corpus) -> None:
    first, second = ladder.ActiveSets(tiny), ladder.ActiveSets(tiny)
    stream.run(tiny, corpus, {"m": first}, SMALL)
    second.restore({name: np.array(value) for name, value in first.state().items()})
    assert second.tables().ladder.equals(first.tables().ladder)


def test_every_rung_stands_beside_random_weights(tiny: LanguageModel, corpus: Corpus) -> None:
    found = ladder.measure([tiny], corpus, 400, config=SMALL).ladder
    assert set(found["condition"]) == {"real", "random_init"} and set(found["rung"]) == {"embedding", "dense"}
    assert (found["low"] <= found["active_share"] + 1e-12).all()


def test_a_stopped_ladder_goes_on_to_the_same_table(tiny: LanguageModel, corpus: Corpus, tmp_path: Path) -> None:
    whole = ladder.measure([tiny], corpus, 400, config=SMALL).ladder
    run = runs.create("cut", {"n": 400}, kind="test", root_folder=tmp_path)
    calls = 0

    def stop(done: float, total: float, note: str = "") -> None:
        nonlocal calls
        calls += 1
        if calls in (4, 7):
            raise Cancelled

    for _ in range(2):
        with pytest.raises(Cancelled):
            ladder.measure([tiny], corpus, 400, config=SMALL, run=run, progress=stop)
    assert "ladder_0_real" in run.tensor_names()
    resumed = ladder.measure([tiny], corpus, 400, config=SMALL, run=run, progress=stop).ladder
    assert_frame_equal(resumed, whole, check_exact=True)
    assert_frame_equal(run.table("ladder"), whole, check_exact=True)
