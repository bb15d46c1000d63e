"""The ledger of claims in README, from the runs that ship: `python -m tests.gallery.claims`."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from app.claims.ledger import ledger, markdown
from data import runs

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- claims: python -m tests.gallery.claims -->", "<!-- end of claims -->"


def table() -> str:
    """What `sparsescope claims --markdown` prints in a folder without runs."""
    with TemporaryDirectory() as empty, mock.patch.dict(os.environ, SPARSESCOPE_RUNS=empty):
        return markdown(ledger(runs.known_runs()))


def replaced(text: str) -> str:
    """README with this table between its marks; ValueError if it has none."""
    if BEGIN not in text or END not in text:
        raise ValueError(f"README has no lines '{BEGIN}' and '{END}'")
    return f"{text.split(BEGIN)[0]}{BEGIN}\n\n{table()}\n{text[text.index(END) :]}"


if __name__ == "__main__":
    README.write_text(replaced(README.read_text(encoding="utf-8")), encoding="utf-8")
