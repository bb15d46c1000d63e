import numpy as np
import pytest
import torch

from tests.reproductions.record import record, tell
from toymodels.adversarial import DEFAULT, measure, run, without_superposition
from toymodels.config import ToyConfig
from toymodels.features import sample
from toymodels.results import Toy


def test_without_superposition_an_attack_of_length_eps_costs_eps_squared() -> None:
    for p in (1.0, 0.1):
        config = ToyConfig(n_features=12, d_hidden=4, feature_probability=p)
        found = measure(without_superposition(config), samples=200)
        assert found["vulnerability"] == pytest.approx(found["epsilon"] ** 2, rel=1e-4)
        assert found["ratio"] == pytest.approx(1, rel=1e-6)
        assert found["ratio_random"] < 1


def test_an_antipodal_pair_is_twice_as_vulnerable() -> None:
    """G (1,-1)/sqrt 2 * eps = eps (sqrt 2, -sqrt 2); with one feature active at most the ReLU cuts one: 2 eps^2."""
    config = ToyConfig(n_features=2, d_hidden=1, features="one_active")
    toy = Toy(config, 0, torch.tensor([[1.0, -1.0]]), torch.zeros(2), 0.0)
    assert measure(toy, samples=300)["ratio"] == pytest.approx(2, rel=1e-3)


def test_the_worst_attack_is_found_by_trying_each_through_the_model() -> None:
    config = ToyConfig(n_features=6, d_hidden=3, feature_probability=0.4, importance=0.8)
    generator = torch.Generator().manual_seed(0)
    toy = Toy(config, 0, torch.randn(3, 6, generator=generator), torch.randn(6, generator=generator) / 5, 0.0)
    found = measure(toy, samples=40, strength=0.3)
    x = sample(config, 40, seed=0, step=2**31)
    epsilon = 0.3 * x.norm(dim=1).mean()
    weights = 0.8 ** torch.arange(6)

    def loss(point, at):
        return ((toy.module()(at) - point).square() * weights).sum()

    harms = []
    with torch.no_grad():
        for point in x:
            directions = [torch.nn.functional.normalize(toy.W.T @ toy.W[:, i], dim=0) for i in range(6)]
            tried = [loss(point, point + s * epsilon * d) for d in directions for s in (1, -1)]
            harms.append(max(tried) - loss(point, point))
    assert found["vulnerability"] == pytest.approx(float(torch.stack(harms).mean()), rel=1e-4)
    assert found["epsilon"] == pytest.approx(float(epsilon), rel=1e-5)


def test_the_reference_keeps_the_most_important_features_and_answers_the_others_by_their_mean() -> None:
    config = ToyConfig(n_features=3, d_hidden=1, importance=(1.0, 3.0, 2.0), feature_probability=0.5)
    reference = without_superposition(config)
    assert reference.W.tolist() == [[0, 1, 0]]
    assert reference.b.tolist() == pytest.approx([0.25, 0, 0.25], abs=0.01)


def test_vulnerability_grows_with_superposition_in_a_small_sweep() -> None:
    base = ToyConfig(n_features=30, d_hidden=4, steps=1200, learning_rate=0.01, schedule="cosine", batch_size=512)
    out = run(base, feature_probabilities=(1.0, 0.3, 0.05), seeds=2, samples=400)
    summary = out["summary"].set_index("feature_probability")
    assert summary.ratio[1.0] == pytest.approx(1, abs=0.1)
    assert summary.ratio[0.05] > summary.ratio[0.3] > summary.ratio[1.0]
    assert np.corrcoef(summary.features_per_dimension, summary.ratio)[0, 1] > 0.95
    assert out["runs"].best.sum() == 3


def test_models_without_a_derived_attack_are_refused() -> None:
    toy = without_superposition(ToyConfig(model="linear"))
    with pytest.raises(ValueError, match="model='relu'"):
        measure(toy)


@pytest.mark.reproduction
def test_vulnerability_tracks_one_over_dimensions_per_feature() -> None:
    """Published shape n=200, m=20: 1.0 without, about 2.5 at D* = 1/2, 19 at p = .05; correlation .996."""
    out = run(seeds=2, progress=tell)
    summary = out["summary"]
    found = float(np.corrcoef(summary.features_per_dimension, summary.ratio)[0, 1])
    results = {"correlation": found, "summary": summary.to_dict("records"), "runs": out["runs"].to_dict("records")}
    record("adversarial", DEFAULT.model_dump(mode="json"), results)
    assert found > 0.98
    ratio = summary.set_index("feature_probability").ratio
    assert ratio.loc[1.0] == pytest.approx(1, abs=0.05)
    assert ratio.iloc[-1] == pytest.approx(19, abs=3)
