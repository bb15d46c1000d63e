"""What superposition costs and when it memorises: attacks and finite datasets.

Tables, as `toymodels.adversarial.run` and `toymodels.memorization` make them:

    toy_adversarial_runs     feature_probability, seed, best, features_per_dimension, ratio, ratio_random
    toy_descent_runs         n_points, seed, train_loss, test_loss, feature_dimensionality, point_dimensionality
    toy_points               n_points, point, x, y, gap                                   best seed of each size
"""

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame
from plotly.subplots import make_subplots

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.theme import Width
from app.figures.toys_layout import finish, multiples, span


def adversarial(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Vulnerability relative to a model without superposition against features per dimension, with random attacks."""
    theme.need(("features_per_dimension", "ratio", "best"), table, "toy_adversarial_runs")
    figure, look, control = go.Figure(), theme.look(0, dark=dark), theme.look(6, dark=dark)
    best = table[table["best"]].sort_values("features_per_dimension")
    if "ratio_random" in best:
        figure.add_scatter(
            x=best["features_per_dimension"],
            y=best["ratio_random"],
            mode="lines+markers",
            name="random directions (control)",
            line={"color": control.colour, "dash": control.dash, "width": 1.5},
            marker={"color": control.colour, "symbol": control.symbol, "size": 6},
        )
    figure.add_scatter(
        x=table["features_per_dimension"],
        y=table["ratio"],
        mode="markers",
        name="each seed",
        marker={"color": theme.translucent(look.colour, 0.5), "symbol": "circle-open", "size": 6},
        hoverinfo="skip",
    )
    text = [f"p = {p:.3g}" for p in best["feature_probability"]] if "feature_probability" in best else None
    figure.add_scatter(
        x=best["features_per_dimension"],
        y=best["ratio"],
        mode="lines+markers",
        name="optimal attack, lowest loss",
        line={"color": look.colour},
        marker={"color": look.colour, "size": 8},
        text=text,
        hovertemplate="1/D* = %{x:.2f}: %{y:.2f} times as vulnerable (%{text})<extra></extra>",
    )
    figure.add_hline(y=1, line={"color": theme.QUIET[dark], "dash": "dot", "width": 1})
    figure.update_xaxes(title="features per dimension, 1/D* = ‖W‖²/m", rangemode="tozero")
    figure.update_yaxes(title="vulnerability / no superposition", rangemode="tozero")
    per = table.groupby("feature_probability").size() if "feature_probability" in table else [len(table)]
    told = f"{len(best)} densities, {span(list(per))} seeds each; 1 (dotted): as vulnerable as without superposition"
    return finish(
        figure,
        told,
        dark=dark,
        width=width,
        alt=adversarial_caption(table),
        legend=True,
        height=(430, 3.3),
    )


def adversarial_caption(table: DataFrame) -> str:
    """Correlation of the ratio with features per dimension, over densities."""
    best = table[table["best"]].sort_values("features_per_dimension")
    x, y = best["features_per_dimension"].to_numpy(), best["ratio"].to_numpy()
    words = (
        f"correlation {np.corrcoef(x, y)[0, 1]:.3f} over {len(best)} densities"
        if len(best) > 2
        else "too few densities"
    )
    return (
        f"How much more an optimal L2 attack raises the loss than in a model without superposition, against features "
        f"per dimension: {words}; from {y[0]:.2f} to {y[-1]:.2f}."
    )


def descent(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Test and train loss over the size of the dataset, and below what gets the dimensions: points, then features."""
    theme.need(("n_points", "test_loss", "train_loss"), table, "toy_descent_runs")
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.58, 0.42], vertical_spacing=0.05)
    series = [("test_loss", "test loss", 1), ("train_loss", "train loss", 1)]
    series += [("feature_dimensionality", "of features", 2), ("point_dimensionality", "of data points", 2)]
    for i, (column, words, row) in enumerate(s for s in series if s[0] in table):
        look = theme.look(i, words, dark=dark)
        mean = table.groupby("n_points")[column].mean()
        figure.add_scatter(
            x=table["n_points"],
            y=table[column],
            mode="markers",
            showlegend=False,
            hoverinfo="skip",
            marker={"color": theme.translucent(look.colour, 0.5), "symbol": f"{look.symbol}-open", "size": 6},
            row=row,
            col=1,
        )
        figure.add_scatter(
            x=mean.index,
            y=mean,
            mode="lines+markers",
            name=words if row == 1 else f"dimensionality {words}",
            line=look.line,
            marker=look.marker,
            hovertemplate=f"{words}, %{{x}} points: %{{y:.3f}}<extra></extra>",
            row=row,
            col=1,
        )
    figure.add_hline(y=1, row=1, col=1, line={"color": theme.QUIET[dark], "dash": "dot", "width": 1})
    figure.update_xaxes(type="log", tickvals=sorted(table["n_points"].unique()), tickangle=0)
    figure.update_xaxes(title="data points in training", row=2, col=1)
    figure.update_yaxes(title="loss / predicting 0", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="mean D", rangemode="tozero", row=2, col=1)
    told = f"Mean of {span(list(table.groupby('n_points')['seed'].nunique()))} seeds (open: each); dotted: predicting 0"
    return finish(
        figure,
        told,
        dark=dark,
        width=width,
        alt=descent_caption(table),
        legend=True,
        height=(520, 4.0),
    )


def descent_caption(table: DataFrame) -> str:
    """The bump of the test loss: its height and the ends of the curve."""
    test = table.groupby("n_points")["test_loss"].mean()
    return (
        f"Loss relative to predicting zero, by the number of training points: test loss {test.iloc[0]:.3f} at "
        f"{test.index[0]}, highest {test.max():.3f} at {test.idxmax()}, {test.iloc[-1]:.3f} at "
        f"{test.index[-1]:,} points. Below: mean dimensionality of represented features and data points."
    )


def points(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Where few memorised data points lie in the hidden plane, one panel a size of dataset."""
    theme.need(("n_points", "x", "y"), table, "toy_points")
    sizes = sorted(table["n_points"].unique())
    figure = multiples([f"T = {size}" for size in sizes], spacing=0.02)
    reach = 1.15 * float(np.sqrt(table["x"] ** 2 + table["y"] ** 2).max())
    look = theme.look(0, dark=dark)
    for i, size in enumerate(sizes, start=1):
        rows = table[table["n_points"] == size]
        spokes = {a: np.stack([np.zeros(len(rows)), rows[a], np.full(len(rows), np.nan)], axis=1).ravel() for a in "xy"}
        figure.add_scatter(
            **spokes, mode="lines", line={"color": theme.QUIET[dark], "width": 1}, hoverinfo="skip", row=1, col=i
        )
        figure.add_scatter(
            x=rows["x"],
            y=rows["y"],
            mode="markers",
            marker={"color": look.colour, "size": 8},
            customdata=rows[["gap"]],
            hovertemplate="gap to the next %{customdata[0]:.0f}°<extra></extra>",
            row=1,
            col=i,
        )
        figure.update_yaxes(scaleanchor=f"x{i if i > 1 else ''}", constrain="domain", row=1, col=i)
    figure.update_xaxes(range=[-reach, reach], title="h1", showticklabels=len(sizes) < 4, constrain="domain")
    figure.update_yaxes(range=[-reach, reach], showticklabels=False)
    figure.update_yaxes(title="h2", row=1, col=1)
    told = "Hidden vectors of T training points, the seed of lowest loss for each T"
    return finish(
        figure,
        told,
        dark=dark,
        width=width,
        alt=points_caption(table),
        height=(300, 2.2),
        panels=True,
    )


def points_caption(table: DataFrame) -> str:
    """The angles between neighbours beside those of a regular polygon."""
    told = [
        f"T = {size}: {rows['gap'].min():.0f}-{rows['gap'].max():.0f}° (regular: {360 / len(rows):.0f}°)"
        for size, rows in table.groupby("n_points")
    ]
    return "Angles between neighbouring memorised data points in two hidden dimensions. " + "; ".join(told) + "."


FIGURES = (
    of_table(
        "toy_adversarial_runs",
        name="toy-adversarial",
        title="Superposition makes a model easier to attack",
        draw=adversarial,
        caption=adversarial_caption,
        sources=("elhage2022toy",),
    ),
    of_table(
        "toy_descent_runs",
        name="toy-double-descent",
        title="Data points first, features later",
        draw=descent,
        caption=descent_caption,
    ),
    of_table(
        "toy_points", name="toy-points", title="Memorised points form polygons", draw=points, caption=points_caption
    ),
)
