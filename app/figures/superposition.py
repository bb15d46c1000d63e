"""Toy models of superposition as the demo measures them: where five features lie in two dimensions, and how much room
a feature has as features become sparser.

Tables:

    toy_directions   step, feature, x, y, loss        weights of the best of several toys, while it was trained
    toy_room         feature_probability, seed, best, loss, dimensions_per_feature, n_features, d_hidden
"""

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.theme import Width


def directions(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Each feature's direction at the end of training, with the path it took there."""
    theme.need(("step", "feature", "x", "y"), table, "toy_directions")
    figure = go.Figure()
    last = table["step"].max()
    for i, feature in enumerate(sorted(set(table["feature"]))):
        path = table[table["feature"] == feature].sort_values("step")
        look, end = theme.look(i, dark=dark), path[path["step"] == last].iloc[0]
        figure.add_scatter(
            x=path["x"],
            y=path["y"],
            customdata=path["step"],
            hovertemplate=f"feature {feature}, step %{{customdata:,}}<extra></extra>",
            line={"color": theme.translucent(look.colour, 0.45), "dash": "dot", "width": 1},
            mode="lines",
            showlegend=False,
        )
        figure.add_scatter(
            x=[0, end["x"]],
            y=[0, end["y"]],
            hovertemplate=f"feature {feature}: (%{{x:.2f}}, %{{y:.2f}})<extra></extra>",
            line={"color": look.colour, "dash": "solid"},
            marker={
                "color": look.colour,
                "symbol": ["circle", look.symbol],
                "size": [1, 9 if width == "screen" else 5],
            },
            mode="lines+markers",
            name=f"feature {feature}",
        )
    reach = float(np.abs(table[["x", "y"]].to_numpy()).max()) * 1.15 if len(table) else 1.0
    figure.update_xaxes(title="Hidden dimension 1", range=[-reach, reach], constrain="domain")
    figure.update_yaxes(title="Hidden dimension 2", range=[-reach, reach], scaleanchor="x", constrain="domain")
    theme.style(
        figure, dark=dark, width=width, height=3.1 if width == "column" else None, alt=directions_caption(table)
    )
    return figure


def directions_caption(table: DataFrame) -> str:
    """How long the directions are and how evenly they are spread, beside what an even spread would be."""
    end = table[table["step"] == table["step"].max()]
    x, y = end["x"].to_numpy(), end["y"].to_numpy()
    turns = np.sort(np.degrees(np.arctan2(y, x)))
    gaps = np.diff(np.append(turns, turns[0] + 360))
    n = len(end)
    return (
        f"Directions of {n} sparse features in 2 dimensions, the best of several toy models after "
        f"{int(end['step'].iloc[0]):,} steps (loss {end['loss'].iloc[0]:.4f}); dotted: their paths during training. "
        f"Lengths {np.hypot(x, y).min():.2f}-{np.hypot(x, y).max():.2f}; angles between neighbours "
        f"{gaps.min():.0f}°-{gaps.max():.0f}°, where an even spread has {360 / n:.0f}°. "
        f"Without superposition only 2 of the {n} would be represented."
    )


def room(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Dimensions per feature, D* = d_hidden / ||W||_F^2, against 1 / (1 - S); all seeds as points, the best joined."""
    theme.need(("feature_probability", "best", "dimensions_per_feature"), table, "toy_room")
    figure, look = go.Figure(), theme.look(0, dark=dark)
    best = table[table["best"]].sort_values("feature_probability")
    figure.add_scatter(
        x=1 / table["feature_probability"],
        y=table["dimensions_per_feature"],
        hovertemplate="1/(1-S) = %{x:.3g}: D* = %{y:.3f}<extra></extra>",
        marker={"color": theme.translucent(look.colour, 0.5), "symbol": "circle-open"},
        mode="markers",
        name="each seed",
    )
    figure.add_scatter(
        x=1 / best["feature_probability"],
        y=best["dimensions_per_feature"],
        hovertemplate="1/(1-S) = %{x:.3g}: D* = %{y:.3f}<extra></extra>",
        line={"color": look.colour},
        marker={"color": look.colour},
        mode="lines+markers",
        name="lowest loss",
    )
    control = theme.QUIET[dark]
    for level, words in ((1.0, "one dimension a feature"), (0.5, "two features share one")):
        figure.add_hline(
            y=level,
            line={"color": control, "dash": "dash", "width": 1},
            annotation={"text": words, "font": {"color": control}},
            annotation_position="top right",
        )
    figure.update_xaxes(title="1 / (1 − S), sparser to the right", type="log", tickvals=[1, 2, 5, 10, 20, 50, 100, 200])
    figure.update_yaxes(title="Dimensions per feature, D*", rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=room_caption(table))


def room_caption(table: DataFrame) -> str:
    """D* of the densest and of the sparsest features, with the spread over seeds."""
    shape = table.iloc[0]
    low, high = table["feature_probability"].min(), table["feature_probability"].max()
    ends = []
    for p in (high, low):
        values = table.loc[table["feature_probability"] == p, "dimensions_per_feature"]
        ends.append(
            f"{values.median():.2f} ({values.min():.2f}-{values.max():.2f} over {len(values)} seeds) at p = {p:g}"
        )
    return (
        f"Dimensions per feature, D* = m / ||W||², of toy models with {int(shape['n_features'])} features in "
        f"{int(shape['d_hidden'])} dimensions, by how often a feature is active: {ends[0]}, the dense control, and "
        f"{ends[1]}. Below 1, features share dimensions: superposition."
    )


FIGURES = (
    of_table(
        "toy_directions",
        name="toy-directions",
        title="Five features in two dimensions",
        draw=directions,
        caption=directions_caption,
        sources=("elhage2022toy",),
    ),
    of_table(
        "toy_room",
        name="toy-room",
        title="How much room a feature has",
        draw=room,
        caption=room_caption,
        sources=("elhage2022toy",),
    ),
)
