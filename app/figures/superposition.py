"""Where the features of a toy model lie in two dimensions.

Table `toy_directions`: step, feature, x, y, loss: weights of the best of several toys, while it was trained.
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


FIGURES = (
    of_table(
        "toy_directions",
        name="toy-directions",
        title="Five features in two dimensions",
        draw=directions,
        caption=directions_caption,
        sources=("elhage2022toy",),
    ),
)
