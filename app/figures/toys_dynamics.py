"""What happens while a toy model learns: the loss falls in steps as features' dimensionalities jump.

Tables:

    toy_dynamics   step, feature, dimensionality, norm, best_of (optional)     on a logarithmic schedule
    toy_losses     step, loss                                                  mean batch loss since the step before
"""

from collections.abc import Mapping

import plotly.graph_objects as go
from pandas import DataFrame
from plotly.subplots import make_subplots

from app.figures import theme
from app.figures.catalogue import Entry
from app.figures.theme import Width
from app.figures.toys_layout import LINES, best_of, finish

_TOLD_APART = 8


def dynamics(table: DataFrame, losses: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """D_i of each feature above, the loss below, over the same logarithmic axis of steps."""
    theme.need(("step", "feature", "dimensionality"), table, "toy_dynamics")
    theme.need(("step", "loss"), losses, "toy_losses")
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.64, 0.36], vertical_spacing=0.05)
    features = sorted(table["feature"].unique())
    few = len(features) <= _TOLD_APART
    drawn = table[table["step"] > 0]
    for i, feature in enumerate(features):
        curve = drawn[drawn["feature"] == feature].sort_values("step")
        look = theme.look(i if few else 0, dark=dark)
        figure.add_scatter(
            x=curve["step"],
            y=curve["dimensionality"],
            mode="lines",
            name=f"feature {feature}",
            line={
                "color": look.colour if few else theme.translucent(look.colour, 0.35),
                "width": 2 if few else 1,
                "dash": look.dash if few else "solid",
            },
            hovertemplate=f"feature {feature}, step %{{x:,}}: D = %{{y:.3f}}<extra></extra>",
            showlegend=few,
            row=1,
            col=1,
        )
    for level, name in LINES[:3]:
        figure.add_hline(
            y=level,
            row=1,
            col=1,
            line={"color": theme.QUIET[dark], "dash": "dot", "width": 1},
            layer="below",
            annotation={"text": name, "font": {"color": theme.QUIET[dark], "size": 11}},
            annotation_position="top left",
        )
    known = losses[(losses["step"] > 0) & losses["loss"].notna()].sort_values("step")
    figure.add_scatter(
        x=known["step"],
        y=known["loss"],
        mode="lines",
        line={"color": theme.INK[dark], "width": 2},
        showlegend=False,
        hovertemplate="step %{x:,}: loss %{y:.3g}<extra></extra>",
        row=2,
        col=1,
    )
    figure.update_xaxes(type="log", dtick=1, exponentformat="none", separatethousands=True)
    figure.update_xaxes(title="training step (log)", row=2, col=1)
    figure.update_yaxes(title="dimensionality D<sub>i</sub>", range=[-0.03, 1.08], row=1, col=1)
    figure.update_yaxes(title="loss (mean per feature)", type="log", tickformat="~g", dtick="D2", row=2, col=1)
    told = f"{len(features)} features, {table['step'].nunique()} snapshots of one model"
    told += best_of(table, ", the lowest loss of {}")
    return finish(
        figure,
        told,
        dark=dark,
        width=width,
        alt=caption(table, losses),
        legend=few,
        height=(520, 3.6),
    )


def caption(table: DataFrame, losses: DataFrame) -> str:
    """Where dimensionalities start and end, how large the greatest change between snapshots is, and the loss."""
    start, end = table["step"].min(), table["step"].max()
    last = table[table["step"] == end]["dimensionality"]
    wide = table.pivot_table(index="step", columns="feature", values="dimensionality").sort_index()
    change = wide.diff().abs()
    where = int(change.max(axis=1).to_numpy()[1:].argmax()) + 1 if len(wide) > 1 else 0
    known = losses.dropna(subset=["loss"]).sort_values("step")["loss"]
    return (
        f"Dimensionality of {wide.shape[1]} features and loss over {int(end):,} training steps ({len(wide)} snapshots "
        f"from step {int(start):,}, logarithmic). They end at {last.min():.2f}-{last.max():.2f}; the largest change "
        f"between two snapshots, {change.max().max():.2f}, ends at step {int(wide.index[where]):,}. The loss falls "
        f"from {known.iloc[0]:.3g} to {known.iloc[-1]:.3g}."
    )


def _draw(tables: Mapping[str, DataFrame], *, dark: bool = False, width: Width = "screen") -> go.Figure:
    return dynamics(tables["toy_dynamics"], tables["toy_losses"], dark=dark, width=width)


FIGURES = (
    Entry(
        name="toy-dynamics",
        title="Learning in jumps",
        needs=("toy_dynamics", "toy_losses"),
        draw=_draw,
        caption=lambda tables: caption(tables["toy_dynamics"], tables["toy_losses"]),
        plotted=lambda tables: tables["toy_dynamics"],
        sources=("elhage2022toy",),
    ),
)
