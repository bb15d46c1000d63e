import numpy as np
import pytest
import torch
from scipy import stats

from toymodels import ToyConfig
from toymodels.features import Source, dataset, sample, stratified

MANY = 1 << 17


@pytest.mark.parametrize("p", [1.0, 0.3, 0.02])
@pytest.mark.parametrize("signed", [False, True])
def test_independent_features_follow_the_published_law(p: float, signed: bool) -> None:
    """Zero with probability 1 - p, else uniform: the two-draw definition, recovered from one draw."""
    x = sample(ToyConfig(n_features=3, feature_probability=p, signed=signed), MANY, seed=3).numpy()
    active = x != 0
    bound = 4.5 * np.sqrt(p * (1 - p) / MANY)
    assert np.abs(active.mean(0) - p).max() <= bound + 1e-6
    low, width = (-1, 2) if signed else (0, 1)
    for i in range(3):
        assert stats.kstest(x[active[:, i], i], "uniform", args=(low, width)).pvalue > 1e-4


def test_each_feature_has_its_own_probability() -> None:
    p = (1.0, 0.5, 0.1, 0.0)
    x = sample(ToyConfig(n_features=4, feature_probability=p), MANY)
    assert (x != 0).float().mean(0).tolist() == pytest.approx(p, abs=0.006)


def test_features_instances_and_steps_are_independent() -> None:
    config = ToyConfig(n_features=4, feature_probability=0.3)
    source = Source([config] * 3, [0, 1, 2], MANY // 8)
    rows = torch.cat([source.batch(step).clone().flatten(0, 1) for step in (0, 1, 511, 512)])
    for values in (rows, (rows != 0).float()):
        correlation = torch.corrcoef(values) - torch.eye(len(rows))
        assert correlation.abs().max() < 5 / np.sqrt(MANY // 8)


def test_correlated_features_share_the_coin_and_not_the_value() -> None:
    config = ToyConfig(n_features=6, features="correlated", group_size=3, feature_probability=0.2)
    x = sample(config, MANY)
    active = (x != 0).view(-1, 2, 3)
    assert (active.any(2) == active.all(2)).float().mean() > 0.999_99  # a value itself may be exactly 0
    assert active[:, :, 0].float().mean(0).tolist() == pytest.approx([0.2, 0.2], abs=0.006)
    both = (active.any(2).float() - 0.2).prod(1).mean()
    assert abs(both) < 4.5 * 0.16 / np.sqrt(MANY)
    on = x[active[:, 0, 0], :2].numpy()
    assert abs(np.corrcoef(on.T)[0, 1]) < 4.5 / np.sqrt(len(on))
    assert stats.kstest(on[:, 0], "uniform").pvalue > 1e-4


@pytest.mark.parametrize("signed", [False, True])
def test_anticorrelated_features_exclude_each_other(signed: bool) -> None:
    p = (0.1, 0.3, 0.25, 0.25)
    config = ToyConfig(n_features=4, features="anticorrelated", feature_probability=p, signed=signed)
    x = sample(config, MANY)
    active = (x != 0).view(-1, 2, 2)
    assert active.sum(2).max() == 1
    assert (x != 0).float().mean(0).tolist() == pytest.approx(p, abs=0.006)
    values = x[x[:, 1] != 0, 1].numpy()
    assert stats.kstest(values, "uniform", args=(-1, 2) if signed else (0, 1)).pvalue > 1e-4


def test_one_active_means_exactly_one() -> None:
    x = sample(ToyConfig(n_features=7, features="one_active"), MANY)
    counts = (x != 0).sum(1)
    assert counts.max() == 1
    assert (counts == 1).float().mean() > 0.999_9
    assert (x != 0).float().mean(0).tolist() == pytest.approx([1 / 7] * 7, abs=0.005)


def test_hierarchical_children_need_their_parent() -> None:
    config = ToyConfig(
        n_features=6, features="hierarchical", group_size=3, feature_probability=0.4, child_probability=0.25
    )
    active = (sample(config, MANY) != 0).view(-1, 2, 3)
    parent, children = active[:, :, :1], active[:, :, 1:]
    assert not (children & ~parent).any()
    assert parent.float().mean() == pytest.approx(0.4, abs=0.006)
    assert children[parent.expand_as(children)].float().mean() == pytest.approx(0.25, abs=0.006)
    siblings = children[:, 0][parent[:, 0, 0]].float()
    assert abs(torch.corrcoef(siblings.T)[0, 1]) < 4.5 / np.sqrt(len(siblings))


def test_a_stratified_sample_hits_every_slice_once() -> None:
    x = stratified(ToyConfig(n_features=3, feature_probability=1.0), 4_096)
    slices = torch.floor((1 - x) * 4_096).clamp(0, 4_095).long()
    for row in slices:
        assert torch.bincount(row, minlength=4_096).max() <= 2  # float32 may round a value into the next slice
    active = (stratified(ToyConfig(n_features=50, feature_probability=0.01), 10_000) != 0).sum(1)
    assert (active - 100).abs().max() <= 1


def test_a_stratified_sample_has_the_law_of_a_random_one() -> None:
    config = ToyConfig(n_features=6, features="anticorrelated", group_size=3, feature_probability=0.2)
    x = stratified(config, MANY)
    assert x.mean(1).tolist() == pytest.approx([0.1] * 6, abs=1e-3)
    assert ((x != 0).view(2, 3, -1).sum(1)).max() == 1


def test_finite_datasets_are_drawn_once_and_can_have_unit_norm() -> None:
    config = ToyConfig(n_features=30, feature_probability=0.3, n_points=12, unit_norm=True)
    points = dataset(config, 0)
    assert points.shape == (12, 30)
    assert points.norm(dim=1).tolist() == pytest.approx([1.0] * 12)
    assert torch.equal(points, dataset(config, 5))  # data_seed is set: all instances share them
    own = config.model_copy(update={"data_seed": None})
    assert not torch.equal(dataset(own, 5), dataset(own, 6))
    with pytest.raises(ValueError, match="n_points"):
        dataset(ToyConfig(), 0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"feature_probability": (0.1, 0.2)}, "2 values for 5 features"),
        ({"importance": (1.0,) * 4}, "4 values for 5 features"),
        ({"features": "correlated"}, "do not divide 5 features"),
        ({"features": "anticorrelated", "n_features": 4, "feature_probability": 0.7}, "sum to at most 1"),
        ({"features": "correlated", "n_features": 2, "feature_probability": (0.1, 0.2)}, "share one"),
        ({"unit_norm": True}, "n_points"),
        ({"feature_probability": 1.5}, "give a number from 0 to 1"),
        ({"n_feature": 3}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_sentence(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ToyConfig(**settings)


def test_importance_is_a_ratio_or_one_value_a_feature() -> None:
    assert ToyConfig(n_features=3, importance=0.7).importances.tolist() == pytest.approx([1, 0.7, 0.49])
    assert ToyConfig(n_features=2, importance=(1.0, 0.0)).importances.tolist() == [1, 0]


@pytest.mark.parametrize("name", ["feature_probability", "importance"])
@pytest.mark.parametrize("value", ["abc", -1, None, (0.1, -0.1, 0.1, 0.1, 0.1), float("nan")])
def test_a_bad_number_or_tuple_is_one_complaint_without_the_names_of_types(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{name}\n  Value error, give a .* for each feature, not ") as caught:
        ToyConfig.model_validate({name: value})
    assert str(caught.value).startswith("1 validation error")
    assert "constrained" not in str(caught.value) and "tuple[" not in str(caught.value)
