"""Rows as aligned columns of plain text: whole on a narrow terminal, and food for `grep` and `cut`."""

from collections.abc import Sequence

import typer


def echo_columns(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a header and rows, columns two spaces apart; columns of numbers stand to the right."""
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(header))]
    for line in [list(header), *cells]:
        placed = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        typer.echo("  ".join(placed).rstrip())


def _text(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else " ".join(str(cell).split())
