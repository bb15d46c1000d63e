"""A run done again gives the same tables, and a change in any of them is found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas import DataFrame
from typer.testing import CliRunner

from app import jobs, redo
from app.cli import cli
from app.toys import ToyRun
from data import Run
from data.runs import RunError, create
from toymodels import ToyConfig


@pytest.fixture
def toy(runs_folder: Path) -> Run:
    """A small sweep over two densities."""
    base = ToyConfig(n_features=3, d_hidden=2, steps=30, batch_size=32)
    asked = ToyRun(base=base, grid={"feature_probability": (1.0, 0.1)}, seeds=2)
    run = create("small", asked, kind="toy.sweep", root_folder=runs_folder, seed=0)
    jobs.carry_out(run, jobs.work_of(run.kind))
    return run


def test_the_same_settings_give_the_same_tables(toy: Run) -> None:
    second = redo.again(toy)
    assert second.name == "small-again" and second.settings == toy.settings
    table = redo.tables(toy, second)
    assert len(table) == len(toy.table_names()) > 2
    assert set(table["verdict"]) == {redo.EQUAL}
    assert redo.versions(toy, second).empty


def test_the_verb_says_which_table_differs(toy: Run) -> None:
    same = CliRunner().invoke(cli, ["redo", "small"])
    assert same.exit_code == 0, same.output
    assert "tables of run 'small' came out the same in 'small-again'" in same.output
    room = toy.table("toy_room")
    toy.save_table("toy_room", room.assign(loss=room["loss"] * 1.5))
    other = CliRunner().invoke(cli, ["redo", "small", "--name", "third"])
    assert other.exit_code == 1
    line = next(line for line in other.output.splitlines() if line.startswith("toy_room"))
    assert "differs" in line and "column loss" in line


def test_what_cannot_be_redone_is_refused_in_a_sentence(runs_folder: Path, toy: Run) -> None:
    create("foreign", {}, kind="somebody.else", root_folder=runs_folder)
    create("records", {"recorded_in": ["a.json"]}, kind="toy.experiment", root_folder=runs_folder)
    told = CliRunner().invoke(cli, ["redo", "records"])
    assert told.exit_code == 2 and "put together from what long tests recorded (a.json)" in told.output
    assert not (runs_folder / "records-again").exists()
    bare = create("bare", {"steps": 3}, kind="toy.experiment", root_folder=runs_folder)
    with pytest.raises(ValueError, match="preset"):
        redo.again(bare)
    refused = CliRunner().invoke(cli, ["redo", "foreign"])
    assert refused.exit_code == 2 and "cannot be redone" in refused.output
    with pytest.raises(RunError, match="the run itself"):
        redo.again(toy, "small")
    with pytest.raises(RunError, match="not a run name"):
        redo.again(toy, "../away")


FRAME = DataFrame({"layer": [0, 1, 2], "word": ["a", None, "b"], "value": [1.0, np.nan, -2.0], "seconds": [1, 2, 3]})


def test_durations_do_not_count() -> None:
    assert redo.difference(FRAME, FRAME.assign(seconds=[9, 9, 9])) == (redo.EQUAL, "")


@pytest.mark.parametrize(
    ("change", "verdict", "where"),
    [
        ({"value": [1.0 + 1e-9, np.nan, -2.0]}, redo.CLOSE, "column value"),
        ({"value": [1.1, np.nan, -2.0]}, redo.OTHER, "up to 5.0e-02"),
        ({"value": [np.nan, 1.0, -2.0]}, redo.OTHER, "column value"),
        ({"value": [np.inf, np.nan, -2.0]}, redo.OTHER, "column value"),
        ({"word": ["a", None, "c"]}, redo.OTHER, "column word"),
        ({"word": ["a", "x", "b"]}, redo.OTHER, "column word"),
        ({"more": [1, 2, 3]}, redo.OTHER, "columns more"),
    ],
)
def test_a_changed_value_is_found(change: dict[str, Any], verdict: str, where: str) -> None:
    found, told = redo.difference(FRAME, FRAME.assign(**change))
    assert found == verdict and where in told


def test_a_missing_row_or_table_is_found(toy: Run, runs_folder: Path) -> None:
    assert redo.difference(FRAME, FRAME.iloc[:2]) == (redo.OTHER, "3 rows and 2")
    bare = create("bare", {}, kind="toy.sweep", root_folder=runs_folder)
    assert set(redo.tables(toy, bare)["verdict"]) == {redo.LACKING}
