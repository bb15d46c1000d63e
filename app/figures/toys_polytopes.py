"""Where the features lie in two or three hidden dimensions, and how they got there.

Table:

    toy_film   step, feature, x, y, z, best_of (optional)      directions in a canonical frame, one row a snapshot
"""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.theme import Width
from app.figures.toys_layout import best_of, finish

_NAMED = 8


def polytope(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Features as points joined to the origin, in 2D or 3D; on screen a slider and a button play the training."""
    theme.need(("step", "feature", "x", "y"), table, "toy_film")
    solid = "z" in table and float(table["z"].abs().max()) > 0
    steps = sorted(table["step"].unique())
    reach = 1.15 * max(float(np.sqrt((table[["x", "y"]] ** 2).sum(axis=1).max())), 1e-3)
    last = _traces(table[table["step"] == steps[-1]], solid, dark)
    figure = go.Figure(data=last)
    moving = width == "screen" and len(steps) > 1
    if moving:
        figure.frames = [
            go.Frame(data=_traces(table[table["step"] == step], solid, dark), name=str(step)) for step in steps
        ]
        figure.update_layout(updatemenus=[_buttons(dark)], sliders=[_slider(steps, dark)])
    axis: dict[str, Any] = {"range": [-reach, reach], "zeroline": True, "zerolinecolor": theme.GRID[dark]}
    if solid:
        titles = {f"{a}axis": {**axis, "title": {"text": f"h{i + 1}"}, "nticks": 5} for i, a in enumerate("xyz")}
        figure.update_layout(scene={**titles, "aspectmode": "cube", "camera": {"eye": {"x": 1.6, "y": 1.35, "z": 0.9}}})
    else:
        figure.update_xaxes(**axis, title="hidden dimension h1 (canonical rotation)", constrain="domain")
        figure.update_yaxes(**axis, title="hidden dimension h2", scaleanchor="x", constrain="domain")
    told = f"{_count(table)} in {3 if solid else 2} dimensions{_best(table)}, after {int(steps[-1]):,} steps"
    finish(figure, told, dark=dark, width=width, alt=polytope_caption(table), height=(560, 3.0))
    if moving:
        figure.update_layout(margin={"b": 146 if solid else 160})
    if solid:
        figure.update_layout(margin={"l": 0, "r": 0})
    return figure


def polytope_caption(table: DataFrame) -> str:
    """Lengths and angles at the last step."""
    end = table[table["step"] == table["step"].max()]
    axes = ["x", "y", "z"] if "z" in end else ["x", "y"]
    W = end[axes].to_numpy().T
    norms = np.linalg.norm(W, axis=0)
    kept = norms > 0.1 * norms.max() if norms.max() > 0 else norms > 0
    words = f"{int(kept.sum())} of {len(norms)} features are longer than a tenth of the longest"
    if kept.sum() > 1:
        unit = W[:, kept] / norms[kept]
        cosines = (unit.T @ unit)[np.triu_indices(int(kept.sum()), 1)]
        words += f"; their lengths are {norms[kept].min():.2f}-{norms[kept].max():.2f}, cosines between them "
        words += f"{cosines.min():.3f} to {cosines.max():.3f}"
    return (
        f"Directions of {_count(table)} after {int(end['step'].iloc[0]):,} steps{_best(table)}, turned to a canonical "
        f"orientation so that equal geometries look alike. {words}."
    )


def _traces(end: DataFrame, solid: bool, dark: bool) -> list[go.Scatter] | list[go.Scatter3d]:
    """One trace of spokes and one of points: frames must keep the number of traces."""
    end = end.sort_values("feature")
    axes = ("x", "y", "z") if solid else ("x", "y")
    spokes = {a: np.stack([np.zeros(len(end)), end[a], np.full(len(end), np.nan)], axis=1).ravel() for a in axes}
    looks = [theme.look(i, dark=dark) for i in range(len(end))]
    few = len(end) <= _NAMED
    colours = [look.colour for look in looks] if few else theme.PALETTE[dark][0]
    text = [str(f) for f in end["feature"]] if len(end) <= 24 else None
    hover = "feature %{customdata}: (" + ", ".join(f"%{{{a}:.2f}}" for a in axes) + ")<extra></extra>"
    common: dict[str, Any] = {
        **{a: end[a] for a in axes},
        "customdata": end["feature"],
        "hovertemplate": hover,
        "mode": "markers+text" if text else "markers",
        "text": text,
    }
    line = {"color": theme.QUIET[dark], "width": 1.5 if not solid else 3}
    if solid:
        marker = {"color": colours, "size": 6}
        return [
            go.Scatter3d(**spokes, mode="lines", line=line, hoverinfo="skip"),
            go.Scatter3d(**common, marker=marker, textposition="top center"),
        ]
    symbols = [look.symbol for look in looks] if few else "circle"
    place = ["top right" if x >= 0 else "top left" for x in end["x"]]
    return [
        go.Scatter(**spokes, mode="lines", line=line, hoverinfo="skip"),
        go.Scatter(**common, marker={"color": colours, "size": 11, "symbol": symbols}, textposition=place),
    ]


def _buttons(dark: bool) -> dict[str, Any]:
    play = {"frame": {"duration": 120, "redraw": True}, "transition": {"duration": 0}, "fromcurrent": True}
    stop = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate"}
    return {
        "type": "buttons",
        "direction": "left",
        "showactive": False,
        "x": 0,
        "y": 0,
        "xanchor": "left",
        "yanchor": "top",
        "pad": {"t": 104, "r": 8},
        "bgcolor": theme.GRID[dark],
        "font": {"color": theme.INK[dark]},
        "buttons": [
            {"label": "▶ play", "method": "animate", "args": [None, play]},
            {"label": "❚❚ pause", "method": "animate", "args": [[None], stop]},
        ],
    }


def _slider(steps: list[int], dark: bool) -> dict[str, Any]:
    jump = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    return {
        "active": len(steps) - 1,
        "x": 0,
        "len": 1,
        "y": 0,
        "pad": {"t": 54},
        "currentvalue": {"prefix": "step ", "font": {"size": 12, "color": theme.QUIET[dark]}},
        "font": {"color": "rgba(0,0,0,0)", "size": 1},
        "ticklen": 0,
        "minorticklen": 0,
        "bgcolor": theme.GRID[dark],
        "bordercolor": theme.QUIET[dark],
        "steps": [{"label": f"{int(s):,}", "method": "animate", "args": [[str(s)], jump]} for s in steps],
    }


def _count(table: DataFrame) -> str:
    n = table["feature"].nunique()
    return f"{n} feature{'s' if n != 1 else ''}"


def _best(table: DataFrame) -> str:
    return best_of(table, ", lowest loss of {}")


FIGURES = (
    of_table(
        "toy_film",
        name="toy-polytope",
        title="Where the features lie",
        draw=polytope,
        caption=polytope_caption,
        sources=("elhage2022toy",),
    ),
)
