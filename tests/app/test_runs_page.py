"""The page of runs compares two of them: settings, software, tables."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import app
from data import Run
from data.runs import create

PAGE = Path(app.__file__).parent / "pages" / "runs.py"


def page(**query: str) -> AppTest:
    test = AppTest.from_file(str(PAGE), default_timeout=60)
    for key, value in query.items():
        test.query_params[key] = value
    return test.run()


@pytest.fixture
def second(run: Run) -> Run:
    """A run of fewer tokens, with one table changed and one lacking."""
    made = create("second", {**run.settings, "n_tokens": 1_000}, kind=run.kind, root_folder=run.path.parent, seed=0)
    layers = run.table("layers")
    made.save_table("layers", layers.assign(value=layers["value"] * 1.5))
    made.save_table("neurons", run.table("neurons"))
    return made


def test_two_runs_are_compared_by_settings_and_tables(run: Run, second: Run) -> None:
    test = page(run="first", tables="true", **{"with": "second"})
    assert not test.exception and not test.error
    frames = {tuple(frame.value.columns): frame.value for frame in test.dataframe}
    settings = frames["setting", "first", "second"]
    assert settings.to_numpy().tolist() == [["n_tokens", "2000", "1000"]]
    tables = frames["table", "verdict", "rows", "rows_second", "difference"].set_index("table")["verdict"]
    assert tables.to_dict() == {"layers": "differs", "neurons": "equal", "sinks": "lacking"}
    assert any("1 of 3 tables are the same" in caption.value for caption in test.caption)


def test_alone_it_names_the_command_that_does_the_run_again(run: Run) -> None:
    test = page()
    assert not test.exception
    assert any("sparsescope redo first" in str(code.value) for code in test.code)
