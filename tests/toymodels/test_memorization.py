import numpy as np
import pytest
import torch
from pandas import DataFrame, concat

from tests.reproductions.record import record, tell
from toymodels.config import ToyConfig
from toymodels.geometry import feature_dimensionality
from toymodels.memorization import (
    DOUBLE_DESCENT,
    FEW_POINTS,
    _polar,
    _room,
    bump,
    double_descent,
    few_points,
    relative_loss,
)
from toymodels.results import Toy


def test_gaps_of_a_planted_polygon() -> None:
    angles = torch.tensor([10.0, 100.0, 350.0, 200.0])
    frame = _polar(torch.stack([angles.deg2rad().cos(), angles.deg2rad().sin()], 1) * 3)
    assert frame.gap.tolist() == pytest.approx([90, 100, 20, 150], abs=1e-3)
    assert frame.radius.tolist() == pytest.approx([3] * 4, rel=1e-5)
    assert _polar(torch.randn(50, 2)).gap.sum() == pytest.approx(360, abs=1e-2)


def test_room_is_feature_dimensionality() -> None:
    vectors = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    vectors[:, 3] = 0
    assert torch.allclose(
        torch.tensor(_room(vectors).dimensionality).float(), feature_dimensionality(vectors), atol=1e-5
    )


def test_relative_loss_of_the_zero_predictor_is_one_and_of_the_identity_zero() -> None:
    config = ToyConfig(n_features=4, d_hidden=4)
    x = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    assert relative_loss(Toy(config, 0, torch.zeros(4, 4), torch.zeros(4), 0.0), x) == pytest.approx(1)
    assert relative_loss(Toy(config, 0, torch.eye(4), torch.zeros(4), 0.0), x) == pytest.approx(0, abs=1e-10)


def test_a_bump_is_found_where_it_is_planted_and_not_in_a_monotone_curve() -> None:
    sizes = [10, 20, 40, 80]
    planted = bump(DataFrame({"n_points": sizes, "test_loss": [0.9, 0.95, 1.2, 0.8]}))
    assert planted == {"n_points": 40, "height": 1.2, "left": 0.9, "right": 0.8, "rise": pytest.approx(0.3)}
    for curve in ([1.0, 0.9, 0.8, 0.7], [0.1, 0.2, 0.3, 0.4]):
        assert bump(DataFrame({"n_points": sizes, "test_loss": curve}))["rise"] == 0


def test_few_points_spread_evenly_and_did_not_before_training() -> None:
    config = FEW_POINTS.model_copy(
        update={"n_features": 1000, "feature_probability": 0.01, "steps": 1500, "warmup": 75}
    )
    told: list[float] = []
    out = few_points(config, n_points=(4, 5), seeds=4, progress=lambda d, t, note="": told.append(d / t))
    best = out["runs"][out["runs"].best].set_index("n_points")
    assert (best.deviation < 15).all()
    assert (best.deviation < best.deviation_start).all()
    assert (best.train_loss < 0.01).all()
    five = out["points"][out["points"].n_points == 5]
    assert five.dimensionality.to_numpy() == pytest.approx(np.full(5, 0.4), abs=0.05)
    assert told[-1] == 1 and told == sorted(told)
    with pytest.raises(ValueError, match="d_hidden=2"):
        few_points(config.model_copy(update={"d_hidden": 3}))


def test_double_descent_tables_tell_memorised_points_from_learned_features() -> None:
    config = ToyConfig(
        n_features=40, d_hidden=4, feature_probability=0.05, n_points=10, unit_norm=True, steps=1500, learning_rate=0.01
    )
    out = double_descent(config, n_points=(4, 3000), seeds=2, n_test=4000)
    few, many = out["summary"].itertuples()
    assert few.train_loss < 0.02 and few.test_loss > 0.7
    assert many.train_loss > few.train_loss and many.test_loss < few.test_loss
    assert many.test_loss == pytest.approx(many.train_loss, abs=0.15)
    runs = out["runs"].groupby("n_points").mean(numeric_only=True)
    assert runs.point_dimensionality[4] > 10 * runs.point_dimensionality[3000]
    assert set(out["features"].groupby("n_points").size()) == {40}
    assert out["points"].groupby("n_points").size().to_dict() == {4: 4, 3000: 2000}


@pytest.mark.reproduction
def test_five_points_make_a_pentagon() -> None:
    """Gaps within 72 +- 4 degrees; points that share features lie closer, so several datasets are tried."""
    runs = few_points(n_points=(4, 5, 6, 8), seeds=5, progress=tell)["runs"]
    parts = [runs.assign(data_seed=0)]
    for data_seed in range(1, 6):
        config = FEW_POINTS.model_copy(update={"data_seed": data_seed})
        parts.append(few_points(config, n_points=(5,), seeds=3)["runs"].assign(data_seed=data_seed))
    frame = concat(parts)
    best = frame[frame.best & (frame.n_points == 5)]
    inside = (best.gap_min >= 68) & (best.gap_max <= 76)
    results = {"runs": frame.to_dict("records"), "datasets_within_72_4": int(inside.sum()), "datasets": len(best)}
    record("memorization_points", FEW_POINTS.model_dump(mode="json"), results)
    assert inside[best.data_seed == 0].all()
    assert inside.sum() >= 5


@pytest.mark.reproduction
def test_double_descent() -> None:
    """Published bump for n=300, m=8: .976 (T=20), 1.082 (T=800), .881 (T=20k)."""
    config = DOUBLE_DESCENT.model_copy(update={"steps": 4000, "warmup": 200})
    out = double_descent(config, n_points=(20, 100, 400, 800, 1600, 4000), seeds=2, progress=tell)
    found = bump(out["summary"])
    results = {"bump": found, "summary": out["summary"].to_dict("records"), "runs": out["runs"].to_dict("records")}
    record("memorization_double_descent", config.model_dump(mode="json"), results)
    assert found["rise"] > 3 * out["summary"].test_loss_sd.max()
    assert found["height"] > 1 > found["left"]
    assert 200 <= found["n_points"] <= 1600
