"""How far routing has settled, against loops over tokens."""

from typing import Any

import numpy as np
import pytest

from data.corpus import Corpus
from probes import open_model, stream
from probes.saturation import Routes, routes, saturation
from probes.stream import StreamConfig
from tests.probes.oracle import Everything
from tests.probes.tiny import tiny_hf

READ = StreamConfig(n_tokens=500, tokens_per_document=60, window=32, batch_tokens=128)


def drawn(n: int, n_experts: int, k: int, seed: int, p: np.ndarray | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    used = np.zeros((n, n_experts), dtype=bool)
    for row in used:
        row[rng.choice(n_experts, k, replace=False, p=p)] = True
    return used


def test_independent_choices_are_at_chance_and_the_same_ones_at_one() -> None:
    block = np.arange(4_000) % 64
    now, end = (Routes(drawn(4_000, 8, 2, seed), block) for seed in (0, 1))
    row = saturation({0: now}, {0: end}).iloc[0]
    assert row["chance"] == pytest.approx(2 / 8, abs=0.01)
    assert row["low"] < row["chance"] < row["high"] and row["value"] == pytest.approx(row["chance"], abs=0.02)
    row = saturation({0: end}, {0: end}).iloc[0]
    assert row["value"] == row["low"] == row["high"] == 1 and row["n_tokens"] == 4_000


def test_chance_knows_the_loads() -> None:
    """Independent routers that both prefer one expert agree far more than k / n_experts, and are still at chance."""
    p = np.array([0.65, *[0.05] * 7])
    now, end = (Routes(drawn(4_000, 8, 2, seed, p), np.arange(4_000) % 64) for seed in (0, 1))
    row = saturation({0: now}, {0: end}).iloc[0]
    assert row["chance"] > 0.4 and row["value"] == pytest.approx(row["chance"], abs=0.02)
    by_hand = np.mean([(a & b).sum() / 2 for a, b in zip(now.used, end.used, strict=True)])
    assert row["value"] == pytest.approx(by_hand)


def test_intervals_cover_chance_over_seeds() -> None:
    block, inside = np.arange(400) % 64, 0
    for seed in range(100):
        row = saturation(
            {0: Routes(drawn(400, 8, 2, 2 * seed), block)}, {0: Routes(drawn(400, 8, 2, 2 * seed + 1), block)}
        ).iloc[0]
        inside += row["low"] <= row["chance"] <= row["high"]
    assert inside >= 88


def test_routes_are_those_of_the_model(corpus: Corpus, tokenizer: Any) -> None:
    model = open_model(tiny_hf("olmoe", num_experts=6, num_experts_per_tok=2), tokenizer=tokenizer)
    oracle = Everything()
    oracle.sites = ("expert_index", "ffn_output")  # type: ignore[assignment]
    stream.run(model, corpus, {"o": oracle}, READ)
    found = routes(model, corpus, READ)
    assert list(found) == list(range(model.n_layers))
    for layer, (used, block) in found.items():
        wanted = [
            set(row)
            for seen in oracle.seen
            if seen.layer == layer
            for row in seen.sites["expert_index"][seen.tokens.position >= 4].tolist()
        ]
        assert [set(np.flatnonzero(row)) for row in used] == wanted and len(block) == len(wanted)
    other = {layer: Routes(used[:-1], block[:-1]) for layer, (used, block) in found.items()}
    with pytest.raises(ValueError, match="compare snapshots on the same text"):
        saturation(found, other)
