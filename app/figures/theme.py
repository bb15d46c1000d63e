"""The house style of every figure: sizes for print, colours that survive colour blindness, light and dark.

`style` replaces whatever template is in force with its own, because importing Streamlit changes plotly's default
template and the same data must give the same figure JSON in a notebook, on a page and from the command line.

Colours are those of Okabe & Ito (2008, "Color Universal Design"), the light ones darkened and the dark ones lightened
until each stands out from its ground by a contrast of at least 3 (WCAG 2.2, 1.4.11).  Colour is never alone: series
differ in dash or symbol as well.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import plotly.graph_objects as go
from pandas import DataFrame

Width = Literal["column", "text", "wide", "screen"]

INCHES = {"column": 3.25, "text": 5.5, "wide": 6.75}
"""Widths of print: one column of two, the text block of one, the full page."""

POINTS = {"column": 8.0, "text": 8.5, "wide": 9.0}
"""Size of axis titles in print; tick labels are one point smaller, never below 7."""

PRINT_FONT = 'Arial, "Liberation Sans", Helvetica, "DejaVu Sans", sans-serif'
SCREEN_FONT = '"Source Sans", "Source Sans Pro", Arial, "Liberation Sans", sans-serif'

GROUND = {False: "#ffffff", True: "#14171c"}
INK = {False: "#1d2329", True: "#e8eaed"}
QUIET = {False: "#5b6570", True: "#a9b1ba"}
GRID = {False: "#e3e6ea", True: "#2c323a"}

PALETTE = {
    False: ("#0072b2", "#d55e00", "#00835f", "#b04f8a", "#a06a00", "#3a3f9e", "#5b6570", "#8c2d19"),
    True: ("#56b4e9", "#f58b45", "#2fc79a", "#e79fcb", "#e8bd4c", "#a3a8f5", "#a9b1ba", "#e8836f"),
}
"""Series colours on a light and on a dark ground, in order of use."""

DASHES = ("solid", "dash", "dot", "dashdot", "10px,2px", "longdashdot", "longdash", "2px,5px")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "triangle-down")

SEQUENTIAL = "cividis"
"""Scale of quantities: even in lightness, and the same to a colour-blind eye."""

DIVERGING = ((0.0, "#2166ac"), (0.25, "#92c5de"), (0.5, "#f7f7f7"), (0.75, "#f4a582"), (1.0, "#b2182b"))
"""Scale of differences from a control; set `zmid` to the control's value."""


class Look(NamedTuple):
    """How one series is drawn: colour, line dash, marker symbol, and the words of its legend entry."""

    colour: str
    dash: str
    symbol: str
    label: str

    @property
    def line(self) -> dict[str, str]:
        """For `line=` of a trace; `look.line | {"dash": "solid"}` changes a part."""
        return {"color": self.colour, "dash": self.dash}

    @property
    def marker(self) -> dict[str, str]:
        """For `marker=` of a trace."""
        return {"color": self.colour, "symbol": self.symbol}


_CONDITIONS = {
    "real": (0, "trained, real text"),
    "gaussian": (1, "trained, Gaussian input"),
    "random_init": (6, "random weights"),
    "shuffled": (2, "shuffled weights"),
    "random_directions": (3, "random directions as router"),
    "hash": (5, "random experts by token"),
}


def look(index: int, label: str = "", *, dark: bool = False) -> Look:
    """The look of the `index`-th series."""
    i = index % len(DASHES)
    return Look(PALETTE[dark][i], DASHES[i], SYMBOLS[i], label)


def condition(name: str, *, dark: bool = False) -> Look:
    """The look of a measurement (`real`) or of one of its controls: the same on every page and in every figure."""
    index, label = _CONDITIONS.get(name, (3 + sum(name.encode()) % 3, name.replace("_", " ")))
    return look(index, label, dark=dark)


def conditions(column: Iterable[str]) -> list[str]:
    """The conditions in a column, each once: the measurement first, then its controls."""
    held = list(dict.fromkeys(column))
    return [c for c in _CONDITIONS if c in held] + [c for c in held if c not in _CONDITIONS]


def sample_size(table: DataFrame) -> str:
    """`20,000 tokens in each condition`, or the number of each where they differ (columns `condition, n_tokens`)."""
    tokens = {c: int(table.loc[table["condition"] == c, "n_tokens"].max()) for c in conditions(table["condition"])}
    if list(tokens) == ["real"]:
        return f"{tokens['real']:,} tokens; no control has been measured yet"
    if len(tokens) == 1:
        return f"{next(iter(tokens.values())):,} tokens"
    if len(set(tokens.values())) == 1:
        return f"{next(iter(tokens.values())):,} tokens in each condition"
    return "; ".join(f"{n:,} tokens {condition(c).label}" for c, n in tokens.items())


def words(name: str) -> str:
    """The name of a measure or of a kind of label as it is written: `word_class` -> `word class`."""
    return name.replace("_", " ")


def translucent(colour: str, alpha: float) -> str:
    """`#rrggbb` as an rgba() of opacity `alpha`, for bands of uncertainty."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def pixels(inches: float) -> int:
    """CSS pixels (96 to the inch), which is what a browser prints."""
    return round(inches * 96)


BESIDE = 50
"""Pixels of a printed figure that its vertical axis takes; the legend has the others."""


def style(
    figure: go.Figure,
    *,
    dark: bool = False,
    width: Width = "screen",
    height: float | None = None,
    alt: str | None = None,
) -> go.Figure:
    """Dress `figure` for a page (`screen`, as wide as its place) or for print (`column`, `text`, `wide`); returns it.

    `height` is in inches for print and in pixels on screen; without it a figure that already has a height keeps it on
    screen, and in print is 0.72 (column) or 0.52 times as high as it is wide, and higher under a legend of many rows.
    `alt` describes the figure to who cannot see it (kept in `layout.meta.alt`).  Axis titles are 8-9 pt in print and
    ticks 7-8 pt.
    """
    if width != "screen" and width not in INCHES:
        raise ValueError(f"width '{width}' is not one of column, text, wide, screen")
    on_screen = width == "screen"
    points = 10.5 if on_screen else POINTS[width]
    figure.update_layout(template=template(dark=dark, points=points, screen=on_screen))
    if on_screen:
        figure.update_layout(autosize=True, width=None, height=height or figure.layout.height or 420)
    else:
        inches = INCHES[width]
        rows, line = _legend_rows(figure, inches, points), 2 * max(points - 1, 7) / 72
        high = height or inches * (0.72 if width == "column" else 0.52) + max(0, rows - 2) * line
        figure.update_layout(autosize=False, width=pixels(inches), height=pixels(high))
        _wrap_titles(figure, pixels(high - rows * line) - 40, points)
    if alt:
        figure.update_layout(meta={**(figure.layout.meta or {}), "alt": alt})
    return figure


def _legend_rows(figure: go.Figure, inches: float, points: float) -> int:
    """Rows of a legend above the plot, those after the second of which would be taken from the plot's height: columns
    are as wide as the longest name, at half an em a letter, beside a symbol and a gap of 50 pixels.
    """
    named = {t.legendgroup or t.name: t.name for t in figure.data if t.name and t.showlegend is not False}
    if len(named) < 2 or figure.layout.showlegend is False or figure.layout.legend.orientation == "v":
        return 0
    em = max(points - 1, 7) * 96 / 72
    widths = [50 + 0.5 * em * len(str(name)) for name in named.values()]
    room = pixels(inches) - BESIDE
    columns = max(1, int(room // max(widths)))
    return 1 if sum(widths) <= room else -(-len(widths) // columns)


def _wrap_titles(figure: go.Figure, plot: float, points: float) -> None:
    """Break titles of vertical axes that are longer than their axis (`plot` pixels are there for all rows of axes)."""
    for axis in figure.select_yaxes():
        text, (low, high) = axis.title.text or "", axis.domain or (0, 1)
        room = plot * (high - low) / (0.5 * points * 96 / 72)
        if len(text) > room and " " in text and "<br>" not in text:
            spaces = [i for i, sign in enumerate(text) if sign == " "]
            at = min(spaces, key=lambda i: abs(i - len(text) / 2))
            axis.title.text = f"{text[:at]}<br>{text[at + 1 :]}"


def template(*, dark: bool = False, points: float = 8.0, screen: bool = False) -> go.layout.Template:
    """The plotly template itself: fonts at `points` (ticks one point less, at least 7), axes, legend, colours."""
    title, tick = points * 96 / 72, max(points - 1, 7) * 96 / 72
    ink, quiet, grid, ground = INK[dark], QUIET[dark], GRID[dark], GROUND[dark]
    axis = {
        "automargin": True,
        "gridcolor": grid,
        "gridwidth": 1 if screen else 0.5,
        "linecolor": quiet,
        "linewidth": 1 if screen else 0.75,
        "showline": True,
        "tickcolor": quiet,
        "ticklen": 4 if screen else 3,
        "tickfont": {"size": tick},
        "ticks": "outside",
        "title": {"font": {"size": title}, "standoff": 8 if screen else 4},
        "zeroline": False,
    }
    scene_axis = {"backgroundcolor": ground, "gridcolor": grid, "linecolor": quiet, "tickfont": {"size": tick}}
    edge = 16 if screen else 4
    colorbar = {"outlinewidth": 0, "thickness": 12 if screen else 8, "tickfont": {"size": tick}}
    scatter = {"line": {"width": 2 if screen else 1.3}, "marker": {"size": 7 if screen else 4}}
    return go.layout.Template(
        layout={
            "annotationdefaults": {"font": {"color": ink, "size": tick}, "arrowcolor": quiet},
            "coloraxis": {"colorbar": colorbar},
            "colorscale": {"sequential": SEQUENTIAL, "diverging": [list(stop) for stop in DIVERGING]},
            "colorway": list(PALETTE[dark]),
            "font": {"color": ink, "family": SCREEN_FONT if screen else PRINT_FONT, "size": title},
            "hoverlabel": {"bgcolor": GRID[dark], "font": {"color": ink, "size": tick}},
            "hovermode": "closest",
            "legend": {
                "bgcolor": "rgba(0,0,0,0)",
                "font": {"size": tick},
                "orientation": "h",
                "title": {"font": {"size": tick}},
                "tracegroupgap": 0,
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
            },
            "margin": {"l": edge, "r": edge + 8, "t": edge, "b": edge, "pad": 0},
            "paper_bgcolor": "rgba(0,0,0,0)" if screen else ground,
            "plot_bgcolor": "rgba(0,0,0,0)" if screen else ground,
            "scene": {"xaxis": scene_axis, "yaxis": scene_axis, "zaxis": scene_axis},
            "title": {"font": {"size": title * 1.15}, "x": 0, "xanchor": "left"},
            "xaxis": axis,
            "yaxis": axis,
        },
        data={"heatmap": [{"colorbar": colorbar}], "scatter": [scatter], "scattergl": [scatter]},
    )


def layer_axis(figure: go.Figure, layers: Iterable[int], title: str = "Layer") -> None:
    """A horizontal axis of layers: a tick at each that was measured, or at every fifth where they are more than 16."""
    held = sorted({int(layer) for layer in layers})
    figure.update_xaxes(title=title, **({"tickvals": held} if len(held) <= 16 else {"dtick": 5}))


def note(figure: go.Figure, text: str, *, dark: bool = False) -> go.Figure:
    """Write one quiet sentence in the middle of a figure that has nothing to draw, so that it says why."""
    figure.add_annotation(
        text=text, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"color": QUIET[dark]}
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def need(columns: Sequence[str], frame: DataFrame, table: str) -> None:
    """ValueError naming the columns that `frame`, the table called `table`, lacks."""
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        held = ", ".join(map(str, frame.columns))
        raise ValueError(f"table '{table}' lacks the columns {', '.join(missing)}; it has {held}")
