"""Known values of trained toys, measured again: `pytest -m reproduction tests/reproductions/test_toy_training.py`.

Each test writes what it measured, with provenance, to `toy_<name>.json` beside this file, and then judges it.
"""

import numpy as np
import pytest
import torch

from tests.reproductions.record import record
from toymodels import ToyConfig, train
from toymodels.training import train_stack

pytestmark = pytest.mark.reproduction


def gaps(W: torch.Tensor) -> torch.Tensor:
    angles = torch.atan2(W[1], W[0]).sort().values
    return torch.cat([angles.diff(), angles[:1] - angles[-1:] + 2 * np.pi])


def test_dense_features_reach_the_exact_loss() -> None:
    """n=20, m=5, I=.7^i, p=1: loss (.7^5 - .7^20) / .3 / 240 and W^T W = I on the five most important."""
    config = ToyConfig(n_features=20, d_hidden=5, importance=0.7, feature_probability=1.0)
    best = train(config, seeds=10, snapshots=0).best()
    exact = (0.7**5 - 0.7**20) / 0.3 / 240
    wanted = torch.diag(torch.tensor([1.0] * 5 + [0.0] * 15))
    deviation = float((best.W.T @ best.W - wanted).abs().max())
    measured = {"loss": best.loss, "exact": exact, "ratio": best.loss / exact, "largest_deviation_of_gram": deviation}
    record("toy_basic_dense", config.model_dump(mode="json"), measured)
    assert best.loss == pytest.approx(exact, rel=1e-3)
    assert deviation <= 0.01


def test_best_of_ten_is_a_pentagon_six_times_of_six() -> None:
    """n=5, m=2, p=.05: cos .309, D_i .400, b -.246, norm 1.135; each averaged over the five features.

    The +-.005 of the cosine holds for the mean over the five gaps, which sum to a full turn;
    single gaps are shaken by the last batches: 0.3048 to 0.3147 over the six sets (`cosine_range`), held to +-.02.
    """
    config = ToyConfig(n_features=5, d_hidden=2, feature_probability=0.05)
    rows = []
    for first in range(0, 60, 10):
        best = train(config, seeds=range(first, first + 10), snapshots=0).best()
        norms = best.W.norm(dim=0)
        D = norms.square() / ((best.W / norms).T @ best.W).square().sum(1)
        cosines = gaps(best.W).cos()
        rows.append(
            {
                "seed": best.seed,
                "loss": best.loss,
                "cosine": float(cosines.mean()),
                "cosine_range": [float(cosines.min()), float(cosines.max())],
                "cosines": cosines.tolist(),
                "dimensionality_range": [float(D.min()), float(D.max())],
                "bias_range": [float(best.b.min()), float(best.b.max())],
                "norm_range": [float(norms.min()), float(norms.max())],
                "dimensionality": float(D.mean()),
                "bias": float(best.b.mean()),
                "norm": float(norms.mean()),
            }
        )
    record("toy_pentagon", config.model_dump(mode="json"), {"best_of_ten": rows})
    for row in rows:
        assert row["cosine"] == pytest.approx(0.309, abs=0.005)
        assert row["cosine_range"] == pytest.approx([0.309, 0.309], abs=0.02)
        assert row["dimensionality"] == pytest.approx(0.4, abs=0.005)
        assert row["bias"] == pytest.approx(-0.246, abs=0.01)
        assert row["norm"] == pytest.approx(1.135, abs=0.01)


@pytest.mark.parametrize(
    ("n", "norm", "bias", "seeds"), [(4, 1.0, 0.0, 4), (5, 1.17046, -0.28230, 4), (6, 1.32053, -0.61814, 40)]
)
def test_one_active_feature_gives_the_exact_polygon(n: int, norm: float, bias: float, seeds: int) -> None:
    """Exact optima of arXiv 2310.06301, to 1e-4 for every feature: best of many seeds, then a large batch."""
    config = ToyConfig(n_features=n, features="one_active", schedule="cosine", learning_rate=3e-3, weight_decay=0)
    found = train(config, seeds=seeds, snapshots=0).best()
    precise = config.model_copy(update={"batch_size": 262_144, "steps": 30_000})
    best = train(precise, seeds=[found.seed], snapshots=0).best()
    norms = best.W.norm(dim=0)
    measured = {
        "norm": float(norms.mean()),
        "bias": float(best.b.mean()),
        "norms": norms.tolist(),
        "biases": best.b.tolist(),
        "largest_gap_error": float((gaps(best.W) - 2 * np.pi / n).abs().max()),
        "loss": best.loss,
        "seed": best.seed,
    }
    record(f"toy_polygon_{n}", precise.model_dump(mode="json"), measured)
    assert measured["norms"] == pytest.approx([norm] * n, abs=1e-4)
    assert measured["biases"] == pytest.approx([bias] * n, abs=1e-4)
    assert measured["largest_gap_error"] < 1e-4


def test_a_privileged_basis_represents_more_features_as_they_get_sparser() -> None:
    """Hidden ReLU, n=10, m=5, I=.75^i, best of 200: 5, 5, 5, 6, 7, 8, 10 features; monosemantic for p >= .5."""
    probabilities = (1.0, 0.75, 0.5, 0.3, 0.15, 0.06, 0.03)
    base = ToyConfig(n_features=10, d_hidden=5, importance=0.75, model="hidden_relu")
    rows = []
    for p in probabilities:
        best = train(base.model_copy(update={"feature_probability": p}), seeds=200, snapshots=0).best()
        weights = best.W.abs()
        norms = best.W.norm(dim=0)
        rows.append(
            {
                "feature_probability": p,
                "represented": int((norms > 0.5).sum()),
                "norms": norms.tolist(),
                "features_per_neuron": (weights >= 0.2 * weights.amax(1, keepdim=True)).sum(1).tolist(),
                "loss": best.loss,
                "seed": best.seed,
            }
        )
    record("toy_privileged_basis", {**base.model_dump(mode="json"), "seeds": 200}, {"rows": rows})
    assert [row["represented"] for row in rows] == [5, 5, 5, 6, 7, 8, 10]
    assert all(row["features_per_neuron"] == [1] * 5 for row in rows[:3])


def test_computing_the_absolute_value_turns_neurons_polysemantic() -> None:
    """abs(x), n=100, m=40, I=.8^i: features a neuron rise steadily as p falls from 1 to .001.

    The published 1.5, 6.6, 8.1, 23 come without the rule by which a feature counts, and the numbers depend on it, so
    all rules are kept: |W| of at least .05, .1 or .2 of the neuron's largest, and |W| of at least .1.  The rise holds
    under each.  More than 20 at p=.001 does not: counting from .2 of the largest, which was the rule chosen before
    measuring, the best of three seeds had 18.3.
    """
    probabilities = (1.0, 0.1, 0.01, 0.001)
    base = ToyConfig(n_features=100, d_hidden=40, importance=0.8, model="untied", signed=True, target="absolute")
    configs = [base.model_copy(update={"feature_probability": p}) for p in probabilities for _ in range(3)]
    toys = train_stack(configs, [0, 1, 2] * 4, snapshots=0)
    rows = []
    for i, p in enumerate(probabilities):
        stack = toys.part(slice(3 * i, 3 * i + 3))
        best = stack.best()
        each = [_features_per_neuron(stack[k].W) for k in range(3)]
        counts = _features_per_neuron(best.W)
        rows.append({"feature_probability": p, "best": counts, "each_seed": each, "loss": best.loss, "seed": best.seed})
    record("toy_absolute_value", {**base.model_dump(mode="json"), "seeds": 3}, {"rows": rows})
    for rule in rows[0]["best"]:
        means = [row["best"][rule] for row in rows]
        assert means == sorted(means), rule
        assert means[0] <= 2
        assert means[-1] > 15


def _features_per_neuron(W: torch.Tensor) -> dict[str, float]:
    weights = W.abs()
    largest = weights.amax(1, keepdim=True)
    alive = largest[:, 0] > 0.1 * weights.max()
    cut = {f"share {s}": s * largest for s in (0.05, 0.1, 0.2)} | {"absolute 0.1": torch.full_like(largest, 0.1)}
    return {rule: float((weights >= least).sum(1)[alive].double().mean()) for rule, least in cut.items()}


def test_six_neurons_compute_three_absolute_values() -> None:
    """n=3, m=6, dense: |x| = relu(x) + relu(-x) is exact; the loss falls below 2e-6."""
    config = ToyConfig(
        n_features=3, d_hidden=6, feature_probability=1, model="untied", signed=True, target="absolute", weight_decay=0
    )
    best = train(config.model_copy(update={"schedule": "cosine", "learning_rate": 3e-3}), seeds=10, snapshots=0).best()
    record("toy_absolute_value_small", config.model_dump(mode="json"), {"loss": best.loss, "seed": best.seed})
    assert best.loss < 2e-6
