"""The spectrum of neurons: how many fire on how many tokens, over all layers and layer by layer.

Table, as `probes.sparsity.measure` makes it:

    neurons   layer, neuron, condition, frequency, n_tokens
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.theme import Width

_BINS = np.linspace(0, 1, 51)


def bands(neurons: DataFrame) -> DataFrame:
    """Share of neurons per condition that fire never, on under 5%, on 5-30% and on over 50% of tokens.

    Columns `condition, band, share, n_neurons`.  The literature calls neurons of 5-30% specialised and those over 50%
    generalised; what lies between 30% and 50% has no name and makes the shares add up to less than 1.
    """
    rows = []
    for name in theme.conditions(neurons["condition"]):
        f = neurons.loc[neurons["condition"] == name, "frequency"].to_numpy()
        inside = {
            "never": f == 0,
            "under 5%": (f > 0) & (f < 0.05),
            "5-30%": (f >= 0.05) & (f <= 0.30),
            "over 50%": f > 0.50,
        }
        rows += [(name, band, float(members.mean()), len(f)) for band, members in inside.items()]
    return DataFrame(rows, columns=["condition", "band", "share", "n_neurons"])


def spectrum(neurons: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """How many neurons fire how often: share of neurons per 2% of firing frequency, all layers together."""
    counts = spectrum_data(neurons)
    figure = go.Figure()
    for name in theme.conditions(counts["condition"]):
        part, look = counts[counts["condition"] == name], theme.condition(name, dark=dark)
        figure.add_scatter(
            x=part["frequency"] * 100,
            y=part["share"] * 100,
            hovertemplate="fires on %{x:.0f}% of tokens: %{y:.2f}% of neurons",
            line=look.line | {"shape": "hvh"},
            mode="lines",
            name=look.label,
        )
    tint = theme.translucent(theme.QUIET[dark], 0.12)
    for left, right, words in ((5, 30, "specialised"), (50, 100, "generalised")):
        figure.add_vrect(
            x0=left,
            x1=right,
            fillcolor=tint,
            line_width=0,
            layer="below",
            annotation={"text": words, "font": {"color": theme.QUIET[dark]}},
            annotation_position="top",
        )
    figure.update_xaxes(title="Fires on (% of tokens)", range=[0, 100], dtick=25)
    figure.update_yaxes(title="Neurons (%)", rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=spectrum_caption(neurons))


def spectrum_data(neurons: DataFrame, by: Sequence[str] = ("condition",)) -> DataFrame:
    """Share of neurons per bin of firing frequency: columns `by`, `frequency` (middle of the bin), `share`."""
    theme.need(("layer", "neuron", "condition", "frequency"), neurons, "neurons")
    parts = []
    for group, part in neurons.groupby(list(by), sort=True):
        counts, _ = np.histogram(part["frequency"], bins=_BINS)
        frame = DataFrame({"frequency": (_BINS[:-1] + _BINS[1:]) / 2, "share": counts / len(part)})
        parts.append(DataFrame(dict(zip(by, group, strict=True)), index=frame.index).join(frame))
    return pd.concat(parts, ignore_index=True) if parts else DataFrame(columns=[*by, "frequency", "share"])


def spectrum_caption(neurons: DataFrame) -> str:
    """Shares of generalised, specialised, rare and silent neurons beside those of the controls."""
    table = bands(neurons)
    parts = []
    for name in theme.conditions(neurons["condition"]):
        share = table[table["condition"] == name].set_index("band")["share"]
        parts.append(
            f"{theme.condition(name).label}: {share['over 50%']:.1%} fire on more than half of the tokens, "
            f"{share['5-30%']:.1%} on 5-30%, {share['under 5%']:.1%} on fewer than 5%, {share['never']:.1%} never"
        )
    count = neurons[neurons["condition"] == theme.conditions(neurons["condition"])[0]]
    return (
        f"Firing frequency of {len(count):,} neurons in {_layers(count)}, in bins of 2%: "
        f"{'; '.join(parts)}. {theme.sample_size(neurons)}."
    )


def _layers(neurons: DataFrame) -> str:
    layers = neurons["layer"].unique()
    return f"{len(layers)} layers" if len(layers) > 1 else f"layer {layers[0]}"


def spectrum_by_layer(
    neurons: DataFrame, *, condition: str = "real", dark: bool = False, width: Width = "screen"
) -> go.Figure:
    """The spectrum of each layer as a heat map: layers upwards, firing frequency to the right, share of neurons as
    colour (square-root scale, so that a peak does not hide the rest)."""
    counts = spectrum_data(neurons[neurons["condition"] == condition], by=("layer",))
    grid = counts.pivot_table(index="layer", columns="frequency", values="share") * 100
    top = float(np.ceil(grid.to_numpy().max())) if len(grid) else 1.0
    ticks = [t for t in (0, 1, 2, 5, 10, 20, 50, 100) if t <= top] or [0]
    figure = go.Figure(
        go.Heatmap(
            x=grid.columns.to_numpy() * 100,
            y=grid.index.to_numpy(),
            z=np.sqrt(grid.to_numpy()),
            customdata=grid.to_numpy(),
            hovertemplate="layer %{y}, fires on %{x:.0f}% of tokens: %{customdata:.2f}% of its neurons<extra></extra>",
            colorscale=theme.SEQUENTIAL,
            colorbar={
                "title": {"text": "Neurons (%)", "side": "right"},
                "tickvals": np.sqrt(ticks),
                "ticktext": [str(t) for t in ticks],
            },
        )
    )
    figure.update_xaxes(title="Fires on (% of tokens)", range=[0, 100], dtick=25)
    figure.update_yaxes(title="Layer")
    return theme.style(figure, dark=dark, width=width, alt=spectrum_by_layer_caption(neurons, condition=condition))


def spectrum_by_layer_caption(neurons: DataFrame, *, condition: str = "real") -> str:
    """Where the median neuron of the sparsest and of the densest layer stands."""
    part = neurons[neurons["condition"] == condition]
    medians = part.groupby("layer")["frequency"].median()
    return (
        f"Firing frequency of the neurons of each layer ({theme.condition(condition).label}); the median neuron fires "
        f"on {medians.min():.1%} of tokens in layer {medians.idxmin()} and on {medians.max():.1%} in layer "
        f"{medians.idxmax()}. {int(part['n_tokens'].max()):,} tokens, {len(part):,} neurons."
    )


FIGURES = (
    of_table(
        "neurons",
        name="sparsity-spectrum",
        title="How often each neuron fires",
        draw=spectrum,
        caption=spectrum_caption,
        plotted=spectrum_data,
        sources=("li2023lazy",),
    ),
    of_table(
        "neurons",
        name="sparsity-spectrum-by-layer",
        title="The same, layer by layer",
        draw=spectrum_by_layer,
        caption=spectrum_by_layer_caption,
        plotted=partial(spectrum_data, by=("condition", "layer")),
        sources=("li2023lazy",),
    ),
)
