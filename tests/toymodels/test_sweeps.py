import sys

import numpy as np
import pytest
import torch

from toymodels import ToyConfig, sweep, train
from toymodels.sweeps import combinations

SMALL = ToyConfig(batch_size=64, steps=60)


def test_a_sweep_is_one_row_a_setting_and_seed() -> None:
    found = sweep({"feature_probability": [1.0, 0.1], "d_hidden": [1, 2, 3]}, base=SMALL, seeds=4)
    assert len(found.table) == 2 * 3 * 4
    assert found.table.groupby("setting")["best"].sum().eq(1).all()
    assert list(found.table.columns[:4]) == ["feature_probability", "d_hidden", "setting", "seed"]
    best = found.best()
    assert (best["loss"] == found.table.groupby("setting")["loss"].min()).all()
    for toy, row in zip(found.best_toys(), best.itertuples(), strict=True):
        assert toy.W.shape == (row.d_hidden, 5)
        assert toy.seed == row.seed and toy.config.feature_probability == row.feature_probability
        assert row.frobenius_squared == pytest.approx(float(toy.W.square().sum()), rel=1e-5)
        assert row.dimensions_per_feature == pytest.approx(row.d_hidden / row.frobenius_squared)


@pytest.mark.parametrize("trainer", ["torch", "numba"])
def test_a_toy_of_a_sweep_is_the_toy_trained_alone(trainer: str) -> None:
    grid = {"feature_probability": [1.0, 0.2], "importance": [1.0, 0.7], "learning_rate": [1e-3, 3e-3]}
    found = sweep(grid, base=SMALL, seeds=[3, 8], trainer=trainer)
    for config, toys in zip(found.settings, found.toys, strict=True):
        alone = train(config, seeds=[3, 8], engine=trainer, snapshots=0)
        assert torch.allclose(alone.W, toys.W, atol=2e-6)
        assert torch.allclose(alone.loss, toys.loss, rtol=1e-4)


def test_values_that_are_tuples_make_a_column_of_text() -> None:
    base = SMALL.model_copy(update={"n_features": 2})
    found = sweep({"importance": [1.0, (1.0, 0.1)]}, base=base, seeds=1)
    assert found.table["importance"].tolist() == ["1.0", "(1.0, 0.1)"]


def test_measure_adds_columns() -> None:
    found = sweep({"d_hidden": [1, 2]}, base=SMALL, seeds=2, measure=lambda toy: {"bias": float(toy.b.mean())})
    assert found.table["bias"].tolist() == pytest.approx([float(t[i].b.mean()) for t in found.toys for i in range(2)])


def test_numpy_values_are_taken() -> None:
    assert combinations({"feature_probability": np.array([0.5])}, SMALL)[0].feature_probability == 0.5


def test_progress_of_a_sweep_rises_to_the_whole() -> None:
    seen: list[float] = []
    sweep(
        {"d_hidden": [1, 2], "batch_size": [32, 64]},
        base=SMALL,
        seeds=2,
        progress=lambda d, t, note="": seen.append(d / t),
    )
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ({"d_hiden": [1]}, "no setting 'd_hiden'"),
        ({"d_hidden": []}, "no values for 'd_hidden'"),
        ({"d_hidden": [0]}, "greater than 0"),
    ],
)
def test_a_bad_grid_is_refused_in_one_sentence(grid: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sweep(grid, base=SMALL)


def test_an_engine_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="no engine 'slurm'"):
        sweep({"d_hidden": [1]}, base=SMALL, engine="slurm")


def test_a_missing_ray_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'sparsescope\[cluster\]'"):
        sweep({"d_hidden": [1, 2]}, base=SMALL, engine="ray")
