"""The demo: what its parts leave, that a failing part does not take the others along, and that it goes on."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from pandas import DataFrame
from typer.testing import CliRunner

from app import demo, jobs
from app.cli import cli
from app.figures import superposition
from app.measurements import remember_inputs
from data import Cancelled, Progress, Run, RunError, silent
from data.runs import create


@pytest.fixture
def begun(tmp_path: Path) -> Run:
    return create("demo", demo.DemoConfig(), kind="demo", root_folder=tmp_path)


def act(name: str, ending: str, run: Run, config: demo.DemoConfig, progress) -> None:
    """Leave a mark, get half way, and end: well, with an error, never, or with the process."""
    with (run.path / "calls").open("a") as calls:
        calls.write(f"{name} ")
    progress(1, 2, f"{name} half way")
    if ending == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if ending == "hangs":
        time.sleep(600)
    if ending:
        raise ValueError(ending)
    run.save_table(name, DataFrame({"x": [1], "pid": [os.getpid()], "begun": [time.time()]}))


def part(name: str, ending: str = "", after: str = "") -> demo.Part:
    return demo.Part(name, name.title(), partial(act, name, ending), (name,), after=after)


def do(run: Run, monkeypatch: pytest.MonkeyPatch, *parts: demo.Part, tell: Progress = silent, workers: int = 1) -> None:
    monkeypatch.setattr(demo, "PARTS", parts)
    monkeypatch.setattr(demo, "at_once", lambda: workers)
    jobs.carry_out(run, demo.measure, tell)


def states(run: Run) -> dict[str, str]:
    return run.table("parts").set_index("part")["state"].to_dict()


def calls(run: Run) -> list[str]:
    return (run.path / "calls").read_text().split()


def test_a_part_that_fails_leaves_the_others_and_is_told(begun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="b: offline; connect once"):
        do(begun, monkeypatch, part("a"), part("b", "offline; connect once"), part("c"))
    assert states(begun) == {"a": "done", "b": "failed", "c": "done"}
    assert begun.progress["state"] == "failed"
    assert begun.table("a")["pid"].equals(begun.table("c")["pid"])  # libraries are loaded once
    do(begun, monkeypatch, part("a"), part("b"), part("c"))
    assert calls(begun) == ["a", "b", "c", "b"]
    assert begun.progress["state"] == "done" and begun.progress["done"] == begun.progress["total"]


def test_a_part_that_dies_leaves_the_others_and_is_told(begun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="b: its process ended with code -9"):
        do(begun, monkeypatch, part("a"), part("b", "dies"), part("c"))
    assert states(begun) == {"a": "done", "b": "failed", "c": "done"}


def test_a_stopped_demo_goes_on_where_it_was_and_leaves_no_process(begun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: float, total: float, note: str = "") -> None:
        if note == "b half way":
            raise Cancelled

    with pytest.raises(Cancelled):
        do(begun, monkeypatch, part("a"), part("b", "hangs"), tell=stop)
    assert states(begun) == {"a": "done", "b": "cancelled"}
    # Python's own tracker of resources stays as long as this process
    assert not [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
    do(begun, monkeypatch, part("a"), part("b"))
    assert calls(begun) == ["a", "b", "b"]


def test_parts_are_done_side_by_side_and_progress_never_goes_back(begun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[float] = []
    parts = (part("a"), part("b", after="a"), part("c"))
    do(begun, monkeypatch, *parts, tell=lambda done, total, note="": heard.append(done / total), workers=2)
    assert heard == sorted(heard) and heard[-1] == 1
    begins = {name: begun.table(name)["begun"][0] for name in "abc"}
    assert begins["a"] < begins["b"]
    assert begun.table("a")["pid"][0] != begun.table("c")["pid"][0]


def test_workers_end_with_a_parent_that_was_killed(begun: Run) -> None:
    code = (
        "import sys; from pathlib import Path; from data import Run; from app import demo, jobs;"
        "from tests.app.test_demo import part;"
        "demo.PARTS = (part('a', 'hangs'),); jobs.carry_out(Run(Path(sys.argv[1])), demo.measure)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(begun.path)], cwd=Path(demo.__file__).parents[1])
    while not (begun.path / "calls").exists():
        assert parent.poll() is None
        time.sleep(0.05)
    children = [p for p in psutil.Process(parent.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    assert children
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


def test_the_toy_part_finds_the_pentagon_and_the_staircase_falls(begun: Run) -> None:
    demo.toy(begun, demo.DemoConfig(), silent)
    table = begun.table("toy_directions")
    end = table[table["step"] == table["step"].max()]
    angles = np.sort(np.degrees(np.arctan2(end["y"], end["x"])))
    np.testing.assert_allclose(np.diff(np.append(angles, angles[0] + 360)), 72, atol=3)
    room = begun.table("toy_room").groupby("feature_probability")["dimensions_per_feature"].median()
    assert room[1.0] == pytest.approx(1, abs=0.05)
    assert room[0.01] < 0.5
    assert "72°" in superposition.directions_caption(table)
    assert len(superposition.directions(table).data) == 2 * 5


def test_a_model_that_changed_between_stop_and_resume_is_refused(begun: Run) -> None:
    remember_inputs(begun, [("model", "m", "M", "1"), ("corpus", "c", "C", "2")])
    remember_inputs(begun, [("model", "m", "M", "1"), ("corpus", "c", "C", "2")])
    with pytest.raises(RunError, match="the corpus 'c' has changed since run 'demo' was begun"):
        remember_inputs(begun, [("model", "m", "M", "1"), ("corpus", "c", "C", "3")])


def measured(run: Run, config: demo.DemoConfig, progress) -> None:
    run.save_tables(Run(run.path.parent / "planted").tables())


def test_no_open_leaves_tables_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables) -> None:
    create("planted", {}, kind="demo", root_folder=tmp_path).save_tables(tables)
    monkeypatch.setattr(demo, "PARTS", (demo.Part("sparsity", "Sparsity", measured, ("layers", "neurons", "sinks")),))
    monkeypatch.setattr("app.export.find_browser", lambda: None)
    told = CliRunner().invoke(cli, ["demo", "--no-open", "--out", str(tmp_path / "out")])
    assert told.exit_code == 0, told.stderr
    assert len(list((tmp_path / "out").glob("*.parquet"))) >= 3
    assert len(list((tmp_path / "out").glob("*.html"))) >= 3
    assert "apt install chromium" in told.stderr

    failing = part("b", "offline; connect once")
    monkeypatch.setattr(demo, "PARTS", (*demo.PARTS, failing))
    told = CliRunner().invoke(cli, ["demo", "--no-open", "--out", str(tmp_path / "again")])
    assert told.exit_code == 2
    assert "b: offline; connect once" in told.stderr
    assert len(list((tmp_path / "again").glob("*.html"))) >= 3
