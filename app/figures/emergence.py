"""Does sparsity come by itself? The two-layer network in four settings.

Tables, as `toymodels.emergence` makes them:

    emergence             setting, seed, step, nonzero, dead, loss
    emergence_summary     setting, start, end, low, high, n_seeds, n_inputs, steps
    emergence_dependence  varied, value, setting, end, low, high, n_seeds
"""

import plotly.graph_objects as go
from pandas import DataFrame
from plotly.subplots import make_subplots

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.intervals import band
from app.figures.theme import Width


def course(emergence: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Share of nonzero hidden activations over training: the mean over seeds, and the range of the seeds as a band."""
    theme.need(("setting", "seed", "step", "nonzero"), emergence, "emergence")
    figure = go.Figure()
    for index, name in enumerate(dict.fromkeys(emergence["setting"])):
        look = theme.look(index, name, dark=dark)
        by_step = emergence[emergence["setting"] == name].groupby("step")["nonzero"].agg(["mean", "min", "max"]) * 100
        band(figure, by_step.index, by_step["min"], by_step["max"], look.colour, name)
        figure.add_scatter(
            x=by_step.index,
            y=by_step["mean"],
            hovertemplate="step %{x}: %{y:.1f}%<extra></extra>",
            legendgroup=name,
            line=look.line,
            mode="lines",
            name=name,
        )
    figure.update_xaxes(title="Adam step")
    figure.update_yaxes(title="Nonzero hidden activations (%)", rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=course_caption(emergence))


def course_caption(emergence: DataFrame) -> str:
    """Where each setting begins and ends, over how many seeds."""
    parts, last = [], int(emergence["step"].max())
    for name, part in emergence.groupby("setting", sort=False):
        end, start = part[part["step"] == last]["nonzero"], part[part["step"] == 0]["nonzero"]
        parts.append(f"{name} {start.mean():.1%} to {end.mean():.1%} [{end.min():.1%}, {end.max():.1%}]")
    return (
        f"Share of hidden activations that are not zero, at the start (the control) and after {last} Adam steps: "
        f"{'; '.join(parts)}. Means and ranges over {emergence['seed'].nunique()} seeds, each on fresh inputs."
    )


def depends(moved: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Where each setting ends when one hyperparameter is moved: a panel a hyperparameter, seeds' range as bars."""
    theme.need(("varied", "value", "setting", "end", "low", "high"), moved, "emergence_dependence")
    names = list(dict.fromkeys(moved["varied"]))
    figure = make_subplots(cols=len(names), shared_yaxes=True, horizontal_spacing=0.02)
    for column, varied in enumerate(names, 1):
        for index, setting in enumerate(dict.fromkeys(moved["setting"])):
            look = theme.look(index, setting, dark=dark)
            rows = moved[(moved["varied"] == varied) & (moved["setting"] == setting)]
            up, down = (rows["high"] - rows["end"]) * 100, (rows["end"] - rows["low"]) * 100
            figure.add_scatter(
                x=rows["value"],
                y=rows["end"] * 100,
                error_y={"array": up, "arrayminus": down, "width": 0},
                legendgroup=setting,
                line=look.line,
                marker=look.marker,
                mode="lines+markers",
                name=setting,
                showlegend=column == 1,
                row=1,
                col=column,
            )
        figure.update_xaxes(title=varied.replace("_", " "), type="category", row=1, col=column)
    figure.update_yaxes(title="Nonzero at the end (%)", rangemode="tozero", row=1, col=1)
    return theme.style(figure, dark=dark, width=width, alt=depends_caption(moved))


def depends_caption(moved: DataFrame) -> str:
    """The range that each setting covers, and over how many seeds."""
    parts = [
        f"{name} between {part['end'].min():.1%} and {part['end'].max():.1%}"
        for name, part in moved.groupby("setting", sort=False)
    ]
    return (
        f"Nonzero hidden activations after training, one hyperparameter moved at a time: {'; '.join(parts)}. "
        f"Means over {int(moved['n_seeds'].iloc[0])} seeds, bars their range. A small training set with random "
        "labels is memorised, and then units stay on: emergence is no law."
    )


FIGURES = (
    of_table(
        "emergence",
        name="emergence-settings",
        title="Where sparsity emerges",
        draw=course,
        caption=course_caption,
        sources=("li2023lazy",),
    ),
    of_table(
        "emergence_dependence",
        name="emergence-dependence",
        title="What that depends on",
        draw=depends,
        caption=depends_caption,
        sources=("li2023lazy",),
    ),
)
