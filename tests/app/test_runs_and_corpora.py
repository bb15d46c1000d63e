"""The verbs `runs` and `corpora`: what they print, and that a wrong request is one sentence and exit code 2."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from app.commands import corpora, runs
from data.runs import create


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def two(root: Path) -> Path:
    first = create("first", {"model": "tiny", "n_tokens": 10}, kind="probe.sparsity", seed=4)
    first.save_table("layers", pd.DataFrame({"layer": range(30), "share": 0.25}))
    create("second", {"model": "tiny", "n_tokens": 20}, kind="probe.sparsity")
    return root


def ask(verbs: object, *words: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(verbs, words, input=answer)  # type: ignore[arg-type]


def refused(result: Result) -> str:
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_an_empty_room_says_how_to_begin(root: Path) -> None:
    result = ask(runs.verbs)
    assert result.exit_code == 0 and "sparsescope demo" in result.output and not root.exists()


def test_runs_are_listed_shown_and_compared(two: Path) -> None:
    lines = ask(runs.verbs).output.splitlines()
    assert lines[0].split() == ["run", "kind", "state", "made", "tables", "MB"]
    assert {line.split()[0] for line in lines[1:]} == {"first", "second"}
    shown = ask(runs.verbs, "show", "first").output
    assert all(
        part in shown for part in ("probe.sparsity, new", "n_tokens           10", "seed               4", "layers")
    )
    table = ask(runs.verbs, "show", "first", "--table", "layers", "--rows", "3").output
    assert table.count("0.25") == 3 and "30 rows" in table
    assert ask(runs.verbs, "compare", "first", "second").output.splitlines()[1].split() == ["n_tokens", "10", "20"]
    assert "the same" in ask(runs.verbs, "compare", "first", "first").output


def test_a_damaged_run_is_listed_with_its_file(two: Path) -> None:
    (two / "first" / "provenance.json").write_text("{")
    result = ask(runs.verbs)
    assert result.exit_code == 0 and "damaged" in result.output and "provenance.json cannot be read" in result.output
    assert "provenance.json cannot be read" in refused(ask(runs.verbs, "show", "first"))


def test_delete_asks_and_stays_inside_the_root(two: Path, tmp_path: Path) -> None:
    create("outside", {}, kind="x", root_folder=tmp_path)
    assert "not a run name" in refused(ask(runs.verbs, "delete", "../outside", "--yes"))
    assert "not a run name" in refused(ask(runs.verbs, "delete", str(tmp_path / "outside"), "--yes"))
    assert "no run" in refused(ask(runs.verbs, "delete", "first", "third", "--yes"))
    assert "kept first" in ask(runs.verbs, "delete", "first", answer="n\n").output
    assert (tmp_path / "outside").is_dir() and (two / "first").is_dir()
    assert "deleted first" in ask(runs.verbs, "delete", "first", answer="y\n").output
    assert ask(runs.verbs, "delete", "second", "--yes").exit_code == 0
    assert list(two.iterdir()) == []


def test_missing_things_are_one_sentence(two: Path) -> None:
    assert "no run 'third'" in refused(ask(runs.verbs, "show", "third"))
    assert "neurons.parquet is missing" in refused(ask(runs.verbs, "show", "first", "--table", "neurons"))


def test_the_built_in_corpora_are_listed_with_size_and_licence() -> None:
    out = ask(corpora.verbs).output
    rows = {line.split()[0]: line for line in out.splitlines()[1:4]}
    assert set(rows) == {"sotu-modern", "sotu", "python-reference"}
    assert "public domain" in rows["sotu"] and "PSF" in rows["python-reference"] and "1,98" in rows["sotu"]
    assert "Measurements read sotu-modern" in out


def test_a_path_is_counted_and_previewed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [
        {"body": "One two three.", "kind": "a"},
        {"body": "Four", "kind": "b", "year": 3},
        {"body": "Five", "kind": "a"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    result = ask(
        corpora.verbs, "show", str(path), "--text-column", "body", "--domain-column", "kind", "--documents", "1"
    )
    lines = [line.split() for line in result.output.splitlines()]
    assert result.output.splitlines()[1] == "3 documents, 5 words, 22 characters"
    assert ["a", "2", "4"] in lines and ["b", "1", "1"] in lines and ["metadata:", "year"] in lines
    assert ["x.jsonl:1", "3", "One", "two", "three."] in lines and "x.jsonl:2" not in result.output
    assert "no column 'text' (columns: body, kind)" in refused(ask(corpora.verbs, "show", str(path)))
    assert "neither a file nor a folder" in refused(ask(corpora.verbs, "show", str(tmp_path / "none")))
