"""How many neurons pass a threshold, and the thresholds that methods of sparse inference would choose, by layer.

Table, as `probes.sparsity.measure` makes it:

    thresholds   condition, layer, measure, setting, value, low, high, n_tokens     (see `probes.thresholds`)
"""

import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.intervals import bars
from app.figures.theme import Width

MEASURES = {
    "density_cett": ("Active neurons (%)", "share of neurons active when the rest make {:.0%} of the output's length"),
    "density_rms": ("Active neurons (%)", "share of neurons with |z| at least {:g} times the layer's root mean square"),
    "density_absolute": ("Active neurons (%)", "share of neurons with |z| at least {:g}"),
    "threshold_teal": ("Threshold on |z|", "size below which {:.0%} of a layer's z lie (TEAL)"),
    "threshold_teal_input": ("Threshold on |x|", "size below which {:.0%} of a layer's inputs lie (TEAL)"),
    "threshold_cats": ("Threshold on |act(gate)|", "size below which {:.0%} of a layer's |act(gate)| lie (CATS)"),
}
"""Measure -> its axis, and what it is at a setting."""


def select(thresholds: DataFrame, measure: str = "density_cett", setting: float | None = None) -> DataFrame:
    """Rows of one measure at one setting (None: the third smallest); ValueError lists the measures there are."""
    theme.need(
        ("condition", "layer", "measure", "setting", "value", "low", "high", "n_tokens"), thresholds, "thresholds"
    )
    rows = thresholds[thresholds["measure"] == measure]
    if not len(rows):
        raise ValueError(f"no measure '{measure}' in the table; there are {', '.join(thresholds['measure'].unique())}")
    settings = sorted(rows["setting"].unique())
    chosen = settings[min(2, len(settings) - 1)] if setting is None else setting
    if chosen not in settings:
        raise ValueError(f"{measure} was not measured at {chosen:g}; it was at {', '.join(f'{s:g}' for s in settings)}")
    return rows[rows["setting"] == chosen].sort_values(["condition", "layer"]).reset_index(drop=True)


def by_layer(
    thresholds: DataFrame,
    measure: str = "density_cett",
    setting: float | None = None,
    *,
    dark: bool = False,
    width: Width = "screen",
) -> go.Figure:
    """One line a condition over the layers, with its 95% interval."""
    rows = select(thresholds, measure, setting)
    times = 100 if measure.startswith("density") else 1
    figure = go.Figure()
    for name in theme.conditions(rows["condition"]):
        part, look = rows[rows["condition"] == name], theme.condition(name, dark=dark)
        figure.add_scatter(
            x=part["layer"],
            y=part["value"] * times,
            error_y=bars(part, "value", times),
            hovertemplate="layer %{x}: %{y:.3g}",
            line=look.line,
            marker=look.marker,
            mode="lines+markers",
            name=look.label,
        )
    figure.update_xaxes(title="Layer", dtick=5 if rows["layer"].nunique() > 8 else 1)
    figure.update_yaxes(title=MEASURES.get(measure, (measure, ""))[0], rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=caption(thresholds, measure, setting))


def caption(thresholds: DataFrame, measure: str = "density_cett", setting: float | None = None) -> str:
    """Means over the layers of each condition."""
    rows = select(thresholds, measure, setting)
    means = rows.groupby("condition")["value"].mean()
    shown = "{:.1%}" if measure.startswith("density") else "{:.3g}"
    said = [f"{theme.condition(c).label} {shown.format(means[c])}" for c in theme.conditions(rows["condition"])]
    what = MEASURES.get(measure, ("", measure))[1].format(rows["setting"].iloc[0])
    return (
        f"By layer, the {what}; mean over {rows['layer'].nunique()} layers: {', '.join(said)}. Bars: 95% jackknife "
        f"intervals over documents. {theme.sample_size(rows)}, attention sinks left out. It depends on the scale of "
        "the weights, so it is to be read beside the controls."
    )


FIGURES = (
    of_table(
        "thresholds",
        name="thresholds-cett",
        title="Neurons needed for 80% of the output, by layer",
        draw=by_layer,
        caption=caption,
        plotted=select,
        sources=("zhang2024relu2",),
    ),
)
