"""What a mixture misses as it gets more experts, more active neurons, or mixes more of them.

Table, as `probes.secret.ratios.curves` makes it:

    secret_curves   axis (`n_experts`, `n_active`, `k`), value, and the columns of `secret`
"""

import plotly.graph_objects as go
from pandas import DataFrame
from plotly.subplots import make_subplots

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.intervals import bars
from app.figures.secret import CONDITIONS, LABELS
from app.figures.theme import Width

AXES = {"n_experts": "Experts", "n_active": "Active neurons", "k": "Experts a token"}
_NEEDED = ("axis", "value", "layer", "condition", "method", "fvu", "low", "high", "stored", "n_tokens")


def curves(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """A panel a setting, FVU against its value; lines are real activations, dotted ones Gaussian."""
    theme.need(_NEEDED, table, "secret_curves")
    axes = [axis for axis in AXES if (table["axis"] == axis).any()]
    figure = make_subplots(rows=1, cols=len(axes), shared_yaxes=True, horizontal_spacing=0.04)
    looks: dict[tuple[str, int], int] = {}
    for (axis, method, layer, condition), rows in table.sort_values("value").groupby(
        ["axis", "method", "layer", "condition"], sort=False
    ):
        look = theme.look(looks.setdefault((str(method), int(str(layer))), len(looks)), dark=dark)
        name = f"{LABELS[str(method)]}, layer {layer}, {CONDITIONS[str(condition)]}"
        figure.add_scatter(
            row=1,
            col=axes.index(str(axis)) + 1,
            x=rows["value"],
            y=rows["fvu"],
            error_y=bars(rows, "fvu"),
            mode="lines+markers",
            line={"color": look.colour, "dash": "solid" if condition == "real" else "dot"},
            marker={"symbol": look.symbol + ("" if condition == "real" else "-open")},
            name=name,
            legendgroup=name,
            showlegend=not any(trace.name == name for trace in figure.data),
            customdata=rows[["stored", "n_tokens"]],
            hovertemplate="%{x:,}: FVU %{y:.3f}<br>%{customdata[0]:,} parameters stored<br>%{customdata[1]:,} tokens"
            "<extra></extra>",
        )
    for number, axis in enumerate(axes, start=1):
        values = sorted(table.loc[table["axis"] == axis, "value"].unique())
        figure.update_xaxes(title=AXES[axis], type="log", tickvals=values, ticktext=values, row=1, col=number)
    figure.update_yaxes(title="Fraction of variance unexplained", rangemode="tozero", row=1, col=1)
    return theme.style(figure, dark=dark, width=width, alt=curves_caption(table))


def curves_caption(table: DataFrame) -> str:
    """First and last level of each curve, with the parameters stored there."""
    parts = []
    for (axis, method, layer, condition), rows in table.sort_values("value").groupby(
        ["axis", "method", "layer", "condition"], sort=False
    ):
        first, last = rows.iloc[0], rows.iloc[-1]
        who = f"{LABELS[str(method)]}, layer {layer} ({CONDITIONS[str(condition)]})"
        parts.append(
            f"{AXES[str(axis)].lower()} {int(first['value']):,} to {int(last['value']):,}, {who}: {first['fvu']:.3f} "
            f"to {last['fvu']:.3f}, {int(first['stored']):,} to {int(last['stored']):,} parameters stored"
        )
    return (
        f"What students miss as one setting changes and the others stay: {'; '.join(parts)}. One seed; "
        f"{int(table['n_tokens'].iloc[0]):,} tokens of documents not fitted on; bars: 95%, documents resampled."
    )


FIGURES = (
    of_table(
        "secret_curves",
        name="secret-curves",
        title="More experts, more neurons, more of them mixed",
        draw=curves,
        caption=curves_caption,
        sources=("boixadsera2025secret",),
    ),
)
