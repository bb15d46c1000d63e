"""Where the features lie in two or three hidden dimensions, and how they got there.

Table:

    toy_film   step, feature, x, y, z, best_of (optional)      directions in a canonical frame, one row a snapshot
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.theme import Width
from app.figures.toys_layout import best_of, finish

_NAMED = 8
_FLAT = 0.97
"""Cosine between the normals of two triangles of a hull (14 degrees) beyond which they are one face."""


def polytope(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Features as points joined to the origin, in 2D or 3D; on screen a slider and a button play the training.

    In 3D the edges of the polytope that the features end in are drawn as well, in every frame the same pairs.
    """
    theme.need(("step", "feature", "x", "y"), table, "toy_film")
    solid = "z" in table and float(table["z"].abs().max()) > 0
    steps = sorted(table["step"].unique())
    reach = 1.15 * max(float(np.sqrt((table[["x", "y"]] ** 2).sum(axis=1).max())), 1e-3)
    end = table[table["step"] == steps[-1]].sort_values("feature")
    pairs = _edges(end[["x", "y", "z"]].to_numpy()) if solid else []
    last = _traces(end, pairs, solid, dark)
    figure = go.Figure(data=last)
    moving = width == "screen" and len(steps) > 1
    if moving:
        figure.frames = [
            go.Frame(data=_traces(table[table["step"] == step], pairs, solid, dark), name=str(step)) for step in steps
        ]
        figure.update_layout(updatemenus=[_buttons(dark)], sliders=[_slider(steps, dark)])
    axis: dict[str, Any] = {"range": [-reach, reach], "zeroline": True, "zerolinecolor": theme.GRID[dark]}
    if solid:
        titles = {f"{a}axis": {**axis, "title": {"text": f"h{i + 1}"}, "nticks": 5} for i, a in enumerate("xyz")}
        away = 1.0 if width == "screen" else 1.2  # a printed scene is wider than high, and would lose its axis titles
        eye = {"x": 1.6 * away, "y": 1.35 * away, "z": 0.9 * away}
        figure.update_layout(scene={**titles, "aspectmode": "cube", "camera": {"eye": eye}})
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
    hull = " Solid lines: edges of their convex hull." if len(axes) == 3 and table["z"].abs().max() > 0 else ""
    return (
        f"Directions of {_count(table)} after {int(end['step'].iloc[0]):,} steps{_best(table)}, turned to a canonical "
        f"orientation so that equal geometries look alike. {words}.{hull}"
    )


def _edges(points: Float[np.ndarray, "n 3"]) -> list[tuple[int, int]]:
    """Pairs of points that an edge of their convex hull joins; none where they lie in a plane.

    The hull comes as triangles: a side between two of nearly one direction lies inside a face, and is no edge.
    """
    from scipy.spatial import ConvexHull, QhullError

    try:
        hull = ConvexHull(points)
    except QhullError:
        return []
    found: dict[tuple[int, int], float] = {}
    for triangle, others, normal in zip(hull.simplices, hull.neighbors, hull.equations[:, :3], strict=True):
        for corner, other in enumerate(others):
            first, second = sorted(int(v) for v in np.delete(triangle, corner))
            found[first, second] = float(normal @ hull.equations[other, :3])
    return sorted(pair for pair, alike in found.items() if alike < _FLAT)


def _traces(
    end: DataFrame, pairs: Sequence[tuple[int, int]], solid: bool, dark: bool
) -> list[go.Scatter] | list[go.Scatter3d]:
    """One trace of spokes, one of points, in 3D one of edges: frames must keep the number of traces."""
    end = end.sort_values("feature")
    axes = ("x", "y", "z") if solid else ("x", "y")
    gap = np.full(len(end), np.nan)
    spokes = {a: np.stack([np.zeros(len(end)), end[a], gap], axis=1).ravel() for a in axes}
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
        ends, apart = np.array(pairs, dtype=int).reshape(-1, 2), np.full(len(pairs), np.nan)
        edges = {a: np.column_stack([end[a].to_numpy()[ends], apart]).ravel() for a in axes}
        return [
            go.Scatter3d(**spokes, mode="lines", line=line | ({"dash": "dot"} if pairs else {}), hoverinfo="skip"),
            go.Scatter3d(**common, marker=marker, textposition="top center"),
            go.Scatter3d(**edges, mode="lines", line={"color": theme.QUIET[dark], "width": 3}, hoverinfo="skip"),
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
