"""The demo: what its parts leave, that a failing part does not take the others along, and that it goes on."""

from pathlib import Path

import numpy as np
import pytest
from pandas import DataFrame
from typer.testing import CliRunner

from app import demo, jobs
from app.cli import cli
from app.figures import superposition
from app.measurements import remember_inputs
from data import Cancelled, Run, RunError, silent
from data.runs import create


@pytest.fixture
def begun(tmp_path: Path) -> Run:
    return create("demo", demo.DemoConfig(), kind="demo", root_folder=tmp_path)


def part(name: str, calls: list[str], error: BaseException | None = None) -> demo.Part:
    def measure(run: Run, config: demo.DemoConfig, progress) -> None:
        calls.append(name)
        progress(1, 2, f"{name} half way")
        if error:
            raise error
        run.save_table(name, DataFrame({"x": [1]}))

    return demo.Part(name, name.title(), measure, (name,))


def states(run: Run) -> dict[str, str]:
    return run.table("parts").set_index("part")["state"].to_dict()


def test_a_part_that_fails_leaves_the_others_and_is_told(begun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    parts = (part("a", calls), part("b", calls, ValueError("offline; connect once")), part("c", calls))
    monkeypatch.setattr(demo, "PARTS", parts)
    with pytest.raises(ValueError, match="b: offline; connect once"):
        jobs.carry_out(begun, demo.measure)
    assert states(begun) == {"a": "done", "b": "failed", "c": "done"}
    assert begun.progress["state"] == "failed"
    monkeypatch.setattr(demo, "PARTS", (part("a", calls), part("b", calls), part("c", calls)))
    jobs.carry_out(begun, demo.measure)
    assert calls == ["a", "b", "c", "b"]
    assert begun.progress["state"] == "done" and begun.progress["done"] == begun.progress["total"]


def test_a_stopped_demo_goes_on_where_it_was(begun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(demo, "PARTS", (part("a", calls), part("b", calls, Cancelled())))
    with pytest.raises(Cancelled):
        jobs.carry_out(begun, demo.measure)
    assert states(begun) == {"a": "done", "b": "cancelled"}
    monkeypatch.setattr(demo, "PARTS", (part("a", calls), part("b", calls)))
    jobs.carry_out(begun, demo.measure)
    assert calls == ["a", "b", "b"]


def test_progress_never_goes_back(begun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PARTS", (part("a", []), part("b", [])))
    heard: list[float] = []
    demo.measure(begun, lambda done, total, note="": heard.append(done / total))
    assert heard == sorted(heard) and heard[-1] == 1


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


def test_no_open_leaves_tables_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables) -> None:
    def measured(run: Run, config: demo.DemoConfig, progress) -> None:
        run.save_tables(tables)

    monkeypatch.setattr(demo, "PARTS", (demo.Part("sparsity", "Sparsity", measured, ("layers", "neurons", "sinks")),))
    monkeypatch.setattr("app.export.find_browser", lambda: None)
    told = CliRunner().invoke(cli, ["demo", "--no-open", "--out", str(tmp_path / "out")])
    assert told.exit_code == 0, told.stderr
    assert len(list((tmp_path / "out").glob("*.parquet"))) >= 3
    assert len(list((tmp_path / "out").glob("*.html"))) >= 3
    assert "apt install chromium" in told.stderr

    failing = part("b", [], ValueError("offline; connect once"))
    monkeypatch.setattr(demo, "PARTS", (*demo.PARTS, failing))
    told = CliRunner().invoke(cli, ["demo", "--no-open", "--out", str(tmp_path / "again")])
    assert told.exit_code == 2
    assert "b: offline; connect once" in told.stderr
    assert len(list((tmp_path / "again").glob("*.html"))) >= 3
