"""Snapshots of small language models over their training: sparsity, superposition, routing, and what they cost.

Tables, as `app.experiments.emergence` makes them:

    emergence_snapshots   variant, seed, step, layer, measure, value, low, high, chance, n_tokens    dense models
    emergence_routing     the same, for mixtures of experts
    emergence_losses      variant, seed, step, loss, loss_all, unigram, n_tokens
"""

from functools import partial

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.intervals import band
from app.figures.theme import Width

MEASURES = {
    "firing_frequency": "Neurons firing (% of tokens)",
    "energy_top10": "Energy in the top 10% (%)",
    "mutual_coherence": "Mutual coherence of the value vectors",
    "features_per_dimension": "Value vectors per dimension they use",
    "load_entropy": "Evenness of the experts' load (1: all the same)",
    "saturation": "Experts already those of the end (%)",
    "repeat_rate": "Experts shared with the token before (%)",
}
"""Axis titles of the measures of a snapshot."""
_PLAIN = ("mutual_coherence", "features_per_dimension", "load_entropy")  # not shares, so not drawn in per cent


def select(snapshots: DataFrame, measure: str = "firing_frequency") -> DataFrame:
    """Mean over layers of one measure, a row a variant and step: `variant, step, value, low, high, chance, n_tokens`.

    `value` is the mean over seeds, `low` and `high` are the least and greatest seed; of a single seed they are the
    means of the layers' 95% intervals over documents.  ValueError lists the measures there are.
    """
    needed = ("variant", "seed", "step", "layer", "measure", "value", "low", "high", "chance", "n_tokens")
    theme.need(needed, snapshots, "emergence_snapshots")
    if measure not in set(snapshots["measure"]):
        held = ", ".join(dict.fromkeys(snapshots["measure"]))
        raise ValueError(f"no measure '{measure}' in the table; there are {held}")
    rows = snapshots[snapshots["measure"] == measure]
    numbers = ["value", "low", "high", "chance", "n_tokens"]
    by_seed = rows.groupby(["variant", "step", "seed"], sort=False)[numbers].mean()
    grouped = by_seed.groupby(["variant", "step"], sort=False)
    found = grouped.mean().assign(n_seeds=grouped.size())
    if n_seeds(rows) > 1:
        found["low"], found["high"] = grouped["value"].min(), grouped["value"].max()
    return found.reset_index()


def n_seeds(table: DataFrame) -> int:
    """Trainings of each variant."""
    return int(table["seed"].nunique())


def over_training(
    snapshots: DataFrame, measure: str = "firing_frequency", *, dark: bool = False, width: Width = "screen"
) -> go.Figure:
    """One measure over the snapshots of each variant, mean over layers and seeds; chance dotted, where there is one."""
    rows, scale = select(snapshots, measure), 1 if measure in _PLAIN else 100
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
            line=look.line,
            marker=look.marker,
            mode="lines+markers",
            name=name,
        )
    if rows["chance"].notna().all():
        chance = rows.groupby("step")["chance"].mean()
        figure.add_scatter(
            x=chance.index + 1,
            y=chance * scale,
            line={"color": theme.QUIET[dark], "dash": "dot"},
            mode="lines",
            name="chance",
        )
    figure.update_xaxes(title="Training step + 1", type="log", dtick=1)
    figure.update_yaxes(title=MEASURES.get(measure, measure.replace("_", " ")))
    return theme.style(figure, dark=dark, width=width, alt=caption(snapshots, measure))


def caption(snapshots: DataFrame, measure: str = "firing_frequency") -> str:
    """First and last value of each variant, the first being random weights, chance, and the sample size."""
    rows = select(snapshots, measure)
    form = "{:.2f}" if measure in _PLAIN else "{:.1%}"
    said = []
    for name, part in rows.groupby("variant", sort=False):
        start, end = (part.iloc[i] for i in (0, -1))
        ends = "" if np.isnan(end["low"]) else f" [{form.format(end['low'])}, {form.format(end['high'])}]"
        said.append(f"{name} {form.format(start['value'])} to {form.format(end['value'])}{ends}")
    chance = rows["chance"].iloc[-1]
    beside = "" if np.isnan(chance) else f" Chance at the end (dotted): {form.format(chance)}."
    sample = rows["n_tokens"].max()
    size = "" if np.isnan(sample) else f" {int(sample):,} held-out tokens a snapshot."
    title = MEASURES.get(measure, measure.replace("_", " ")).removesuffix(" (%)").removesuffix(" (% of tokens)")
    return (
        f"{title}, mean over layers, from random weights (the control) to step {int(rows['step'].max())}: "
        f"{'; '.join(said)}.{beside} All neurons are let through while measuring.{size} {_spread(snapshots)}"
    )


def _spread(table: DataFrame) -> str:
    n = n_seeds(table)
    if n > 1:
        return f"Means over {n} seeds; bands and brackets: their range."
    return "One training each; bands and brackets, where there are any: 95%, documents resampled."


def losses(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Held-out loss of each variant over its snapshots, with what token frequencies alone give."""
    theme.need(("variant", "seed", "step", "loss", "unigram"), table, "emergence_losses")
    figure = go.Figure()
    for index, name in enumerate(dict.fromkeys(table["variant"])):
        look, part = theme.look(index, name, dark=dark), table[table["variant"] == name]
        by_step = part.groupby("step")["loss"].agg(["mean", "min", "max"])
        band(figure, by_step.index + 1, by_step["min"], by_step["max"], look.colour, name)
        figure.add_scatter(
            x=by_step.index + 1,
            y=by_step["mean"],
            legendgroup=name,
            line=look.line,
            marker=look.marker,
            mode="lines+markers",
            name=name,
        )
    figure.add_hline(y=float(table["unigram"].mean()), line={"color": theme.QUIET[dark], "dash": "dot", "width": 1})
    figure.update_xaxes(title="Training step + 1", type="log", dtick=1)
    figure.update_yaxes(title="Held-out loss (nats a token)")
    return theme.style(figure, dark=dark, width=width, alt=losses_caption(table))


def losses_caption(table: DataFrame) -> str:
    """Last loss of each variant, as trained and with all neurons, beside token frequencies."""
    last = table[table["step"] == table["step"].max()]
    said = []
    for name, part in last.groupby("variant", sort=False):
        loss, whole = part["loss"], part["loss_all"].mean()
        ends = f" [{loss.min():.3f}, {loss.max():.3f}]" if len(part) > 1 else ""
        dense = f" ({whole:.3f} with all neurons)" if whole != loss.mean() else ""
        said.append(f"{name} {loss.mean():.3f}{ends}{dense}")
    spread = f"means and ranges over {n_seeds(table)} seeds" if n_seeds(table) > 1 else "one training each, no interval"
    return (
        f"Held-out loss after {int(last['step'].iloc[0])} steps, nats a token: {'; '.join(said)}; token frequencies "
        f"alone {last['unigram'].mean():.3f} (dotted). {int(last['n_tokens'].iloc[0]):,} tokens; {spread}."
    )


FIGURES = (
    *(
        of_table(
            table,
            name=f"emergence-{name}",
            title=f"{title}, over training",
            draw=partial(over_training, measure=measure),
            caption=partial(caption, measure=measure),
            plotted=partial(select, measure=measure),
            sources=sources,
        )
        for table, name, title, measure, sources in (
            ("emergence_snapshots", "firing", "How many neurons fire", "firing_frequency", ("li2023lazy",)),
            ("emergence_snapshots", "energy", "Energy in the top 10% of neurons", "energy_top10", ("li2023lazy",)),
            ("emergence_snapshots", "coherence", "Coherence of the value vectors", "mutual_coherence", ()),
            ("emergence_snapshots", "crowding", "Value vectors per dimension", "features_per_dimension", ()),
            ("emergence_routing", "load", "How evenly experts are used", "load_entropy", ()),
            ("emergence_routing", "saturation", "How far routing has settled", "saturation", ()),
            ("emergence_routing", "repeats", "Experts shared by neighbouring tokens", "repeat_rate", ()),
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
