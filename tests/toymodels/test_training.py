from pathlib import Path

import numpy as np
import pytest
import torch

from data import Cancelled
from data.runs import create
from toymodels import ToyConfig, train
from toymodels.adamw import AdamW
from toymodels.checkpoint import load_toys
from toymodels.evaluation import evaluate
from toymodels.features import Source, dataset
from toymodels.gradients import Gradients, losses
from toymodels.history import snapshot_steps
from toymodels.stack import Stack, initial
from toymodels.training import train_stack

MODELS = [
    {"model": "relu"},
    {"model": "linear"},
    {"model": "hidden_relu"},
    {"model": "untied", "signed": True, "target": "absolute"},
]
FEATURES = [
    {"signed": True},
    {"features": "correlated", "n_features": 6, "group_size": 3},
    {"features": "anticorrelated", "n_features": 6, "feature_probability": 0.2},
    {"features": "hierarchical", "n_features": 6},
    {"features": "one_active", "signed": True},
    {"n_points": 70, "feature_probability": 0.4},
    {"n_features": 20, "d_hidden": 5, "importance": 0.7, "batch_size": 300},
    {"n_features": 1, "d_hidden": 1},
]


@pytest.mark.parametrize("settings", MODELS, ids=lambda s: s["model"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_gradients_by_hand_are_those_of_float64_autograd(settings: dict, dtype: torch.dtype, bound: float) -> None:
    config = ToyConfig(n_features=7, d_hidden=3, importance=0.8, feature_probability=0.4, **settings)
    stack = Stack([config] * 4, range(4), dtype=torch.float64)
    stack.params += 0.3 * torch.randn(stack.params.shape, generator=torch.Generator().manual_seed(0)).double()
    x = Source([config] * 4, range(4), 512, dtype=torch.float64).batch(0)
    importance = torch.as_tensor(config.importances).expand(4, -1)
    leaves = {name: value.clone().requires_grad_() for name, value in stack.views(stack.params).items()}
    expected_loss = losses(config, leaves, importance, x)
    expected = dict(zip(leaves, torch.autograd.grad(expected_loss.sum(), list(leaves.values())), strict=True))
    params = {name: value.to(dtype) for name, value in stack.views(stack.params).items()}
    by_hand = Gradients(config, params, importance.to(dtype), 512)
    loss = by_hand(x.to(dtype))
    assert torch.allclose(loss.double(), expected_loss, rtol=bound)
    for name, gradient in by_hand.grads.items():
        error = (gradient.double() - expected[name]).norm() / expected[name].norm()
        assert error <= bound, name


@pytest.mark.parametrize("settings", MODELS, ids=lambda s: s["model"])
def test_compiled_gradients_are_those_of_float64_autograd(settings: dict) -> None:
    from toymodels import kernel
    from toymodels.compiled import _fixed

    config = ToyConfig(n_features=7, d_hidden=3, importance=0.8, feature_probability=0.4, batch_size=512, **settings)
    stack = Stack([config], [0], dtype=torch.float64)
    stack.params += 0.3 * torch.randn(stack.params.shape, generator=torch.Generator().manual_seed(0)).double()
    x = Source([config], [0], 512, dtype=torch.float64).batch(0)
    leaves = {name: value.clone().requires_grad_() for name, value in stack.views(stack.params).items()}
    loss = losses(config, leaves, torch.as_tensor(config.importances), x)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss.sum(), list(leaves.values()))])
    _, flags, scale, *_ = _fixed(config, 0)
    work = tuple(np.zeros(rows * 512, np.float32) for rows in (3, 7, 3))
    found, params = np.zeros(len(expected), np.float32), stack.params[0].float().numpy()
    features = x[0].float().contiguous().numpy().ravel()
    measured = kernel.gradient(params, found, work, features, scale, flags, (3, 7), 512, 512)
    assert measured == pytest.approx(float(loss.detach()), rel=1e-5)
    assert np.linalg.norm(found - expected.numpy()) / expected.norm() <= 1e-5


def test_adamw_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    ours = start.clone()
    rates, decays = torch.tensor([[1e-3], [1e-2], [0.1]]).double(), torch.tensor([[0.0], [0.01], [0.3]]).double()
    state = AdamW(ours, torch.empty_like(ours), torch.zeros_like(ours), torch.zeros_like(ours), decays)
    theirs = [torch.nn.Parameter(row.clone()) for row in start]
    groups = [{"params": [t], "lr": float(rates[i]), "weight_decay": float(decays[i])} for i, t in enumerate(theirs)]
    reference = torch.optim.AdamW(groups)
    for t in range(1, 30):
        gradient = torch.randn(3, 8, generator=generator, dtype=torch.float64)
        state.grads.copy_(gradient)
        state.step(t, rates)
        for parameter, g in zip(theirs, gradient, strict=True):
            parameter.grad = g.clone()
        reference.step()
    assert torch.allclose(ours, torch.stack([t.detach() for t in theirs]), rtol=1e-10)


@pytest.mark.parametrize("settings", MODELS + FEATURES, ids=str)
def test_the_compiled_engine_follows_plain_torch(settings: dict) -> None:
    """Same random numbers, so the same path; rounding is all that may differ."""
    config = ToyConfig(**{"feature_probability": 0.3, "batch_size": 200, "steps": 80} | settings)
    plain = train(config, seeds=3, engine="torch", snapshots=[1, 40])
    fast = train(config, seeds=3, engine="numba", snapshots=[1, 40])
    assert torch.allclose(plain.W, fast.W, atol=2e-5) and torch.allclose(plain.b, fast.b, atol=2e-5)
    assert torch.allclose(plain.snapshots.W, fast.snapshots.W, atol=2e-5)
    assert torch.allclose(plain.snapshots.loss[1], fast.snapshots.loss[1], rtol=1e-4)
    assert torch.allclose(plain.loss, fast.loss, rtol=1e-3, atol=1e-9)
    assert not torch.allclose(plain.W, train(config, seeds=3, steps=1, snapshots=0).W, atol=1e-3)


@pytest.mark.parametrize("engine", ["torch", "numba"])
def test_an_instance_does_not_depend_on_what_is_stacked_beside_it(engine: str) -> None:
    config = ToyConfig(n_features=6, d_hidden=3, batch_size=128, steps=100)
    together = train(config, seeds=[4, 11, 0, 7], engine=engine, snapshots=0)
    for i, seed in enumerate(together.seeds):
        alone = train(config, seeds=[seed], engine=engine, snapshots=0)
        assert torch.allclose(alone.W[0], together.W[i], atol=1e-6)


def test_the_initial_scale_is_that_of_one_matrix() -> None:
    config = ToyConfig(n_features=40, d_hidden=10)
    weights = torch.stack([initial(config, seed)["W"] for seed in range(60)])
    assert float(weights.std()) == pytest.approx((2 / 50) ** 0.5, rel=0.02)
    assert torch.equal(Stack([config] * 9, range(9)).views(Stack([config] * 9, range(9)).params)["W"][5], weights[5])


@pytest.mark.parametrize("engine", ["torch", "numba"])
def test_work_that_was_stopped_goes_on_as_if_it_had_not_been(engine: str, tmp_path: Path) -> None:
    config = ToyConfig(batch_size=64, steps=3_000)
    whole = train(config, seeds=2, engine=engine)

    def stop(done: float, total: float, note: str = "") -> None:
        if done > total / 3:
            raise Cancelled

    run = create("toy", config, kind="toy", root_folder=tmp_path)
    with pytest.raises(Cancelled):
        train(config, seeds=2, engine=engine, progress=stop, run=run)
    first: list[float] = []
    resumed = train(config, seeds=2, engine=engine, run=run, progress=lambda d, t, note="": first.append(d / t))
    assert first[0] > 1 / 3
    assert torch.equal(resumed.W, whole.W) and torch.equal(resumed.snapshots.W, whole.snapshots.W)
    kept = load_toys(run, config)
    assert torch.equal(kept.W, whole.W) and kept.seeds == (0, 1)
    assert run.table("instances")["loss"].tolist() == pytest.approx(whole.loss.tolist())
    with pytest.raises(ValueError, match="other settings or seeds"):
        train(config, seeds=3, run=run)


def test_early_stopping_ends_flat_instances_alone() -> None:
    base = ToyConfig(batch_size=128, steps=8_000, early_stop=0.02, n_points=30, feature_probability=0.5)
    configs = [base, base.model_copy(update={"learning_rate": 1e-9})]
    toys = train_stack(configs, [0, 0])
    assert toys.steps[1] == 2_000  # nothing moves, so the second window is no better than the first
    assert toys.steps[0] > 2_000
    assert torch.equal(train_stack(configs[:1], [0]).W[0], toys.W[0])


def test_snapshots_stand_on_a_logarithmic_schedule() -> None:
    steps = snapshot_steps(10_000, 20)
    assert steps[0] == 0 and steps[-1] == 10_000
    assert (np.diff(steps) > 0).all() and np.ptp(np.log(steps[-6:-1]) - np.log(steps[-5:])) < 0.05
    config = ToyConfig(batch_size=32, steps=50)
    toys = train(config, seeds=2, snapshots=[10, 20])
    assert toys.snapshots.steps.tolist() == [10, 20]
    assert torch.equal(toys.snapshots.W[1], train(config.model_copy(update={"steps": 20}), seeds=2).W)
    every = train(config, seeds=2)
    assert torch.equal(every.snapshots.W[-1], every.W)
    assert torch.equal(every.snapshots.W[0, 1], initial(config, 1)["W"])


def test_progress_tells_the_share_and_the_rate() -> None:
    seen: list[tuple[float, float, str]] = []
    train(ToyConfig(batch_size=32, steps=400), seeds=3, progress=lambda *a: seen.append(a))
    assert seen[-1][0] == seen[-1][1] == 1_200
    assert "instance-steps/s" in seen[-1][2]


def test_the_best_seed_is_chosen_by_a_large_sample_and_nan_never_wins() -> None:
    toys = train(ToyConfig(batch_size=4, steps=30), seeds=6, snapshots=0)
    again = evaluate(toys.configs, toys.seeds, {"W": toys.W, "b": toys.b})
    assert toys.loss.tolist() == pytest.approx(again.tolist())
    assert toys.best().loss == pytest.approx(float(again.min()))
    toys.loss[toys.loss.argmin()] = float("nan")
    assert np.isfinite(toys.best().loss)


def test_the_large_sample_gives_the_closed_form_of_a_linear_model() -> None:
    """W = 0, b = 0: the loss is mean_i I_i E[x_i^2] = mean_i I_i p / 3, whatever the correlations."""
    one_draw = {"features": "anticorrelated", "feature_probability": 0.01}
    for more, bound in (({}, 1e-3), (one_draw, 1e-3), ({"features": "correlated"}, 2e-2)):
        config = ToyConfig(**{"n_features": 8, "importance": 0.7, "feature_probability": 0.03} | more)
        params = {"W": torch.zeros(1, 2, 8), "b": torch.zeros(1, 8)}
        exact = float((config.importances * config.probabilities / 3).mean())
        assert float(evaluate([config], [0], params)[0]) == pytest.approx(exact, rel=bound)


def test_a_finite_dataset_is_scored_on_its_points_and_fresh_on_the_law() -> None:
    config = ToyConfig(n_features=4, n_points=6, feature_probability=0.5, data_seed=None)
    params = {"W": torch.zeros(2, 2, 4), "b": torch.zeros(2, 4)}
    own = evaluate([config] * 2, [3, 4], params)
    expected = [float(dataset(config, seed).square().mean()) for seed in (3, 4)]
    assert own.tolist() == pytest.approx(expected)
    fresh = evaluate([config] * 2, [3, 4], params, fresh=True)
    assert fresh.tolist() == pytest.approx([0.5 / 3] * 2, rel=2e-3)


def test_any_activation_trains_by_autograd() -> None:
    config = ToyConfig(batch_size=64, steps=40, activation="gelu")
    named = train(config, seeds=2)
    given = train(ToyConfig(batch_size=64, steps=40), seeds=2, activation=torch.nn.functional.gelu)
    assert named.engine == "torch" and torch.equal(named.W, given.W)
    relu = train(ToyConfig(batch_size=64, steps=40), seeds=2, engine="torch")
    by_autograd = train(ToyConfig(batch_size=64, steps=40), seeds=2, activation=torch.relu)
    assert torch.allclose(relu.W, by_autograd.W, atol=1e-5)
    with pytest.raises(ValueError, match="engine='torch'"):
        train(config, engine="numba")


def test_no_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        train(ToyConfig(), seeds=0)
