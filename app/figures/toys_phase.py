"""Phase diagrams: what a toy model does with one more feature than it has dimensions.

Tables, as `toymodels.phase.diagram` and `toymodels.phase.boundary_curve` make them:

    toy_phase            density, relative_importance, measured, theory, agrees, off_boundary, loss, loss_theory, seeds
    toy_phase_boundary   curve, relative_importance, density
"""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import Entry
from app.figures.theme import Width
from app.figures.toys_layout import finish

_FILLS = {
    False: ("#dfe3e8", "#f3c88f", "#7fb3d8", "#8fcfb5"),
    True: ("#3d4550", "#8a5a1c", "#235f8c", "#1d6b50"),
}


def diagram(
    cells: DataFrame, boundary: DataFrame | None = None, *, dark: bool = False, width: Width = "screen"
) -> go.Figure:
    """Measured phase of every cell as its colour, the closed-form boundaries as lines, disagreements as crosses."""
    theme.need(("density", "relative_importance", "measured", "theory", "agrees"), cells, "toy_phase")
    names = [c.removeprefix("loss: ") for c in cells.columns if c.startswith("loss: ")] or sorted(set(cells["theory"]))
    number = cells["measured"].map({name: i for i, name in enumerate(names)})
    square = cells.assign(number=number).pivot_table(index="density", columns="relative_importance", values="number")
    hover = cells.pivot_table(index="density", columns="relative_importance", values="measured", aggfunc="first")
    x, y = square.columns.to_numpy(), square.index.to_numpy()
    fills = _FILLS[dark][: len(names)]
    figure = go.Figure()
    figure.add_heatmap(
        z=square.to_numpy(),
        x=np.log10(x),
        y=np.log10(y),
        text=hover.to_numpy(),
        customdata=np.stack(np.meshgrid(x, y), axis=-1),
        colorscale=_steps(fills),
        zmin=-0.5,
        zmax=len(names) - 0.5,
        showscale=False,
        xgap=0.5,
        ygap=0.5,
        hovertemplate="r = %{customdata[0]:.3g}, density %{customdata[1]:.3g}<br>%{text}<extra></extra>",
    )
    for name, fill in zip(names, fills, strict=True):
        if name in set(cells["measured"]):
            marker = {"color": fill, "symbol": "square", "size": 11, "line": {"color": theme.QUIET[dark], "width": 1}}
            figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name)
    wrong = cells[~cells["agrees"]]
    if len(wrong):
        figure.add_scatter(
            x=np.log10(wrong["relative_importance"]),
            y=np.log10(wrong["density"]),
            mode="markers",
            marker={"symbol": "x-thin", "size": 6, "line": {"color": theme.INK[dark], "width": 1.2}},
            customdata=wrong[["theory"]],
            hovertemplate="theory: %{customdata[0]}<extra></extra>",
            name="differs from theory",
        )
    if boundary is not None:
        _lines(figure, boundary, y, dark)
    _axes(figure, x, y)
    told = (
        f"{len(cells):,} cells, each the best of {int(cells['seeds'].iloc[0])} starts by exact loss; "
        f"{100 * cells['agrees'].mean():.1f}% agree with theory"
    )
    finish(
        figure,
        told,
        dark=dark,
        width=width,
        alt=caption(cells),
        height=(560, 4.6),
        legend=True,
        below=True,
    )
    figure.update_layout(legend={"traceorder": "normal"})
    return figure


def caption(cells: DataFrame) -> str:
    """Share of agreement, everywhere and off the boundary, and of single starts as the control."""
    off = cells[cells["off_boundary"]]
    n = 3 if len([c for c in cells.columns if str(c).startswith("loss: ")]) == 4 else 2
    return (
        f"What the lowest-loss toy model with {n} features in {n - 1} dimension{'s' if n > 2 else ''} does with the "
        f"extra feature, by its relative importance and by density (probability that a feature is active). "
        f"{len(cells):,} cells, best of {int(cells['seeds'].iloc[0])} starts by exact loss, closed-form boundary drawn "
        f"over them. Agreement with theory: {cells['agrees'].mean():.1%} of all cells, {off['agrees'].mean():.1%} of "
        f"the {len(off):,} off the boundary; single starts agree in {cells['single_fits_agreeing'].mean():.0%}."
    )


def _lines(figure: go.Figure, boundary: DataFrame, y: np.ndarray, dark: bool) -> None:
    half = (np.log10(y[1]) - np.log10(y[0])) / 2 if len(y) > 1 else 0.0
    for i, (_, curve) in enumerate(boundary.groupby("curve", sort=False)):
        figure.add_scatter(
            x=np.log10(curve["relative_importance"]),
            y=np.log10(curve["density"].clip(lower=10 ** (np.log10(y.min()) - half))),
            mode="lines",
            line={"color": theme.INK[dark], "width": 2.2, "dash": "solid"},
            name="boundary in theory",
            legendgroup="theory",
            showlegend=i == 0,
            hoverinfo="skip",
        )


def _axes(figure: go.Figure, x: np.ndarray, y: np.ndarray) -> None:
    xticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10) if x.min() * 0.99 <= t <= x.max() * 1.01]
    yticks = [t for t in (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1) if y.min() * 0.99 <= t <= y.max() * 1.01]
    edge = {axis: (np.log10(v[1]) - np.log10(v[0])) / 2 for axis, v in (("x", x), ("y", y))}
    figure.update_xaxes(
        title="relative importance of the extra feature, r",
        tickvals=np.log10(xticks),
        ticktext=[f"{t:g}" for t in xticks],
        showgrid=False,
        range=[np.log10(x.min()) - edge["x"], np.log10(x.max()) + edge["x"]],
    )
    figure.update_yaxes(
        title="feature density, 1 − S",
        tickvals=np.log10(yticks),
        ticktext=[f"{t:g}" for t in yticks],
        showgrid=False,
        range=[np.log10(y.min()) - edge["y"], np.log10(y.max()) + edge["y"]],
    )


def _steps(fills: tuple[str, ...]) -> list[list[float | str]]:
    """A colour scale of flat steps."""
    n = len(fills)
    return [[edge / n, fill] for i, fill in enumerate(fills) for edge in (i, i + 1)]


def _draw(tables: Mapping[str, DataFrame], *, dark: bool = False, width: Width = "screen") -> go.Figure:
    return diagram(tables["toy_phase"], tables["toy_phase_boundary"], dark=dark, width=width)


FIGURES = (
    Entry(
        name="toy-phase",
        title="Superposition as a phase change",
        needs=("toy_phase", "toy_phase_boundary"),
        draw=_draw,
        caption=lambda tables: caption(tables["toy_phase"]),
        plotted=lambda tables: tables["toy_phase"],
        sources=("elhage2022toy",),
    ),
)
