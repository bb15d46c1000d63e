"""How few neurons a language model uses: firing and energy by layer, beside the controls; attention sinks.

Tables, as `probes.sparsity.measure` makes them:

    layers    layer, condition, sinks, measure, value, low, high, n_tokens
    sinks     layer, n_sinks, n_tokens, energy_share

Shares are fractions of 1 in the tables and per cent in the figures.
"""

from functools import partial

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.theme import Width

MEASURES = {
    "firing_frequency": "Neurons firing (% of tokens)",
    "energy_top1": "Energy in the top 1% (%)",
    "energy_top5": "Energy in the top 5% (%)",
    "energy_top10": "Energy in the top 10% (%)",
    "energy_top20": "Energy in the top 20% (%)",
}
"""Axis titles of the measures in `layers`."""

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
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            fill="toself",
            fillcolor=theme.translucent(look.colour, 0.2),
            hoverinfo="skip",
            legendgroup=name,
            line={"width": 0},
            mode="lines",
            showlegend=False,
        )
        figure.add_scatter(
            x=x,
            y=part["value"] * 100,
            customdata=np.column_stack([low, high, part["n_tokens"]]),
            hovertemplate="layer %{x}: %{y:.1f}% [%{customdata[0]:.1f}, %{customdata[1]:.1f}]"
            "<br>%{customdata[2]:,} tokens",
            legendgroup=name,
            line={"color": look.colour, "dash": look.dash},
            marker={"color": look.colour, "symbol": look.symbol},
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
    """Share of each layer's energy that its attention sinks hold, were they not left out."""
    theme.need(("layer", "n_sinks", "n_tokens", "energy_share"), sinks, "sinks")
    look = theme.look(1, dark=dark)
    figure = go.Figure(
        go.Bar(
            x=sinks["layer"],
            y=sinks["energy_share"] * 100,
            customdata=sinks[["n_sinks", "n_tokens"]],
            hovertemplate="layer %{x}: %{y:.1f}% of the energy in %{customdata[0]:,} of %{customdata[1]:,} tokens"
            "<extra></extra>",
            marker={"color": look.colour},
        )
    )
    figure.update_xaxes(title="Layer", dtick=5 if sinks["layer"].nunique() > 8 else 1)
    figure.update_yaxes(title="Energy held by sinks (%)", rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=sinks_caption(sinks))


def sinks_caption(sinks: DataFrame) -> str:
    """The layer where sinks weigh most."""
    worst = sinks.iloc[int(sinks["energy_share"].to_numpy().argmax())]
    return (
        "Share of a layer's energy held by attention sinks, tokens whose block output energy exceeds 100 times the "
        f"median. Largest in layer {int(worst['layer'])}: {worst['energy_share']:.1%} in {int(worst['n_sinks']):,} of "
        f"{int(worst['n_tokens']):,} tokens. A count of one pass over the text, without interval."
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
