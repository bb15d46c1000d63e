import numpy as np
import pytest
from pandas import DataFrame

from probes.purity import purest


def table(counts: np.ndarray) -> DataFrame:
    experts, labels = np.indices(counts.shape).reshape(2, -1)
    found = DataFrame({"expert": experts, "label": np.array(["verb", "point"])[labels], "n": counts.ravel()})
    return found.assign(condition="real", labels="word_class", layer=0)


def test_the_purest_expert_is_the_one_with_the_largest_share() -> None:
    found = purest(table(np.array([[90, 10], [50, 50], [20, 380]])), 3).set_index("label")
    assert found.loc["verb", "expert"] == 0 and found.loc["verb", "share"] == 0.9
    assert found.loc["point", "expert"] == 2 and found.loc["point", "share"] == 0.95
    assert found.loc["point", "base"] == pytest.approx(440 / 600) and (found["considered"] == 3).all()
    assert (found["low"] < found["share"]).all() and (found["share"] < found["high"]).all()


def test_an_expert_that_hardly_works_is_not_considered() -> None:
    found = purest(table(np.array([[4, 0], [500, 500], [500, 500]])), 3).set_index("label")
    assert found.loc["verb", "expert"] == 1 and found.loc["verb", "share"] == 0.5


def test_the_interval_pays_for_having_looked_for_the_largest() -> None:
    rng = np.random.default_rng(0)
    above = 0
    for _ in range(300):
        draws = rng.binomial(400, 0.2, 32)
        found = purest(table(np.stack([draws, 400 - draws], axis=1)), 32).set_index("label")
        above += found.loc["verb", "low"] > 0.2
    assert above / 300 <= 0.05


def test_the_least_load_is_still_considered() -> None:
    # An even share of 160 slots over 4 experts is 40; a quarter of it, 10, is enough.
    found = purest(table(np.array([[10, 0], [25, 25], [25, 25], [25, 25]])), 4).set_index("label")
    assert (found["considered"] == 4).all() and found.loc["verb", "expert"] == 0
