"""Rows as aligned columns of plain text: whole on a narrow terminal, and food for `grep` and `cut`."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pandas import DataFrame


def echo_table(table: "DataFrame", columns: Sequence[str] | None = None, *, digits: int = 3) -> None:
    """Print these columns of a table (all, if none are named), numbers rounded to `digits` places."""
    shown = table[list(table.columns if columns is None else columns)].round(digits)
    echo_columns(list(shown.columns), shown.to_numpy().tolist())


def echo_columns(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a header and rows, columns two spaces apart; numbers stand to the right, one that is missing is a dash."""
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(header))]
    for line in [list(header), *cells]:
        placed = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        typer.echo("  ".join(placed).rstrip())


def _text(cell: object) -> str:
    if isinstance(cell, float) and math.isnan(cell):
        return "-"
    return f"{cell:,}" if isinstance(cell, int) else " ".join(str(cell).split())
