"""Uncertainty as it is drawn everywhere: a band around a line, bars at points."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame, Index, Series

from app.figures import theme

Numbers = np.ndarray | Series | Index
"""A column as frames and arrays hold it."""


def band(figure: go.Figure, x: Numbers, low: Numbers, high: Numbers, colour: str, group: str | None = None) -> None:
    """Fill the area between `low` and `high`, shown and hidden with the legend's `group`.

    Draws nothing if an end is missing anywhere: a line with half a band would seem surer where it is not.
    """
    at, bottom, top = (np.asarray(part, dtype=float) for part in (x, low, high))
    if np.isnan(bottom).any() or np.isnan(top).any():
        return
    figure.add_scatter(
        x=np.concatenate([at, at[::-1]]),
        y=np.concatenate([top, bottom[::-1]]),
        fill="toself",
        fillcolor=theme.translucent(colour, 0.2),
        hoverinfo="skip",
        legendgroup=group,
        line={"width": 0},
        mode="lines",
        showlegend=False,
    )


def bars(rows: DataFrame, value: str, scale: float = 1.0) -> dict[str, Any]:
    """Error bars from the columns `value, low, high`, times `scale`; for `error_x=` and `error_y=`."""
    return {
        "array": (rows["high"] - rows[value]) * scale,
        "arrayminus": (rows[value] - rows["low"]) * scale,
        "thickness": 1,
    }
