"""Routers read as dictionaries: coherence of expert rows against what the model's own k asks for, overlap."""

import plotly.graph_objects as go
from pandas import DataFrame
from plotly.subplots import make_subplots

from app.figures import theme
from app.figures.catalogue import Entry, Frames
from app.figures.theme import Width

NAMES = ("router", "router, centred", "random router")
_NUMBER = {"router": 0, "router, centred": 2, "random router": 6}


def routers(tables: Frames, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Left: mu of the expert rows of every layer, and what its k asks for. Right: experts two tokens share."""
    reading, overlap = tables["router_reading"], tables["router_overlap"]
    figure = make_subplots(cols=2, horizontal_spacing=0.12)
    for name in NAMES:
        part = reading[reading["router"] == name].sort_values("layer")
        look = theme.look(_NUMBER[name], name, dark=dark)
        style = {
            "mode": "lines+markers",
            "name": look.label,
            "legendgroup": name,
            "line": look.line,
            "marker": {"symbol": look.symbol},
        }
        figure.add_scatter(
            x=part["layer"],
            y=part["mu"],
            customdata=part[["k", "k_guaranteed"]],
            hovertemplate="layer %{x}: mu = %{y:.3f}<br>routes k = %{customdata[0]}, guaranteed %{customdata[1]}"
            "<extra>%{fullData.name}</extra>",
            row=1,
            col=1,
            **style,
        )
        shared = overlap[overlap["router"] == name].sort_values("layer")
        if shared.empty:
            continue
        figure.add_scatter(
            x=shared["layer"],
            y=shared["ratio"],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (shared["high"] - shared["mean"]) / shared["chance"],
                "arrayminus": (shared["mean"] - shared["low"]) / shared["chance"],
                "thickness": 1,
            },
            showlegend=False,
            hovertemplate="layer %{x}: %{y:.2f} times chance<extra>%{fullData.name}</extra>",
            row=1,
            col=2,
            **style,
        )
    asked = reading[reading["router"] == "router"].sort_values("layer")
    figure.add_scatter(
        x=asked["layer"],
        y=1 / (2 * asked["k"] - 1),
        mode="lines",
        name="guaranteed below 1/(2k - 1)",
        line={"color": theme.QUIET[dark], "dash": "dot", "width": 1},
        row=1,
        col=1,
    )
    figure.add_hline(y=1, line={"color": theme.QUIET[dark], "width": 1, "dash": "dot"}, row=1, col=2)
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="coherence of expert rows", range=[0, 1.02], col=1)
    figure.update_yaxes(title="experts two tokens share, over chance", rangemode="tozero", col=2)
    return theme.style(figure, dark=dark, width=width, alt=routers_caption(tables))


def routers_caption(tables: Frames) -> str:
    """Caption of `routers`."""
    reading, overlap = tables["router_reading"], tables["router_overlap"]
    own, random = (reading[reading["router"] == name] for name in ("router", "random router"))
    shared = overlap[overlap["router"] == "router"]
    control = overlap[overlap["router"] == "random router"]
    return (
        f"Left: coherence of expert rows in {len(own)} layers; mu (2k - 1) < 1 holds at the model's own k in "
        f"{int(own['certified'].sum())} of them (random routers of the same size: {int(random['certified'].sum())}). "
        f"Right: share of experts that two tokens have in common over chance k/E, {shared['ratio'].min():.2f} to "
        f"{shared['ratio'].max():.2f} (random router on the same inputs: {control['ratio'].min():.2f} to "
        f"{control['ratio'].max():.2f}); {int(shared['n_tokens'].min()):,} tokens a layer of "
        f"{int(shared['n_documents'].min())} blocks of documents, which the 95% intervals resample."
    )


def _plotted(tables: Frames) -> DataFrame:
    left = tables["router_reading"][["layer", "router", "mu", "k", "k_guaranteed", "certified"]]
    right = tables["router_overlap"].drop(columns="k")
    return left.merge(right, how="left", on=["layer", "router"])


FIGURES = (
    Entry(
        name="coherence-routers",
        title="Routers as dictionaries",
        needs=("router_reading", "router_overlap"),
        draw=routers,
        caption=routers_caption,
        plotted=_plotted,
    ),
)
