"""The sparsity ladder: the share of units a token uses, and how many different sets of them a text shows.

Table, as `probes.ladder.measure` makes it:

    ladder   model, condition, rung, layer, n_units, active_share, low, high, n_sets, sets_per_token, n_tokens, ...
"""

import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.intervals import bars
from app.figures.theme import Width

RUNGS = {"embedding": "embedding lookup", "moe": "mixture of experts", "dense": "dense block"}
_INDEX = {"embedding": 2, "moe": 1, "dense": 0}
_NEEDS = ("model", "condition", "rung", "layer", "n_units", "active_share", "low", "high", "n_sets", "n_tokens")


def ladder(frame: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Distinct active sets a token against the active share, both logarithmic; one point a layer."""
    theme.need(_NEEDS, frame, "ladder")
    figure = go.Figure()
    for rung, condition, part in _points(frame):
        look = theme.look(_INDEX[rung], dark=dark)
        words = "" if rung == "embedding" else f", {theme.condition(condition).label}"
        figure.add_scatter(
            x=part["active_share"] * 100,
            y=part["n_sets"] / part["n_tokens"] * 100,
            customdata=part[["model", "layer", "n_sets", "n_tokens", "low", "high"]],
            error_x=bars(part, "active_share", 100),
            hovertemplate="%{customdata[0]}, layer %{customdata[1]}: %{x:.3g}% active, "
            "%{customdata[2]:,.0f} sets in %{customdata[3]:,} tokens",
            marker={
                "color": look.colour,
                "symbol": look.symbol if condition == "real" else f"{look.symbol}-open",
            },
            mode="markers",
            name=RUNGS[rung] + words,
        )
    figure.update_xaxes(title="Units used for a token (%)", type="log", dtick=1)
    figure.update_yaxes(title="Distinct sets used (% of tokens)", type="log")
    return theme.style(figure, dark=dark, width=width, alt=caption(frame))


def caption(frame: DataFrame) -> str:
    """Mean active share and sets of every rung, beside random weights."""
    theme.need(_NEEDS, frame, "ladder")
    said = []
    for rung, condition, part in _points(frame):
        words = "" if rung == "embedding" else f", {theme.condition(condition).label}"
        said.append(
            f"{RUNGS[rung]}{words}: {part['active_share'].mean():.2%} of {int(part['n_units'].max()):,} units, "
            f"{part['n_sets'].mean():,.0f} sets"
        )
    return (
        f"Share of units used for a token and number of distinct sets of units seen, means over the layers: "
        f"{'; '.join(said)}. {int(frame['n_tokens'].max()):,} tokens a layer, attention sinks left out; bars: 95% "
        "bootstrap intervals over documents. A lookup uses exactly one row and a mixture exactly k experts."
    )


def _points(frame: DataFrame) -> list[tuple[str, str, DataFrame]]:
    """Rows by rung and condition; a lookup has no weights to randomise, so it is there once."""
    pairs = [(str(a), str(b)) for a, b in frame[["rung", "condition"]].drop_duplicates().to_numpy().tolist()]
    return [
        (rung, condition, frame[(frame["rung"] == rung) & (frame["condition"] == condition)])
        for rung, condition in pairs
        if rung != "embedding" or condition == "real"
    ]


FIGURES = (of_table("ladder", name="ladder", title="The sparsity ladder", draw=ladder, caption=caption),)
