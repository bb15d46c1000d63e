from pathlib import Path

import pytest
from pandas import DataFrame

from data import runs
from data.config import Config


class Settings(Config):
    """Settings of nothing."""

    size: int = 1
    """Tells two runs apart."""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path / "own"))
    monkeypatch.setattr(runs, "SHIPPED", tmp_path / "shipped")
    for name in ("first", "second"):
        run = runs.create(name, Settings(), kind="test", seed=0, root_folder=tmp_path / "shipped")
        run.save_table("numbers", DataFrame({"from": ["shipped"]}))
    return tmp_path


def test_what_ships_is_known_and_opened_by_name(folders: Path) -> None:
    assert {run.name for run in runs.known_runs()} == {"first", "second"} and not runs.list_runs()
    assert runs.open_run("first").table("numbers")["from"].tolist() == ["shipped"]


def test_a_users_run_of_the_same_name_hides_the_one_that_ships(folders: Path) -> None:
    runs.create("first", Settings(size=2), kind="test", seed=0).save_table("numbers", DataFrame({"from": ["own"]}))
    assert [run.name for run in runs.known_runs()] == ["first", "second"]
    assert runs.open_run("first").table("numbers")["from"].tolist() == ["own"]
    assert runs.known_runs()[0].path.parent == folders / "own"
