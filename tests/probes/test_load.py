"""Measures of a load in closed form, and the accumulator against all choices gathered and counted at once."""

import numpy as np
import pytest
import torch
from sklearn.metrics import auc

from data.corpus import Corpus
from probes import LanguageModel, load, open_model, stream
from probes.routing_counts import RoutingCounts
from probes.stream import Observation, StreamConfig
from tests.probes.tiny import tiny_hf

READ = StreamConfig(n_tokens=600, tokens_per_document=60, window=32, batch_tokens=128)
E, K = 6, 2


@pytest.fixture(scope="module")
def routed(tokenizer: object) -> LanguageModel:
    return open_model(tiny_hf("olmoe", num_experts=E, num_experts_per_tok=K), tokenizer=tokenizer)


def test_known_loads() -> None:
    even, one, half = np.full(4, 5), np.array([7, 0, 0, 0]), np.array([1, 1, 0, 0])
    assert [load.load_entropy(x) for x in (even, one, half)] == pytest.approx([1, 0, 0.5])
    assert [load.effective_experts(x) for x in (even, one, half)] == pytest.approx([4, 1, 2])
    assert [load.gini(x) for x in (even, one, half)] == pytest.approx([0, 0.75, 0.5])
    assert [load.dead_share(x) for x in (even, one, half)] == [0, 0.75, 0.5]
    assert [load.busiest_share(x) for x in (even, one, half)] == pytest.approx([0.25, 1, 0.5])
    assert load.load_entropy(np.array([3])) == 0 and np.isnan(load.gini(np.zeros(4)))


def test_gini_is_twice_the_area_between_the_lorenz_curve_and_the_diagonal() -> None:
    x = np.random.default_rng(0).gamma(0.7, size=50)
    lorenz = np.concatenate([[0], np.cumsum(np.sort(x)) / x.sum()])
    assert load.gini(x) == pytest.approx(1 - 2 * auc(np.linspace(0, 1, 51), lorenz))


def test_a_tenth_of_64_experts_cannot_do_80_percent_when_a_token_uses_8() -> None:
    assert load.busiest_ceiling(64, 8) == 0.75
    assert load.busiest_ceiling(64, 1) == load.busiest_ceiling(128, 8) == 1.0
    assert load.busiest_ceiling(8, 2) == 0.5, "one expert of eight takes at most one of two slots"
    rows = np.zeros(64)
    rows[:6] = 100  # every token uses the six busiest and two of the others
    rows[6:] = 200 / 58
    assert load.busiest_share(rows) == pytest.approx(load.busiest_ceiling(64, 8))


def test_balance_loss_is_1_for_uniform_and_n_experts_for_collapse() -> None:
    assert load.balance_loss(np.full(8, 10), np.full(8, 0.125)) == pytest.approx(1)
    collapsed = np.eye(8)[3]
    assert load.balance_loss(collapsed, collapsed) == pytest.approx(8)


def test_uniform_loads_are_those_of_a_uniform_router() -> None:
    draws = load.uniform_loads(16, 4, 5_000, draws=400)
    np.testing.assert_allclose(draws.sum(axis=1), 4 * 5_000)
    rng = np.random.default_rng(1)
    chosen = np.argsort(rng.random((40, 2_000, 16)), axis=2)[:, :, :4]
    true = np.array([[load.gini(np.bincount(run.ravel(), minlength=16))] for run in chosen]).ravel()
    mine = np.array([load.gini(draw) for draw in load.uniform_loads(16, 4, 2_000, draws=400)])
    assert mine.mean() == pytest.approx(true.mean(), rel=0.1) and mine.std() == pytest.approx(true.std(), rel=0.35)


class Watch:
    """Keeps every choice, with what tells which tokens follow one another."""

    sites = ("expert_index", "expert_weight", "router_probabilities")

    def __init__(self, *halves: RoutingCounts) -> None:
        self.halves, self.calls = halves, 0
        self.index: dict[int, list[torch.Tensor]] = {}
        self.weight: dict[int, list[torch.Tensor]] = {}
        self.chances: dict[int, list[torch.Tensor]] = {}
        self.position: dict[int, list[torch.Tensor]] = {}

    def update(self, seen: Observation) -> None:
        kept = seen.group == 0
        for name, site in (("index", "expert_index"), ("weight", "expert_weight"), ("chances", "router_probabilities")):
            getattr(self, name).setdefault(seen.layer, []).append(seen.sites[site][kept])
        self.position.setdefault(seen.layer, []).append(seen.tokens.position[kept])
        if self.halves:
            self.halves[self.calls // 3 % 2].update(seen)
        self.calls += 1

    def state(self) -> dict[str, np.ndarray]:
        return {}


def test_counts_agree_with_all_choices_gathered(routed: LanguageModel, corpus: Corpus) -> None:
    counts, halves = RoutingCounts(routed), (RoutingCounts(routed), RoutingCounts(routed))
    watch = Watch(*halves)
    stream.run(routed, corpus, {"counts": counts, "watch": watch}, READ)  # type: ignore[dict-item]
    tables = counts.tables()
    for layer in range(3):
        index = torch.cat(watch.index[layer])
        found = tables.routing[tables.routing["layer"] == layer].set_index("measure")
        slots = np.bincount(index.flatten().numpy(), minlength=E)
        assert (counts.slots(layer) == slots).all() and slots.sum() == len(index) * K, "loads sum to T k"
        assert found["value"]["load_entropy"] == pytest.approx(load.load_entropy(slots))
        assert (found["low"] <= found["value"])["load_entropy"] and found["n_tokens"].eq(len(index)).all()
        weight = torch.zeros(E).index_add_(0, index.flatten(), torch.cat(watch.weight[layer]).flatten())
        of_layer = tables.load[tables.load["layer"] == layer]
        np.testing.assert_allclose(of_layer["weight_share"], (weight / weight.sum()).numpy(), rtol=1e-5)
        assert of_layer["slots"].sum() == len(index) * K and of_layer["share"].sum() == pytest.approx(1)
        chance = torch.cat(watch.chances[layer]).double()
        assert found["value"]["router_entropy"] == pytest.approx(float(torch.special.entr(chance).sum(1).mean()))
        mean = chance.mean(dim=0).numpy()
        assert found["value"]["balance_loss"] == pytest.approx(E * (slots / slots.sum() * mean).sum())
        both = [
            len(set(a) & set(b))
            for rows, places in zip(watch.index[layer], watch.position[layer], strict=True)
            for a, b, i, j in zip(rows[:-1].tolist(), rows[1:].tolist(), places[:-1], places[1:], strict=True)
            if j == i + 1
        ]
        assert found["value"]["repeat_rate"] == pytest.approx(np.mean(both) / K)
        assert found["value"]["drop_rate"] == 0
    halves[0].merge(halves[1])
    for name, table in tables.items():
        assert halves[0].tables()[name].equals(table)


def test_rows_of_coactivation_sum_to_k_minus_1(tokenizer: object, corpus: Corpus) -> None:
    model = open_model(tiny_hf("olmoe", num_experts=8, num_experts_per_tok=3), tokenizer=tokenizer)
    counts = RoutingCounts(model)
    stream.run(model, corpus, {"counts": counts}, READ)
    pairs = counts.tables().coactivation
    sums = pairs.groupby(["layer", "expert"])[["share", "expected"]].sum()
    np.testing.assert_allclose(sums["share"].dropna(), 2)
    np.testing.assert_allclose(sums["expected"], 2)
    assert (pairs["low"] <= pairs["share"] + 1e-12).all() and (pairs["share"] <= pairs["high"] + 1e-12).all()


def test_dropped_slots_are_counted_as_drops(routed: LanguageModel) -> None:
    counts = RoutingCounts(routed)
    index = torch.tensor([[0, 1], [2, -1], [3, 4], [-1, -1]])
    tokens = stream.TokenBatch(torch.zeros(1, 4).long(), None, (), torch.arange(4, 8), torch.zeros(4).long())
    sites = {"expert_index": index, "expert_weight": torch.ones(4, 2)}
    counts.update(Observation(0, sites, torch.zeros(4).long(), torch.ones(4), tokens))
    found = counts.tables().routing.set_index("measure")["value"]
    assert found["drop_rate"] == pytest.approx(3 / 8)
    assert found["dead_share"] == pytest.approx(1 / 6) and counts.slots(0).sum() == 5


def test_a_dense_model_routes_nothing(tiny: LanguageModel) -> None:
    assert all(frame.empty for frame in RoutingCounts(tiny).tables().values())


@pytest.mark.parametrize(("n_experts", "k"), [(2, 1), (4, 1), (16, 4)])
def test_uniform_loads_have_the_variance_of_counts(n_experts: int, k: int) -> None:
    """Each expert is drawn by T tokens with chance k / E: variance T k/E (1 - k/E)."""
    draws = load.uniform_loads(n_experts, k, 3_000, draws=20_000)
    p = k / n_experts
    assert draws.var() == pytest.approx(3_000 * p * (1 - p), rel=0.05)
