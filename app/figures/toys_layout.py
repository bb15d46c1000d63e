"""What the figures of toy models share: the line that says what was measured, small multiples, ordering of panels."""

from collections.abc import Hashable, Sequence

import plotly.graph_objects as go
from pandas import DataFrame
from plotly.subplots import make_subplots

from app.figures import theme
from app.figures.theme import Width

LINES = ((1.0, "1"), (2 / 3, "2/3"), (1 / 2, "1/2"), (2 / 5, "2/5"), (3 / 8, "3/8"))
"""Dimensionalities of the polytopes that uniform features prefer, with their names."""

_UNDER = -52
"""Pixels from the plot to a legend below its axis; the plot is some 0.65 of the figure's height."""

SHAPES = {"1": "alone", "2/3": "triangle", "1/2": "digon", "2/5": "pentagon", "3/8": "antiprism"}


def finish(
    figure: go.Figure,
    measured: str,
    *,
    dark: bool,
    width: Width,
    alt: str,
    height: tuple[float, float],
    legend: bool = False,
    panels: bool = False,
    below: bool = False,
) -> go.Figure:
    """Style the figure and write `measured` (what, how many, best of how many) small and quiet above it.

    `height` is in pixels on screen, then in inches in print.  The legend stands above, or under the axis where there is
    little room (`below`, and in columns).
    """
    theme.style(figure, dark=dark, width=width, height=height[width != "screen"], alt=alt)
    size = 12.5 if width == "screen" else 9.0
    lines = wrapped(measured, 58 if width == "screen" else 62 if width == "column" else 95)
    under = below or (legend and width == "column")
    above = (24 if legend and not under else 0) + (20 if panels else 0)
    figure.update_layout(
        title={
            "text": "<br>".join(lines),
            "font": {"size": size, "color": theme.QUIET[dark]},
            "x": 0,
            "xref": "container",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": int(6 + 0.7 * size * (len(lines) - 1)), "l": 8},
        },
        margin={"t": int(12 + 1.35 * size * len(lines) + above)},
        legend={"y": _UNDER / (0.65 * figure.layout.height), "yanchor": "top"}
        if under
        else {"y": 1.0 + (0.07 if panels else 0.01)},
        showlegend=legend,
    )
    figure.update_annotations(
        font={"color": theme.INK[dark], "size": {"screen": 12.5, "wide": 11}.get(width, 9.5)},
        selector={"name": "panel"},
    )
    return figure


def wrapped(text: str, width: int) -> list[str]:
    """The words of `text` in lines of at most `width` characters."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def panels(table: DataFrame, column: str = "panel") -> list[Hashable]:
    """Values of the panel column in the order in which they stand; one unnamed panel where there is no such column."""
    return list(dict.fromkeys(table[column])) if column in table else [""]


def part(table: DataFrame, panel: Hashable, column: str = "panel") -> DataFrame:
    """Rows of one panel."""
    return table[table[column] == panel] if column in table else table


def multiples(names: Sequence[Hashable], *, rows: int = 1, spacing: float = 0.04, **settings: object) -> go.Figure:
    """Empty small multiples, their names above them."""
    columns = -(-len(names) // rows)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[str(name) for name in names],
        horizontal_spacing=spacing,
        **settings,
    )
    figure.update_annotations(name="panel", font={"size": 12.5})
    return figure


def best_of(table: DataFrame, words: str) -> str:
    """`words` with `{}` replaced by how many seeds the table's column `best_of` names; nothing where it is not said."""
    if "best_of" not in table or table.empty:
        return ""
    seeds = int(table["best_of"].iloc[0])
    return words.format(f"{seeds} seeds" if seeds > 1 else "one seed")


def span(values: Sequence[int]) -> str:
    """`3` or `2-5`: the least and the greatest."""
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low}-{high}"
