"""A Ray cluster of two workers gives the tables of one process, also when a worker is killed on the way."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from pandas.testing import assert_frame_equal

from data import Cancelled, Progress, runs
from data.cluster import gathered
from data.corpus import open_corpus
from data.wordclass import default_tagger
from probes import kinds, memory, open_model, rank, routing, sparsity
from probes.stream import StreamConfig
from toymodels import ToyConfig, sweep

ray = pytest.importorskip("ray", reason="Ray is not installed (extra `cluster`)")
SMALL = StreamConfig(n_tokens=2_000, window=32, batch_tokens=256, shard_tokens=300)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # a machine so busy that its heart is not heard for a while is not dead
    os.environ.setdefault("RAY_health_check_failure_threshold", "60")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def murder() -> tuple[Progress, Callable[[], int]]:
    """A progress callback that kills a busy worker at its first call, and how many it has killed."""
    killed: list[int] = []

    def strike(done: float, total: float, note: str = "") -> None:
        for process in psutil.Process().children(recursive=True) if not killed else ():
            if process.cmdline()[:1] in (["ray::_train"], ["ray::_seen"]):
                process.kill()
                killed.append(process.pid)
                return

    return strike, lambda: len(killed)


def squared(place: Path, n: int) -> int:
    """n squared, but the worker that is first given 3 dies, leaving a mark."""
    with (place / f"begun-{n}").open("a") as file:
        file.write("x")
    if n == 3 and (place / "begun-3").stat().st_size == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if n == 99:
        raise ValueError("99 is refused")
    return n * n


def test_each_task_comes_once_and_in_order_though_a_worker_dies(cluster: None, tmp_path: Path) -> None:
    assert list(gathered(squared, range(12), shared=tmp_path)) == [(n, n * n) for n in range(12)]
    assert (tmp_path / "begun-3").read_text() == "xx"


def test_an_error_on_a_worker_is_its_own_sentence(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^99 is refused$"):
        list(gathered(squared, [1, 99], shared=tmp_path))


def test_a_worker_that_always_dies_is_a_sentence(cluster: None) -> None:
    with pytest.raises(ValueError, match="lost a task 4 times"):
        list(gathered(lambda shared, task: os.kill(os.getpid(), signal.SIGKILL), [0]))


@pytest.mark.parametrize("fatal", [False, True])
def test_a_sweep_is_the_same(cluster: None, murder: tuple[Progress, Callable[[], int]], fatal: bool) -> None:
    base = ToyConfig(n_features=5, d_hidden=2, steps=400, batch_size=128)
    grid = {"feature_probability": [1.0, 0.3, 0.1], "d_hidden": [1, 2]}
    strike, killed = murder
    told = {"progress": strike} if fatal else {}
    here, there = sweep(grid, base=base, seeds=2), sweep(grid, base=base, seeds=2, engine="ray", **told)
    # losses are sums of float32, whose order differs between a process of one thread and one of many
    assert_frame_equal(there.table, here.table, rtol=1e-6)
    assert killed() == fatal


@pytest.mark.parametrize("fatal", [False, True])
def test_a_pass_over_text_is_the_same(
    cluster: None, murder: tuple[Progress, Callable[[], int]], inputs: Path, fatal: bool
) -> None:
    model, corpus = open_model(str(inputs / "dense"), dtype="float32"), open_corpus(inputs / "texts")
    asked = {"n_tokens": 2_000, "controls": ("gaussian", "random_init"), "config": SMALL}
    strike, killed = murder
    here = sparsity.measure(model, corpus, **asked)
    there = sparsity.measure(model, corpus, engine="ray", **asked, **({"progress": strike} if fatal else {}))
    same(there, here)
    assert killed() == fatal


def test_a_pass_stopped_on_the_cluster_goes_on_there_and_here(cluster: None, inputs: Path, tmp_path: Path) -> None:
    model, corpus = open_model(str(inputs / "dense"), dtype="float32"), open_corpus(inputs / "texts")
    run = runs.create("cut", {}, kind="test", root_folder=tmp_path)
    calls = 0

    def stop(done: float, total: float, note: str = "") -> None:
        nonlocal calls
        calls += 1
        if calls in (3, 5):
            raise Cancelled

    asked = {"n_tokens": 2_000, "controls": (), "config": SMALL}
    for engine in ("ray", "local"):
        with pytest.raises(Cancelled):
            sparsity.measure(model, corpus, engine=engine, run=run, progress=stop, **asked)
    same(sparsity.measure(model, corpus, engine="ray", run=run, **asked), sparsity.measure(model, corpus, **asked))


def same(first: dict[str, pd.DataFrame], second: dict[str, pd.DataFrame]) -> None:
    """Counts and words are equal, sums of floats to rounding."""
    assert first.keys() == second.keys()
    for name, frame in second.items():
        assert_frame_equal(first[name], frame, check_exact=False, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["experts", "kinds", "rank", "memory"])
def test_every_pass_that_can_be_spread_is_the_same(cluster: None, inputs: Path, tmp_path: Path, name: str) -> None:
    model = open_model(str(inputs / ("mixture" if name == "experts" else "dense")), dtype="float32")
    corpus = open_corpus(inputs / "texts")
    tagger = default_tagger()
    asked: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "experts": (routing.measure, {"n_tokens": 2_000, "control_tokens": 900, "n_permutations": 3}),
        "kinds": (kinds.measure, {"n_tokens": 2_000, "tagger": tagger}),
        "rank": (rank.measure, {"n_tokens": 6 * 31, "pattern_windows": 2}),
        "memory": (memory.measure, {"n_tokens": 2_000, "neurons": 4, "k": 3}),
    }
    measure, settings = asked[name]
    first, second = (runs.create(engine, {}, kind="test", root_folder=tmp_path) for engine in ("local", "ray"))
    here = measure(model, corpus, config=SMALL, run=first, **settings)
    there = measure(model, corpus, config=SMALL, run=second, engine="ray", **settings)
    same(there, here)
    same(second.tables(), first.tables())
