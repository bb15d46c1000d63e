"""Does sparsity come by itself? The two-layer network in four settings, and snapshots of small language models.

Tables, as `toymodels.emergence` and `app.experiments.emergence` make them:

    emergence             setting, seed, step, nonzero, dead, loss
    emergence_summary     setting, start, end, low, high, n_seeds, n_inputs, steps
    emergence_dependence  varied, value, setting, end, low, high, n_seeds
    emergence_snapshots   variant, step, layer, measure, value, low, high, n_tokens
    emergence_losses      variant, step, loss, loss_all, unigram, n_tokens
"""

from functools import partial

import plotly.graph_objects as go
from pandas import DataFrame
from plotly.subplots import make_subplots

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.intervals import band
from app.figures.theme import Width

MEASURES = {
    "firing_frequency": "Neurons firing (% of tokens)",
    "energy_top10": "Energy in the top 10% (%)",
    "mutual_coherence": "Mutual coherence of the columns",
    "load_entropy": "Evenness of the experts' load (1: all the same)",
}
"""Axis titles of the measures of a snapshot."""
_PLAIN = ("mutual_coherence", "load_entropy")  # not shares, so not drawn in per cent


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
            line={"color": look.colour, "dash": look.dash},
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
                line={"color": look.colour, "dash": look.dash},
                marker={"color": look.colour, "symbol": look.symbol},
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


def select_snapshots(snapshots: DataFrame, measure: str = "firing_frequency") -> DataFrame:
    """Mean over layers of one measure, a row a variant and step: `variant, step, value, low, high, n_tokens`.

    `low` and `high` are means of the layers' interval ends.  ValueError lists the measures there are.
    """
    theme.need(("variant", "step", "layer", "measure", "value", "low", "high"), snapshots, "emergence_snapshots")
    if measure not in set(snapshots["measure"]):
        held = ", ".join(dict.fromkeys(snapshots["measure"]))
        raise ValueError(f"no measure '{measure}' in the table; there are {held}")
    rows = snapshots[snapshots["measure"] == measure]
    grouped = rows.groupby(["variant", "step"], sort=False)[["value", "low", "high", "n_tokens"]].mean()
    return grouped.reset_index()


def over_training(
    snapshots: DataFrame, measure: str = "firing_frequency", *, dark: bool = False, width: Width = "screen"
) -> go.Figure:
    """One measure over the snapshots of each training, mean over layers, with 95% intervals as bands."""
    rows, scale = select_snapshots(snapshots, measure), 1 if measure in _PLAIN else 100
    figure = go.Figure()
    for index, name in enumerate(dict.fromkeys(rows["variant"])):
        look, part = theme.look(index, name, dark=dark), rows[rows["variant"] == name]
        x = part["step"] + 1  # so that step 0 stands on a logarithmic axis
        band(figure, x, part["low"] * scale, part["high"] * scale, look.colour, name)
        figure.add_scatter(
            x=x,
            y=part["value"] * scale,
            customdata=part["step"],
            hovertemplate="step %{customdata}: %{y:.3g}<extra></extra>",
            legendgroup=name,
            line={"color": look.colour, "dash": look.dash},
            marker={"color": look.colour, "symbol": look.symbol},
            mode="lines+markers",
            name=name,
        )
    figure.update_xaxes(title="Training step + 1", type="log", dtick=1)
    figure.update_yaxes(title=MEASURES.get(measure, measure.replace("_", " ")))
    return theme.style(figure, dark=dark, width=width, alt=over_training_caption(snapshots, measure))


def over_training_caption(snapshots: DataFrame, measure: str = "firing_frequency") -> str:
    """First and last value of each training, the first being random weights, and the sample size."""
    rows = select_snapshots(snapshots, measure)
    form = "{:.2f}" if measure in _PLAIN else "{:.1%}"
    ends = [
        f"{name} {form.format(part['value'].iloc[0])} to {form.format(part['value'].iloc[-1])}"
        for name, part in rows.groupby("variant", sort=False)
    ]
    sample = rows["n_tokens"].max()
    size = "" if sample != sample else f" {int(sample):,} held-out tokens a snapshot; bands: 95%, documents resampled."
    title = MEASURES.get(measure, measure.replace("_", " ")).removesuffix(" (%)").removesuffix(" (% of tokens)")
    return (
        f"{title}, mean over layers, from random weights (the control) to step {int(rows['step'].max())}: "
        f"{'; '.join(ends)}. All neurons are let through while measuring; one training each.{size}"
    )


def losses(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Held-out loss of each training over its snapshots, with what token frequencies alone give."""
    theme.need(("variant", "step", "loss", "unigram"), table, "emergence_losses")
    figure = go.Figure()
    for index, name in enumerate(dict.fromkeys(table["variant"])):
        look, part = theme.look(index, name, dark=dark), table[table["variant"] == name]
        figure.add_scatter(
            x=part["step"] + 1,
            y=part["loss"],
            line={"color": look.colour, "dash": look.dash},
            marker={"color": look.colour, "symbol": look.symbol},
            mode="lines+markers",
            name=name,
        )
    figure.add_hline(y=float(table["unigram"].iloc[0]), line={"color": theme.QUIET[dark], "dash": "dot", "width": 1})
    figure.update_xaxes(title="Training step + 1", type="log", dtick=1)
    figure.update_yaxes(title="Held-out loss (nats a token)")
    return theme.style(figure, dark=dark, width=width, alt=losses_caption(table))


def losses_caption(table: DataFrame) -> str:
    """Last loss of each training, as trained and with all neurons, beside token frequencies."""
    last = table.groupby("variant", sort=False).tail(1)
    parts = [
        f"{r['variant']} {r['loss']:.3f}"
        + (f" ({r['loss_all']:.3f} with all neurons)" if r["loss_all"] != r["loss"] else "")
        for r in last.to_dict("records")
    ]
    return (
        f"Held-out loss after {int(last['step'].iloc[0])} steps, nats a token: {'; '.join(parts)}; token frequencies "
        f"alone {last['unigram'].iloc[0]:.3f} (dotted). {int(last['n_tokens'].iloc[0]):,} tokens, one training each, "
        "without interval."
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
    *(
        of_table(
            "emergence_snapshots",
            name=f"emergence-{name}",
            title=title,
            draw=partial(over_training, measure=measure),
            caption=partial(over_training_caption, measure=measure),
            plotted=partial(select_snapshots, measure=measure),
            sources=("li2023lazy",),
        )
        for name, title, measure in (
            ("firing", "How many neurons fire, over training", "firing_frequency"),
            ("energy", "Energy in the top 10% of neurons, over training", "energy_top10"),
            ("coherence", "Coherence of the value vectors, over training", "mutual_coherence"),
        )
    ),
    of_table(
        "emergence_losses",
        name="emergence-losses",
        title="What the top-k costs",
        draw=losses,
        caption=losses_caption,
        sources=("li2023lazy",),
    ),
)
