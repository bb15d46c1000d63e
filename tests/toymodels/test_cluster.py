"""A sweep on a local Ray cluster of two workers gives the tables of a sweep in this process."""

from collections.abc import Iterator

import pytest
from pandas.testing import assert_frame_equal

from toymodels import ToyConfig, sweep

ray = pytest.importorskip("ray", reason="Ray is not installed (extra `cluster`)")


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_a_cluster_gives_the_same_tables(cluster: None) -> None:
    base = ToyConfig(n_features=5, d_hidden=2, steps=200, batch_size=128)
    grid = {"feature_probability": [1.0, 0.1], "d_hidden": [1, 2]}
    here, there = sweep(grid, base=base, seeds=2), sweep(grid, base=base, seeds=2, engine="ray")
    assert_frame_equal(there.table, here.table, check_exact=True)
