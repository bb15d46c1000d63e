import pytest
import torch

from tests.reproductions.record import record, tell
from toymodels.config import ToyConfig
from toymodels.dictionary import (
    TOY,
    DictionaryConfig,
    detection,
    mean_correlation,
    mean_max_cosine,
    run,
    score,
    train,
)
from toymodels.features import sample
from toymodels.results import Toy
from toymodels.training import train as train_toys

SQUARE = Toy(
    ToyConfig(n_features=4, d_hidden=2, feature_probability=0.1),
    0,
    torch.tensor([[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]]),
    torch.zeros(4),
    0.0,
)


CUBE = Toy(ToyConfig(n_features=3, d_hidden=3, features="one_active"), 0, torch.eye(3), torch.zeros(3), 0.0)


def random(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_matching_agrees_with_sae_lens() -> None:
    from sae_lens.synthetic.evals import compute_classification_metrics, mean_correlation_coefficient

    truth, decoder = random(6, 4, 0), random(9, 4, 1)
    assert mean_correlation(truth, decoder) == pytest.approx(mean_correlation_coefficient(truth, decoder), abs=1e-6)
    active, fires = random(200, 6, 2) > 0.5, random(200, 6, 3) > 0.2
    precision, recall, f1 = detection(fires, active)
    theirs = compute_classification_metrics(fires.float(), active.float(), torch.eye(6), torch.eye(6))
    assert float(precision.mean()) == pytest.approx(theirs.precision, abs=1e-6)
    assert float(recall.mean()) == pytest.approx(theirs.recall, abs=1e-6)
    assert float(f1.mean()) == pytest.approx(theirs.f1_score, abs=1e-6)


def test_cosines_of_planted_dictionaries() -> None:
    truth = random(8, 5, 0)
    scaled = truth[torch.randperm(8)] * 3
    assert mean_max_cosine(truth, scaled) == pytest.approx(1, abs=1e-6)
    assert mean_correlation(truth, scaled) == pytest.approx(1, abs=1e-6)
    assert mean_max_cosine(truth, -scaled) < 0.9
    assert mean_max_cosine(truth, random(8, 5, 1)) < 0.9
    doubled = torch.cat([truth[:4], truth[:4]])
    assert mean_correlation(truth, doubled) < 1
    assert detection(torch.zeros(5, 1, dtype=torch.bool), torch.ones(5, 1, dtype=torch.bool))[2].item() == 0


def test_a_perfect_autoencoder_scores_perfectly_and_a_dead_latent_is_counted() -> None:
    config = DictionaryConfig(steps=1, d_sae=6)
    _, sae = train(SQUARE, config)
    with torch.no_grad():
        sae.W_dec.copy_(torch.cat([SQUARE.W.T, torch.tensor([[1.0, 0.0], [0.6, 0.8]])]))
        sae.W_enc.copy_(sae.W_dec.T)
        sae.b_enc.copy_(torch.tensor([0.0, 0, 0, 0, -99, -99]))
        sae.b_dec.zero_()
    x = sample(SQUARE.config, 4000, seed=0)
    x = x[(x != 0).sum(1) == 1]
    numbers, features = score(SQUARE, sae, x, torch.tensor([True] * 4))
    assert (numbers["mean_max_cosine"], numbers["f1"], numbers["dead_latents"]) == pytest.approx((1, 1, 2))
    assert numbers["fvu"] == pytest.approx(0, abs=1e-9) and numbers["l0"] == numbers["l0_true"] == 1
    assert features.latent.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("architecture", ["standard", "topk", "batchtopk", "jumprelu"])
def test_every_architecture_beats_its_own_start_on_orthogonal_features(architecture) -> None:
    config = DictionaryConfig(architecture=architecture, steps=300, batch_size=256, learning_rate=0.01, k=1)
    told: list[float] = []
    out = run(CUBE, config, seeds=2, samples=4096, progress=lambda done, total, note="": told.append(done / total))
    best = out["runs"][out["runs"].best].iloc[0]
    assert best.mean_max_cosine > max(0.95, best.mean_max_cosine_start)
    assert best.loss == out["runs"].loss.min()
    assert len(out["features"]) == best.n_represented == 3
    assert told[-1] == 1 and told == sorted(told)


def test_the_start_depends_on_the_seed_and_the_global_generator_is_left_alone() -> None:
    config = DictionaryConfig(steps=2, batch_size=32)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (train(SQUARE, config, seed=s)[0] for s in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_toy_without_features_and_impossible_k_are_refused() -> None:
    empty = Toy(SQUARE.config, 0, torch.zeros(2, 4), torch.zeros(4), 0.0)
    with pytest.raises(ValueError, match="nothing to find"):
        run(empty, DictionaryConfig(steps=1))
    with pytest.raises(ValueError, match="choose k <= d_sae"):
        train(SQUARE, DictionaryConfig(architecture="topk", k=5, steps=1))


@pytest.mark.reproduction
def test_twenty_features_in_ten_dimensions_are_found() -> None:
    """Known: mean max cosine .9995 in 3 of 5 seeds, others .907 and .969: best of several is needed."""
    toy = train_toys(TOY, seeds=5, snapshots=0).best()
    results = {}
    for label, config in {
        "l1_0.03": DictionaryConfig(sparsity=0.03),
        "l1_0.1": DictionaryConfig(),
        "l1_0.3": DictionaryConfig(sparsity=0.3),
        "topk_2": DictionaryConfig(architecture="topk"),
    }.items():
        out = run(toy, config, seeds=5 if label == "l1_0.1" else 3, progress=tell)
        results[label] = {name: out[name].to_dict("records") for name in ("summary", "runs")}
    record("dictionary", DictionaryConfig().model_dump(mode="json"), {"toy": TOY.model_dump(), **results})
    best = results["l1_0.1"]["summary"][0]
    assert best["best_mean_max_cosine"] >= 0.9995
    assert best["best_dead_latents"] == 0
    assert best["mean_max_cosine_start"] < 0.7
