"""README quotes the kept results, and no others."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import _table


def test_readme_shows_what_was_measured() -> None:
    text = _table.README.read_text(encoding="utf-8")
    assert text == _table.replaced(text, _table.markdown()), "run `python -m tests.benchmarks --readme`"


def test_every_result_is_in_the_table() -> None:
    kept = {p.stem for p in (_table.HERE / "results").glob("*.json")}
    assert kept <= set(_table.READERS)
    assert {p.stem for p in _table.HERE.glob("*.py") if not p.stem.startswith("_")} <= kept


def test_a_figure_is_the_results_own(tmp_path: Path) -> None:
    result = {"rows": [{"tokens": 10, "peak_mb": 1.0}, {"tokens": 99, "peak_mb": 3.0}], "ratio": 3.0, "goal": 1.05}
    (tmp_path / "memory.json").write_text(json.dumps(result))
    assert "99 tokens against 10 | 3 against 1 MB: 3.000 | 1.05 |" in _table.markdown(tmp_path)


def test_a_readme_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="has no lines"):
        _table.replaced("# x", "table")
