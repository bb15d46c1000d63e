"""Known geometry of trained toys, measured again: `pytest -m reproduction tests/reproductions/test_toy_geometry.py`.

Each test writes what it measured, with provenance, to `toy_<name>.json` beside this file, and then judges it.
"""

from typing import Any

import numpy as np
import pytest

from tests.reproductions.record import record
from toymodels import ToyConfig, geometry, sweep, train
from toymodels.results import Toy

pytestmark = pytest.mark.reproduction


def pair_cosines(toy: Toy) -> list[float]:
    unit = toy.W / toy.W.norm(dim=0)
    return [float(unit[:, 2 * i] @ unit[:, 2 * i + 1]) for i in range(toy.W.shape[1] // 2)]


def test_uniform_importance_sticks_at_one_and_one_half() -> None:
    """n = 100, m = 10, all features equal, p = 20^-linspace(0, 1, 20): D* starts at 1 and rests at 1/2."""
    densities = [float(20**-e) for e in np.linspace(0, 1, 20)]
    base = ToyConfig(n_features=100, d_hidden=10)
    swept = sweep({"feature_probability": densities}, base=base, seeds=3)
    best = swept.best()
    stars = best["dimensions_per_feature"].to_numpy()
    toys = swept.best_toys()
    each = [geometry.feature_dimensionality(toy.W) for toy in toys]
    kept = [D[geometry.feature_norms(toy.W) > 0.5] for D, toy in zip(each, toys, strict=True)]
    near = [float(((D - 0.5).abs() < 0.03).double().mean()) for D in kept]
    measured = {
        "feature_probability": densities,
        "dimensions_per_feature": stars.tolist(),
        "sum_of_dimensionality_over_m": [float(D.sum()) / 10 for D in each],
        "represented": [len(D) for D in kept],
        "share_of_represented_features_within_.03_of_1/2": near,
    }
    record("toy_uniform", {**base.model_dump(mode="json"), "seeds": 3}, measured)
    assert abs(stars[0] - 1) <= 0.01
    assert max(measured["sum_of_dimensionality_over_m"]) <= 1 + 1e-6
    # The line: D* rests near 1/2 over several densities, because there the features are antipodal pairs one by one.
    resting = np.flatnonzero(np.abs(stars - 0.5) < 0.04)
    assert len(resting) >= 3 and (np.diff(resting) == 1).all()
    assert max(near[i] for i in resting) >= 0.75
    assert np.mean([near[i] for i in resting]) > 3 * np.mean(
        [share for i, share in enumerate(near) if i not in resting]
    )


def test_the_odd_feature_turns_the_pentagon_into_digons() -> None:
    """n = 5, m = 2, p = .05, one feature less likely by a factor: best pentagon and best digons cost the same at .275.

    The loss of the best of each kind, over factors where both are found; the crossing by a straight line of their
    difference.
    """
    factors = [float(f) for f in np.round(np.linspace(0.2, 0.4, 9), 4)]
    rows = []
    for factor in factors:
        probability = (0.05 * factor, 0.05, 0.05, 0.05, 0.05)
        toys = train(ToyConfig(feature_probability=probability), seeds=24, evaluation_samples=1 << 20, snapshots=0)
        names = [geometry.recognize(toy.W, tolerance=0.2).name for toy in map(toys.__getitem__, range(24))]
        row: dict[str, Any] = {"factor": factor, "best": names[int(toys.loss.argmin())]}
        for kind, wanted in (("pentagon", ("pentagon",)), ("digons", ("square",))):
            losses = [float(loss) for loss, name in zip(toys.loss, names, strict=True) if name in wanted]
            row[kind], row[f"{kind}_found"] = (min(losses) if losses else None), len(losses)
        row["names"] = sorted(set(names))
        rows.append(row)
    both = [row for row in rows if row["pentagon"] and row["digons"]]
    difference = [row["pentagon"] - row["digons"] for row in both]
    slope, offset = np.polyfit([row["factor"] for row in both], difference, 1)
    crossing = -offset / slope
    record(
        "toy_crossover",
        {"base": ToyConfig().model_dump(mode="json"), "seeds": 24},
        {"crossing": crossing, "rows": rows},
    )
    assert len(both) >= 4
    assert abs(crossing - 0.275) <= 0.02


def test_correlated_pairs_are_orthogonal_and_anticorrelated_pairs_opposite() -> None:
    """Two pairs in two dimensions at p = .05, best of 16."""
    base = ToyConfig(n_features=4, feature_probability=0.05)
    cosines = {}
    for kind in ("correlated", "anticorrelated"):
        toys = train(ToyConfig.model_validate(base.model_dump() | {"features": kind}), seeds=16)
        cosines[kind] = pair_cosines(toys.best())
    record("toy_pairs", {**base.model_dump(mode="json"), "seeds": 16}, {"cosines": cosines})
    assert max(abs(c) for c in cosines["correlated"]) <= 0.013
    assert max(cosines["anticorrelated"]) <= -0.9995


def test_two_groups_of_three_learn_an_octahedron_in_jumps() -> None:
    """Correlated 2 x 3 features in three dimensions: an octahedron, reached by sudden moves of the dimensionalities."""
    config = ToyConfig(n_features=6, d_hidden=3, feature_probability=0.05, features="correlated", group_size=3)
    toys = train(config, seeds=16, snapshots=120)
    best = int(toys.loss.argmin())
    film = toys.snapshots
    assert film is not None
    found = geometry.recognize(toys.W[best])
    moves = geometry.jumps(geometry.dimensionality_over_time(list(film.steps), film.W[:, best]))
    opposite = [abs(part.features[0] // 3 - part.features[1] // 3) for part in found.parts if len(part.features) == 2]
    measured = {
        "name": found.name,
        "deviation": found.deviation,
        "opposite_is_of_the_other_group": opposite,
        "jumps": moves.round(4).to_dict("records"),
        "dimensionality": geometry.feature_dimensionality(toys.W[best]).tolist(),
    }
    record("toy_octahedron", {**config.model_dump(mode="json"), "seeds": 16}, measured)
    assert found.name == "octahedron"
    assert opposite == [1, 1, 1]
    assert len(moves) >= 3
    np.testing.assert_allclose(measured["dimensionality"], 0.5, atol=0.02)


def test_dimensionalities_of_many_features_move_in_jumps() -> None:
    """n = 100, m = 10, p = .3: all learned features end in antipodal pairs, and most get there by jumps."""
    config = ToyConfig(n_features=100, d_hidden=10, feature_probability=0.3)
    toys = train(config, seeds=1, snapshots=100)
    film = toys.snapshots
    assert film is not None
    moves = geometry.jumps(geometry.dimensionality_over_time(list(film.steps), film.W[:, 0]))
    D = geometry.feature_dimensionality(toys.W[0])
    learned = geometry.feature_norms(toys.W[0]) > 0.5
    measured = {
        "name": geometry.recognize(toys.W[0]).name,
        "features_learned": int(learned.sum()),
        "of_them_within_.03_of_1/2": int(((D - 0.5).abs() < 0.03)[learned].sum()),
        "features_that_jump": int(moves["feature"].nunique()),
        "first_jump_at_step": int(moves["start"].min()),
        "last_jump_at_step": int(moves["stop"].max()),
        "median_jump": float(moves["change"].abs().median()),
    }
    record("toy_dynamics", config.model_dump(mode="json"), measured)
    assert measured["of_them_within_.03_of_1/2"] == measured["features_learned"] == 20
    assert measured["features_that_jump"] >= 10
    assert measured["median_jump"] >= 0.1
