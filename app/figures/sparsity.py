"""How few neurons a language model uses: firing and energy by layer, beside the controls; attention sinks.

Tables, as `probes.sparsity.measure` makes them:

    layers    layer, condition, sinks, measure, value, low, high, n_tokens
    sinks     layer, condition, n_tokens, n_sinks, energy_share, n_first, energy_share_first

Shares are fractions of 1 in the tables and per cent in the figures.
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
    "energy_top1": "Energy in the top 1% (%)",
    "energy_top5": "Energy in the top 5% (%)",
    "energy_top10": "Energy in the top 10% (%)",
    "energy_top20": "Energy in the top 20% (%)",
}
"""Axis titles of the measures in `layers`."""

_SINK_COLUMNS = ("layer", "condition", "n_tokens", "n_sinks", "energy_share", "n_first", "energy_share_first")
_WORDS = {"firing_frequency": "Share of tokens on which a neuron fires"} | {
    f"energy_top{k}": f"Share of activation energy in the top {k}% of neurons of each token" for k in (1, 5, 10, 20)
}


def measures(layers: DataFrame) -> list[str]:
    """Measures a `layers` table holds, known ones first."""
    held = list(dict.fromkeys(layers["measure"]))
    return [m for m in MEASURES if m in held] + [m for m in held if m not in MEASURES]


def select_layers(layers: DataFrame, measure: str, *, sinks: str = "without") -> DataFrame:
    """Rows of one measure, with or without the attention sinks; ValueError lists the measures there are."""
    theme.need(("layer", "condition", "sinks", "measure", "value", "low", "high", "n_tokens"), layers, "layers")
    if measure not in set(layers["measure"]):
        raise ValueError(f"no measure '{measure}' in the table; there are {', '.join(measures(layers))}")
    rows = layers[(layers["measure"] == measure) & (layers["sinks"] == sinks)]
    return rows.sort_values(["condition", "layer"]).reset_index(drop=True)


def by_layer(
    layers: DataFrame,
    measure: str = "firing_frequency",
    *,
    sinks: str = "without",
    dark: bool = False,
    width: Width = "screen",
) -> go.Figure:
    """One line a condition over the layers, with its 95% interval as a band: the measurement beside its controls."""
    rows = select_layers(layers, measure, sinks=sinks)
    figure = go.Figure()
    for name in theme.conditions(rows["condition"]):
        part, look = rows[rows["condition"] == name], theme.condition(name, dark=dark)
        x, low, high = part["layer"].to_numpy(), part["low"].to_numpy() * 100, part["high"].to_numpy() * 100
        band(figure, x, low, high, look.colour, name)
        figure.add_scatter(
            x=x,
            y=part["value"] * 100,
            customdata=np.column_stack([low, high, part["n_tokens"]]),
            hovertemplate="layer %{x}: %{y:.1f}% [%{customdata[0]:.1f}, %{customdata[1]:.1f}]"
            "<br>%{customdata[2]:,} tokens",
            legendgroup=name,
            line=look.line,
            marker=look.marker,
            mode="lines+markers",
            name=look.label,
        )
    figure.update_xaxes(title="Layer", dtick=5 if rows["layer"].nunique() > 8 else 1)
    figure.update_yaxes(title=MEASURES.get(measure, measure.replace("_", " ")), rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=by_layer_caption(layers, measure, sinks=sinks))


def by_layer_caption(layers: DataFrame, measure: str = "firing_frequency", *, sinks: str = "without") -> str:
    """Means over the layers of each condition, sample size, and what the bands are."""
    rows = select_layers(layers, measure, sinks=sinks)
    means = rows.groupby("condition")["value"].mean()
    parts = [f"{theme.condition(c).label} {means[c]:.1%}" for c in theme.conditions(rows["condition"])]
    what = _WORDS.get(measure, measure.replace("_", " "))
    return (
        f"{what}, by layer; mean over {rows['layer'].nunique()} layers: {', '.join(parts)}. "
        f"Bands: 95% bootstrap intervals over documents. {theme.sample_size(rows)}, "
        f"attention sinks {'left out' if sinks == 'without' else 'included'}."
    )


def sinks_by_layer(sinks: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Share of each layer's energy in first positions and later sinks, stacked; the controls' sums as lines."""
    theme.need(_SINK_COLUMNS, sinks, "sinks")
    figure = go.Figure()
    real = sinks[sinks["condition"] == "real"]
    for part, count, words, index in (
        ("energy_share_first", "n_first", "first positions", 5),
        ("energy_share", "n_sinks", "later attention sinks", 1),
    ):
        figure.add_bar(
            x=real["layer"],
            y=real[part] * 100,
            customdata=real[[count, "n_tokens"]],
            hovertemplate="layer %{x}: %{y:.1f}% of the energy in %{customdata[0]:,} of %{customdata[1]:,} tokens",
            marker={"color": theme.look(index, dark=dark).colour},
            name=words,
        )
    for name in theme.conditions(sinks["condition"]):
        if name != "real":
            control, look = sinks[sinks["condition"] == name], theme.condition(name, dark=dark)
            figure.add_scatter(
                x=control["layer"],
                y=(control["energy_share"] + control["energy_share_first"]) * 100,
                hovertemplate="layer %{x}: %{y:.1f}%",
                line=look.line,
                mode="lines",
                name=f"both, {look.label}",
            )
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="Layer", dtick=5 if sinks["layer"].nunique() > 8 else 1)
    figure.update_yaxes(title="Share of energy (%)", rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=sinks_caption(sinks))


def sinks_caption(sinks: DataFrame) -> str:
    """The layer where sinks weigh most, and how much the same tokens hold under each control there."""
    theme.need(_SINK_COLUMNS, sinks, "sinks")
    both = sinks.assign(share=sinks["energy_share"] + sinks["energy_share_first"])
    real = both[both["condition"] == "real"]
    worst = real.iloc[int(real["share"].to_numpy().argmax())]
    layer = int(worst["layer"])
    there = both[both["layer"] == layer].set_index("condition")["share"]
    beside = [f"{theme.condition(c).label} {there[c]:.1%}" for c in theme.conditions(there.index) if c != "real"]
    return (
        "Share of the FFN output energy held by the first positions of each window and by later attention sinks "
        "(more than 100 times the median energy of a token). "
        f"Most in layer {layer}: {int(worst['n_first']):,} first tokens hold {worst['energy_share_first']:.1%} and "
        f"{int(worst['n_sinks']):,} later sinks {worst['energy_share']:.1%}, of {int(worst['n_tokens']):,} tokens"
        f"{'; together ' + ', '.join(beside) if beside else ''}. Counts of one pass, without interval; all other "
        "figures leave these tokens out."
    )


FIGURES = (
    *(
        of_table(
            "layers",
            name=f"sparsity-{name}",
            title=title,
            draw=partial(by_layer, measure=measure),
            caption=partial(by_layer_caption, measure=measure),
            plotted=partial(select_layers, measure=measure),
            sources=("li2023lazy",),
        )
        for name, title, measure in (
            ("firing", "How many neurons fire, by layer", "firing_frequency"),
            ("energy", "Energy in the top 10% of neurons, by layer", "energy_top10"),
        )
    ),
    of_table(
        "sinks",
        name="sparsity-sinks",
        title="Energy held by attention sinks, by layer",
        draw=sinks_by_layer,
        caption=sinks_caption,
        sources=("sun2024massive",),
    ),
)
