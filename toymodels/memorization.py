"""Superposition in finite datasets: few points are memorised as points, many are learned as features.

With T data points and hidden vectors h_t = W x_t, two questions share one formula (`geometry.feature_dimensionality`):
how much room has each feature, from the columns W_i, and how much has each data point, from the h_t.  In between, where
neither fits, the test loss rises above that of a smaller dataset: double descent.
Source: Henighan et al. 2023, 'Superposition, Memorization, and Double Descent'.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from pandas import DataFrame, concat
from torch import Tensor

from data import Progress, Tables, silent
from data.progress import within
from toymodels.config import ToyConfig
from toymodels.features import dataset
from toymodels.geometry import dimensions_per_feature, feature_dimensionality
from toymodels.results import Toy, Toys
from toymodels.training import train

FEW_POINTS = ToyConfig(
    n_features=10_000,
    d_hidden=2,
    feature_probability=0.001,
    n_points=5,
    data_seed=0,
    unit_norm=True,
    steps=2000,
    warmup=100,
    schedule="cosine",
    learning_rate=5e-3,
)
"""Ten thousand features, a plane, a handful of points; S = .999 as published, with a faster schedule.  Seeds share
their points, so that the best of them is the best of one problem; `data_seed` chooses the points."""

DOUBLE_DESCENT = ToyConfig(
    n_features=300,
    d_hidden=8,
    feature_probability=0.03,
    n_points=800,
    unit_norm=True,
    steps=6000,
    warmup=300,
    schedule="cosine",
    learning_rate=3e-3,
)
"""A smaller world in which the whole curve fits in minutes: about nine active features a point."""

TEST_SEED = 2**40
"""Seed of the test points, out of the way of the training seeds."""


def few_points(
    config: ToyConfig = FEW_POINTS,
    *,
    n_points: Sequence[int] = (4, 5, 6, 7, 8),
    seeds: int | Sequence[int] = 5,
    progress: Progress = silent,
) -> Tables:
    """Where a handful of points come to lie in the plane; needs d_hidden = 2.

    From about seven points on, most starts end with a point left out: the best of several seeds is needed.  The polygon
    is regular as far as the points are orthogonal: those that share active features may lie closer.

    Tables:
    * `points`, one row a point of the best seed: `n_points, seed, point, x, y, angle` (degrees), `radius`, `gap`
      (degrees to the next point counterclockwise), `dimensionality`.
    * `runs`, one row a size and seed: `n_points, seed, train_loss` (over that of the zero predictor), `best, gap_min,
      gap_max, deviation` (largest |gap - 360/T|), `deviation_start` (the same before training: the control),
      `radius_mean`.
    """
    if config.d_hidden != 2:
        raise ValueError(f"gaps between points are angles in a plane; set d_hidden=2 instead of {config.d_hidden}")
    points, runs = [], []
    for done, size in enumerate(n_points):
        toys = _train(config, size, seeds, within(progress, done, len(n_points)))
        assert toys.snapshots is not None
        best = toys.best().seed
        for i, seed in enumerate(toys.seeds):
            x = dataset(toys.configs[i], seed)
            hidden, before = x @ toys.W[i].T, x @ toys.snapshots.W[0, i].T
            frame = _polar(hidden)
            even = 360 / size
            start = (_polar(before)["gap"] - even).abs().max()
            runs.append(
                {
                    "n_points": size,
                    "seed": seed,
                    "train_loss": relative_loss(toys[i], x),
                    "best": seed == best,
                    "gap_min": frame["gap"].min(),
                    "gap_max": frame["gap"].max(),
                    "deviation": (frame["gap"] - even).abs().max(),
                    "deviation_start": start,
                    "radius_mean": frame["radius"].mean(),
                }
            )
            if seed == best:
                room = feature_dimensionality(hidden.T).double().numpy()
                points.append(frame.assign(n_points=size, seed=seed, dimensionality=room))
    return Tables({"points": concat(points, ignore_index=True), "runs": DataFrame(runs)})


def double_descent(
    config: ToyConfig = DOUBLE_DESCENT,
    *,
    n_points: Sequence[int] = (20, 50, 100, 200, 400, 800, 1600, 3200),
    seeds: int | Sequence[int] = 3,
    n_test: int = 16_384,
    progress: Progress = silent,
) -> Tables:
    """Train and test loss, and the geometry of features and of data points, over the size of the dataset.

    Losses are relative to the zero predictor's on the same points, so that 1 is knowing nothing (the control).  Seeds
    differ in their data as well as in their start, unless `data_seed` is set; all are tested on the same `n_test` fresh
    points.

    Tables:
    * `runs`, one row a size and seed: `n_points, seed, train_loss, test_loss, best` (lowest train loss),
      `dimensions_per_feature` (d_hidden / ||W||_F^2), `feature_dimensionality` and `point_dimensionality` (means of D
      over the features and over the points that are represented, i.e. longer than half the longest), `n_represented`
      and `points_represented` (how many are), `n_test`.
    * `features`, one row a feature of the best runs: `n_points, seed, feature, norm, dimensionality`.
    * `points`, one row a point of the best runs (the first 2,000 of a dataset): `n_points, seed, point, norm,
      dimensionality`.
    * `summary`, one row a size: `test_loss` (mean), `test_loss_sd, test_loss_min, test_loss_max, train_loss`,
      `of_best_seed` (its test loss), `n_seeds`, `n_test`, `zero_predictor` (1, the control).
    """
    runs, features, points = [], [], []
    test = dataset(config.model_copy(update={"n_points": n_test, "data_seed": TEST_SEED}), 0)
    for done, size in enumerate(sorted(n_points)):
        toys = _train(config, size, seeds, within(progress, done, len(n_points)))
        best = toys.best().seed
        for i, seed in enumerate(toys.seeds):
            toy, x = toys[i], dataset(toys.configs[i], seed)
            same = {"n_points": size, "seed": seed}
            feature, point = _room(toy.W), _room(toy.W @ x.T)
            kept, shown = _represented(feature), _represented(point)
            runs.append(
                same
                | {"train_loss": relative_loss(toy, x), "test_loss": relative_loss(toy, test), "best": seed == best}
                | {"dimensions_per_feature": dimensions_per_feature(toy.W)}
                | {"feature_dimensionality": kept["dimensionality"].mean(), "n_represented": len(kept)}
                | {"point_dimensionality": shown["dimensionality"].mean(), "points_represented": len(shown)}
            )
            if seed == best:
                features.append(feature.rename_axis("feature").reset_index().assign(**same))
                points.append(point.rename_axis("point").reset_index().head(2000).assign(**same))
    frame = DataFrame(runs).assign(n_test=n_test)
    shared = {"features": concat(features, ignore_index=True), "points": concat(points, ignore_index=True)}
    return Tables({"runs": frame, **shared, "summary": _summary(frame)})


def relative_loss(toy: Toy, x: Float[Tensor, "points n_features"]) -> float:
    """Squared error over the squared size of the points: sum |x - x'|^2 / sum |x|^2; the zero predictor has 1."""
    with torch.no_grad():
        error = sum(float((part - toy.module()(part)).square().sum()) for part in x.split(4096))
    return error / float(x.square().sum())


def bump(summary: DataFrame, column: str = "test_loss") -> dict[str, float]:
    """The peak of a double-descent curve: `n_points, height, left, right, rise`.

    `height` is the highest test loss, `left` and `right` the lowest ones at fewer and at more points, and `rise` =
    height - max(left, right): positive only if the loss rises and falls again.  At an end of the curve there is no
    lowest loss beyond and `rise` is 0.
    """
    frame = summary.sort_values("n_points").reset_index(drop=True)
    at = int(frame[column].argmax())
    height = float(frame[column][at])
    left = float(frame[column][:at].min()) if at > 0 else height
    right = float(frame[column][at + 1 :].min()) if at + 1 < len(frame) else height
    sizes = {"n_points": float(frame["n_points"][at]), "height": height, "left": left, "right": right}
    return sizes | {"rise": height - max(left, right)}


def _train(config: ToyConfig, size: int, seeds: int | Sequence[int], progress: Progress) -> Toys:
    sized = ToyConfig.model_validate(config.model_dump() | {"n_points": size})
    return train(sized, seeds=seeds, snapshots=0, progress=progress)


def _polar(hidden: Float[Tensor, "points 2"]) -> DataFrame:
    """Points of a plane with the angle to their next neighbour counterclockwise; gaps sum to 360."""
    angle = torch.atan2(hidden[:, 1], hidden[:, 0]).rad2deg() % 360
    order = angle.argsort()
    gap = torch.empty_like(angle)
    gap[order] = (angle[order].roll(-1) - angle[order]) % 360 if len(angle) > 1 else angle.new_full((1,), 360)
    columns = {"x": hidden[:, 0], "y": hidden[:, 1], "angle": angle, "radius": hidden.norm(dim=1), "gap": gap}
    return (
        DataFrame({name: value.double().numpy() for name, value in columns.items()}).rename_axis("point").reset_index()
    )


def _room(vectors: Float[Tensor, "d_hidden vectors"]) -> DataFrame:
    """Norm and dimensionality of the columns, by sum_j (v . w_j)^2 = v^T (sum_j w_j w_j^T) v: no Gram of thousands."""
    cross = vectors @ vectors.T
    norm = vectors.norm(dim=0)
    room = ((cross @ vectors) * vectors).sum(0)
    dimensionality = torch.where(room > 0, norm**4 / room.clamp_min(1e-30), 0.0)
    return DataFrame({"norm": norm.double().numpy(), "dimensionality": dimensionality.double().numpy()})


def _represented(frame: DataFrame) -> DataFrame:
    return frame[frame["norm"] > frame["norm"].max() / 2]


def _summary(runs: DataFrame) -> DataFrame:
    table = runs.groupby("n_points").agg(
        test_loss=("test_loss", "mean"),
        test_loss_sd=("test_loss", "std"),
        test_loss_min=("test_loss", "min"),
        test_loss_max=("test_loss", "max"),
        train_loss=("train_loss", "mean"),
        n_seeds=("seed", "nunique"),
        n_test=("n_test", "first"),
    )
    best = runs[runs["best"]].set_index("n_points")["test_loss"].rename("of_best_seed")
    return table.join(best).reset_index().assign(zero_predictor=1.0)
