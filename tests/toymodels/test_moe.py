import pytest
import torch

from tests.reproductions.record import record, tell
from toymodels.config import ToyConfig
from toymodels.moe import MoeConfig, _State, run, tables, train
from toymodels.results import Toy

TOY = ToyConfig(n_features=12, d_hidden=3, feature_probability=0.2, batch_size=256, steps=40)


def masked(state: _State, x: torch.Tensor) -> torch.Tensor:
    """Every expert on every input, weights zero where not chosen: slow and obvious."""
    config = state.config
    logits = x @ state.gate.mT
    p = logits.softmax(-1)
    keep_ = torch.zeros_like(p).scatter(-1, (logits + state.bias[:, None]).topk(config.k, -1).indices, 1.0)
    g = p * keep_
    if config.weights == "renormalised":
        g = g / g.sum(-1, keepdim=True)
    elif config.weights == "straight_through":
        g = g / g.sum(-1, keepdim=True).detach()
    h = torch.einsum("semn,sbn->sbem", state.W, x)
    out = (torch.einsum("semn,sbem->sben", state.W, h) + state.b[:, None]).relu()
    return torch.einsum("sbe,sben->sbn", g, out)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("weights", ["renormalised", "softmax", "straight_through"])
def test_dispatch_equals_the_masked_sum_and_so_do_its_gradients(k: int, weights) -> None:
    router = "frozen" if (k, weights) == (1, "renormalised") else "trained"
    state = _State(MoeConfig(toy=TOY, n_experts=4, k=k, weights=weights, router=router), (0, 1))
    state.bias = torch.randn(2, 4, generator=torch.Generator().manual_seed(3))
    x = torch.rand(2, 50, 12, generator=torch.Generator().manual_seed(4))
    fast, load, _ = state.forward(x)
    slow = masked(state, x)
    assert torch.allclose(fast, slow, atol=1e-6)
    assert torch.allclose(load.sum(1), torch.ones(2))
    weight = torch.randn(fast.shape, generator=torch.Generator().manual_seed(5))
    ours = torch.autograd.grad((fast * weight).sum(), state.learning())
    theirs = torch.autograd.grad((slow * weight).sum(), state.learning())
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours, theirs, strict=True))
    if router == "trained":
        assert ours[-1].abs().max() > 0


def test_one_expert_is_the_dense_toy_model() -> None:
    state = _State(MoeConfig(toy=TOY, n_experts=1), (7,))
    x = torch.rand(1, 20, 12, generator=torch.Generator().manual_seed(4))
    dense = Toy(TOY, 7, state.W[0, 0].detach(), state.b[0, 0].detach(), 0.0).module()
    assert torch.allclose(state.forward(x)[0][0], dense(x[0]), atol=1e-6)


def test_straight_through_weights_are_one_and_learn() -> None:
    state = _State(MoeConfig(toy=TOY, n_experts=4, router="trained"), (0,))
    _, weights, _ = state.route(torch.rand(1, 30, 12))
    assert torch.equal(weights.detach(), torch.ones(1, 30, 1))
    assert torch.autograd.grad(weights.sum(), state.gate)[0].abs().max() > 0


def test_a_seed_does_not_depend_on_how_many_are_stacked() -> None:
    for router in ("trained", "random"):
        config = MoeConfig(toy=TOY, n_experts=3, router=router)
        alone, stacked = train(config, seeds=[1], samples=1024), train(config, seeds=[0, 1], samples=1024)
        assert torch.allclose(alone.W[0], stacked.W[1], atol=1e-5)
        assert torch.allclose(alone.loss[0], stacked.loss[1], rtol=1e-4)


def test_impossible_settings_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="exceed n_experts"):
        MoeConfig(n_experts=2, k=3)
    with pytest.raises(ValueError, match="set router='trained'"):
        MoeConfig(balance="auxiliary")
    with pytest.raises(ValueError, match="no gradient"):
        MoeConfig(router="trained", weights="renormalised")
    with pytest.raises(ValueError, match="ReLU-output"):
        MoeConfig(toy=ToyConfig(model="linear"))
    with pytest.raises(ValueError, match="fresh samples"):
        MoeConfig(toy=ToyConfig(n_points=5))


def test_a_bias_evens_the_load_even_where_the_router_is_frozen() -> None:
    # Inputs with nothing active all tie and move as one: at p = .4 they are two in a thousand.
    toy = TOY.model_copy(update={"steps": 300, "feature_probability": 0.4})
    plain = train(MoeConfig(toy=toy, n_experts=6), seeds=2, samples=4096)
    even = train(MoeConfig(toy=toy, n_experts=6, balance="bias", bias_rate=0.002), seeds=2, samples=4096)
    assert torch.equal(plain.gate, even.gate)
    assert (even.load.std(1) < plain.load.std(1) / 2).all()
    assert plain.bias.abs().max() == 0


def test_the_auxiliary_loss_evens_the_load() -> None:
    toy = TOY.model_copy(update={"steps": 300, "learning_rate": 0.01})
    config = MoeConfig(toy=toy, n_experts=6, router="trained", balance="auxiliary", balance_weight=0.0)
    plain = train(config, seeds=2, samples=4096)
    even = train(config.model_copy(update={"balance_weight": 0.03}), seeds=2, samples=4096)
    assert (even.load.max(1).values < plain.load.max(1).values).all()


def test_a_router_by_features_sends_each_feature_home() -> None:
    toy = TOY.model_copy(update={"feature_probability": 0.05})
    moes = train(MoeConfig(toy=toy, n_experts=3, router_start="features"), seeds=1, samples=8192)
    features = tables(moes)["features"]
    own, other = features[features.gate == 1].reach, features[features.gate == 0].reach
    assert own.min() > other.max()
    assert (features.groupby("feature").gate.sum() == 1).all()
    # Inputs with nothing active tie at logit 0 and go to one expert: its reach is diluted, never inflated.
    assert (moes.reach * moes.load[..., None]).sum(1).squeeze(0).numpy() == pytest.approx([0.05] * 12, abs=1e-3)


def test_features_per_dimension_fall_with_experts_but_not_under_a_random_router() -> None:
    toy = {"n_features": 20, "d_hidden": 2, "learning_rate": 0.01, "steps": 500, "batch_size": 512}
    base = MoeConfig(toy=ToyConfig(**toy, feature_probability=0.1))
    told: list[float] = []
    out = run(base, n_experts=(1, 4), seeds=2, progress=lambda done, total, note="": told.append(done / total))
    found = out["summary"].set_index(["router", "n_experts"]).features_per_dimension
    assert found["frozen", 4] < found["frozen", 1] - 0.4
    assert found["random", 4] > found["random", 1] - 0.2
    assert told[-1] == 1 and told == sorted(told)
    runs = out["runs"]
    assert runs[runs.best].groupby(["router", "n_experts"]).size().eq(1).all()
    worst = runs.groupby(["router", "n_experts"]).loss.transform("min")
    assert (runs.loss[runs.best] == worst[runs.best]).all()
    assert (out["experts"].groupby(["router", "n_experts", "seed"]).load.sum() - 1).abs().max() < 1e-5


BRISK = {"steps": 4000, "learning_rate": 2.5e-3, "schedule": "cosine"}
"""Ends where 10,000 steps at 1e-3 do, in less than half of them."""


@pytest.mark.reproduction
def test_features_per_dimension_of_the_paper() -> None:
    """Published for n=40, m=4, p=.1, top-1: 3.79, 3.22, 2.79, 2.29."""
    base = MoeConfig(toy=MoeConfig().toy.model_copy(update=BRISK))
    out = run(base, seeds=3, control=False, progress=tell)
    record("moe", base.model_dump(mode="json"), {name: out[name].to_dict("records") for name in ("summary", "runs")})
    found = out["summary"].of_best_seed.tolist()
    assert found == sorted(found, reverse=True)
    assert found == pytest.approx([3.79, 3.22, 2.79, 2.29], abs=0.25)


@pytest.mark.reproduction
def test_routers_at_eight_experts() -> None:
    """The fall needs a router that looks: chance leaves features per dimension near those of one expert."""
    base = MoeConfig(toy=MoeConfig().toy.model_copy(update=BRISK))
    results = {}
    for label, changed in {
        "random": {"router": "random", "weights": "renormalised"},
        "frozen_bias": {"balance": "bias"},
        "trained": {"router": "trained"},
        "trained_auxiliary": {"router": "trained", "balance": "auxiliary"},
        "trained_bias": {"router": "trained", "balance": "bias"},
    }.items():
        config = MoeConfig.model_validate(base.model_dump() | changed)
        out = run(config, seeds=2, n_experts=(8,), control=False, progress=tell)
        results[label] = out["runs"].to_dict("records")
    record("moe_routers", base.model_dump(mode="json"), results)
    assert min(row["features_per_dimension"] for row in results["random"]) > 3
    assert max(row["busiest"] for row in results["frozen_bias"]) < 0.2
    assert max(row["busiest"] for row in results["trained_auxiliary"]) < 0.2
