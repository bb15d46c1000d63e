import numpy as np
import pytest
import torch

from data import Cancelled
from toymodels import emergence
from toymodels.emergence import FOUR, EmergenceConfig, active, draw_inputs, start, train

SMALL = EmergenceConfig(d_in=8, d_hidden=16, n_classes=4, batch_size=16, steps=6, snapshots=3)


@pytest.mark.parametrize(
    ("law", "mean", "square"),
    [("uniform", 1 / 2, 1 / 3), ("relu_gaussian", 1 / np.sqrt(2 * np.pi), 1 / 2), ("gaussian", 0.0, 1.0)],
)
def test_inputs_have_the_moments_of_their_law(law, mean, square) -> None:
    x = draw_inputs(law, 100_000, 3, torch.Generator().manual_seed(0))
    assert float(x.mean()) == pytest.approx(mean, abs=0.01)
    assert float(x.square().mean()) == pytest.approx(square, abs=0.02)


def test_counts_against_a_network_whose_activations_are_known() -> None:
    """Units w x + b on x = -2, 1, 3: x is on for two of three, -x for one, x - 5 never, 1 always."""
    weights = [torch.tensor([[1.0], [-1.0], [1.0], [0.0]]), torch.tensor([0.0, 0.0, -5.0, 1.0])]
    nonzero, dead = active(weights, torch.tensor([[-2.0], [1.0], [3.0]]))
    assert nonzero == pytest.approx((2 + 1 + 0 + 3) / 12) and dead == 0.25


def test_before_training_half_of_the_units_are_on_for_symmetric_inputs() -> None:
    config = EmergenceConfig(inputs="gaussian", d_hidden=2_000)
    weights = start(config, torch.Generator().manual_seed(1))
    assert all(float(w.detach().abs().max()) <= w.shape[-1] ** -0.5 for w in weights[::2])
    x = draw_inputs("gaussian", 500, config.d_in, torch.Generator().manual_seed(2))
    assert active(weights, x)[0] == pytest.approx(0.5, abs=0.02)


def test_the_same_training_by_torch_nn() -> None:
    """Weights in nn.Linear, data drawn in the same order: the same loss at every snapshot."""
    config, generator = SMALL, torch.Generator().manual_seed(3)
    teacher = torch.randn(config.d_in, config.n_classes, generator=generator)
    first, second = torch.nn.Linear(config.d_in, config.d_hidden), torch.nn.Linear(config.d_hidden, config.n_classes)
    with torch.no_grad():
        begin = start(config, generator)
        for parameter, value in zip([*first.parameters(), *second.parameters()], begin, strict=True):
            parameter.copy_(value)
    draw_inputs(config.inputs, emergence.MEASURED, config.d_in, generator)
    network = torch.nn.Sequential(first, torch.nn.ReLU(), second)
    adam, losses = torch.optim.Adam(network.parameters(), lr=config.learning_rate), []
    for _ in range(config.steps + 1):
        x = torch.rand(config.batch_size, config.d_in, generator=generator)
        y = torch.randint(config.n_classes, (config.batch_size,), generator=generator)
        loss = torch.nn.functional.cross_entropy(network(x), y)
        losses.append(float(loss.detach()))
        adam.zero_grad()
        loss.backward()
        adam.step()
    frame = train(config, seed=3)
    assert teacher.shape == (8, 4) and frame["step"].tolist() == [0, 2, 4, 6]
    np.testing.assert_allclose(frame["loss"], [losses[s] for s in (0, 2, 4, 6)], rtol=1e-5)


def test_learnable_labels_are_learned_and_random_ones_are_not() -> None:
    small = {"d_in": 16, "n_classes": 4, "steps": 150, "snapshots": 1, "learning_rate": 5e-3}
    chance = np.log(4)
    for labels, fits in (("learnable", True), ("random", False)):
        loss = train(EmergenceConfig(labels=labels, **small))["loss"].iloc[-1]
        assert (loss < 0.6 * chance) if fits else (0.93 * chance < loss < 1.07 * chance)


def test_a_finite_set_with_random_labels_is_memorised() -> None:
    config = EmergenceConfig(n_samples=32, batch_size=32, n_classes=4, inputs="gaussian", learning_rate=1e-2)
    assert train(config)["loss"].iloc[-1] < 0.05 * np.log(4)


@pytest.mark.parametrize("seed", range(3))
def test_sparsity_emerges_with_noise_for_labels_and_not_with_learnable_ones(seed) -> None:
    noise = train(FOUR["uniform inputs, random labels"], seed=seed)["nonzero"]
    learned = train(FOUR["uniform inputs, learnable labels"], seed=seed)["nonzero"]
    assert noise.iloc[0] > 0.4 and learned.iloc[0] > 0.4
    assert noise.iloc[-1] < 0.06
    assert learned.iloc[-1] > 0.40


def test_tables_state_start_end_and_spread() -> None:
    settings = {"a": SMALL, "b": SMALL.model_copy(update={"labels": "learnable"})}
    made = emergence.run(settings, seeds=(4, 7))
    course, summary = made.emergence, made.emergence_summary.set_index("setting")
    assert course.groupby("setting")["seed"].unique().map(list).to_dict() == {"a": [4, 7], "b": [4, 7]}
    last = course.query("setting == 'b' and step == 6")["nonzero"]
    assert summary.loc["b", ["low", "high"]].tolist() == [last.min(), last.max()]
    assert summary.loc["b", "end"] == pytest.approx(last.mean()) and summary.loc["b", "n_seeds"] == 2
    assert summary.loc["a", "chance"] == pytest.approx(np.log(4))


def test_what_is_moved_is_moved_and_nothing_else() -> None:
    base = SMALL.model_copy(update={"steps": 3, "snapshots": 1})
    found = emergence.dependence({"n_classes": (2, 4), "n_samples": (16, None)}, base=base, seeds=1)
    assert len(found) == 16 and found.loc[found["varied"] == "n_samples", "value"].unique().tolist() == ["16", "fresh"]
    unmoved = found[((found["varied"] == "n_classes") & (found["value"] == "4")) | (found["value"] == "fresh")]
    assert (unmoved.groupby("setting")["end"].nunique() == 1).all()


def test_training_can_be_stopped_and_nothing_is_refused_in_silence() -> None:
    def stop(done: float, total: float, note: str = "") -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        emergence.run({"a": SMALL}, progress=stop)
    with pytest.raises(ValueError, match="at least one setting"):
        emergence.run({})
