"""Rank collapse: how far the tokens are from one vector after each block, and the spectra of attention patterns.

Tables, as `probes.rank.measure` makes them:

    rank_residuals  layer (-1: before the first block), variant, condition, first, measure, value, low, high, n_windows,
                    n_tokens, precision
    rank_patterns   layer, head, condition, measure, value, low, high, n_windows, n_keys
"""

from collections.abc import Sequence
from functools import partial
from math import isnan

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.intervals import band
from app.figures.theme import Width

MEASURES = {
    "residual_composite": "Relative residual, composite norm",
    "residual_frobenius": "Relative residual, Frobenius norm",
    "residual_l1": "Relative residual, 1-norm",
    "residual_linf": "Relative residual, ∞-norm",
    "stable_rank": "Stable rank",
    "mean_cosine": "Mean cosine between tokens",
}
"""Axis titles of the measures in `rank_residuals`."""

VARIANTS = {
    "attention": "attention only",
    "attention_ffn": "attention + FFN, no skip",
    "attention_skip": "attention + skip, no FFN",
    "full": "full model",
}
"""Words for the variants, in the order in which they are drawn."""

PATTERNS = {
    "effective_rank": "Effective rank",
    "rank": "Rank (of what float32 can tell from 0)",
    "rank_percent": "Singular values above 1% of the largest",
    "stable_rank": "Stable rank",
    "first_key": "Attention to the first position",
}
"""Names of the measures in `rank_patterns`."""

_COLUMNS = ("layer", "variant", "condition", "first", "measure", "value", "low", "high", "n_windows", "n_tokens")
_PATTERN_COLUMNS = ("layer", "head", "condition", "measure", "value", "low", "high", "n_windows", "n_keys")


def select(residuals: DataFrame, measure: str = "residual_composite", *, first: str = "in") -> DataFrame:
    """Rows of one measure, with the first position among the vectors (`in`) or not; ValueError if there are none."""
    theme.need(_COLUMNS, residuals, "rank_residuals")
    if measure not in set(residuals["measure"]):
        raise ValueError(
            f"no measure '{measure}' in the table; there are {', '.join(dict.fromkeys(residuals.measure))}"
        )
    rows = residuals[(residuals["measure"] == measure) & (residuals["first"] == first)]
    return rows.sort_values(["variant", "condition", "layer"]).reset_index(drop=True)


def collapse(
    residuals: DataFrame,
    measure: str = "residual_composite",
    *,
    first: str = "in",
    dark: bool = False,
    width: Width = "screen",
) -> go.Figure:
    """One line a variant and condition over the layers: trained solid, full symbols; controls dotted, open ones.

    Residuals are drawn on a logarithmic axis, with the spacing of the number type's values at 1 as the floor.
    """
    rows, figure = select(residuals, measure, first=first), go.Figure()
    residual = measure.startswith("residual")
    for index, (variant, words) in enumerate(VARIANTS.items()):
        of_variant = rows[rows["variant"] == variant]
        look = theme.look(index, dark=dark)
        for name in theme.conditions(of_variant["condition"]):
            part = of_variant[of_variant["condition"] == name]
            if name == "real":
                band(figure, part["layer"], part["low"], part["high"], look.colour, variant)
            figure.add_scatter(
                x=part["layer"],
                y=part["value"],
                customdata=part[["low", "high", "n_windows"]],
                hovertemplate="after layer %{x}: %{y:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}]"
                "<br>%{customdata[2]} windows",
                legendgroup=variant,
                line={"color": look.colour, "dash": "solid" if name == "real" else _dash(name)},
                marker={"color": look.colour, "symbol": look.symbol + ("" if name == "real" else "-open")},
                mode="lines+markers",
                name=words if name == "real" else f"{words}, {theme.condition(name).label}",
                showlegend=name == "real",
            )
    for name in (c for c in theme.conditions(rows["condition"]) if c != "real"):
        figure.add_scatter(
            x=[None],
            y=[None],
            line={"color": theme.QUIET[dark], "dash": _dash(name)},
            marker={"color": theme.QUIET[dark], "symbol": "circle-open"},
            mode="lines+markers",
            name=f"the same, {theme.condition(name).label}",
        )
    if residual and "precision" in rows and len(rows):
        floor, top = float(rows["precision"].iloc[0]), float(rows["value"].max())
        figure.update_yaxes(range=[np.log10(min(floor, rows["value"].min()) / 2), np.log10(top * 2)])
        figure.add_hline(y=floor, line={"color": theme.QUIET[dark], "dash": "dot", "width": 1})
        figure.add_annotation(
            text=f"spacing of numbers at 1 ({floor:.1g})",
            showarrow=False,
            x=0,
            xanchor="left",
            xref="paper",
            y=np.log10(floor),
            yanchor="bottom",
        )
    figure.update_xaxes(title="After layer (−1: embedding)", dtick=5 if rows["layer"].nunique() > 8 else 1)
    figure.update_yaxes(title=MEASURES.get(measure, measure.replace("_", " ")))
    if residual:
        figure.update_yaxes(type="log", exponentformat="power", dtick=1)
    figure.update_layout(height=520)
    return theme.style(figure, dark=dark, width=width, alt=collapse_caption(residuals, measure, first=first))


def _dash(condition: str) -> str:
    return "dot" if condition == "random_init" else "dash"


def collapse_caption(residuals: DataFrame, measure: str = "residual_composite", *, first: str = "in") -> str:
    """Values after the last layer of every variant and condition with intervals, and how much text is behind them."""
    rows = select(residuals, measure, first=first)
    end = rows[rows["layer"] == rows["layer"].max()]
    parts = []
    for variant, words in VARIANTS.items():
        cells = end[end["variant"] == variant].set_index("condition")
        each = [
            f"{theme.condition(c).label.split(',')[0]} {_number(cells.loc[c, ['value', 'low', 'high']].tolist())}"
            for c in theme.conditions(cells.index)
        ]
        parts += [f"{words}: {', '.join(each)}"] if each else []
    n = int(rows["n_windows"].max()) if len(rows) else 0
    tokens = int(rows["n_tokens"].max()) if len(rows) else 0
    return (
        f"{MEASURES.get(measure, measure)}: distance of the tokens to their mean over the norm of the tokens, "
        "after the last layer: "
        if measure.startswith("residual")
        else f"{MEASURES.get(measure, measure)} after the last layer: "
    ) + (
        f"{'; '.join(parts)}. Mean over {n} windows of {tokens // max(n, 1)} positions, first position "
        f"{'included' if first == 'in' else 'left out'}; brackets and bands: 95% bootstrap intervals over documents."
    )


def _number(found: Sequence[float]) -> str:
    value, low, high = found
    return f"{value:.2g}" + ("" if isnan(low) else f" [{low:.2g}, {high:.2g}]")


def pattern_rows(patterns: DataFrame, measure: str = "effective_rank") -> DataFrame:
    """Rows of one measure of attention patterns; ValueError if there are none."""
    theme.need(_PATTERN_COLUMNS, patterns, "rank_patterns")
    rows = patterns[patterns["measure"] == measure]
    if not len(rows):
        held = ", ".join(dict.fromkeys(patterns["measure"]))
        raise ValueError(f"no measure '{measure}' of attention patterns in the table; there are {held or 'none'}")
    return rows.reset_index(drop=True)


def heads(
    patterns: DataFrame, measure: str = "effective_rank", *, dark: bool = False, width: Width = "screen"
) -> go.Figure:
    """The measure of every head of the trained model as a heat map: layers to the right, heads upwards."""
    rows = pattern_rows(patterns, measure)
    real = rows[rows["condition"] == "real"]
    grid = real.pivot_table(index="head", columns="layer", values="value")
    figure = go.Figure(
        go.Heatmap(
            x=grid.columns,
            y=grid.index,
            z=grid.to_numpy(),
            colorscale=theme.SEQUENTIAL,
            colorbar={"title": {"text": PATTERNS.get(measure, measure), "side": "right"}},
            hovertemplate="layer %{x}, head %{y}: %{z:.3g}<extra></extra>",
        )
    )
    figure.update_xaxes(title="Layer", dtick=5 if len(grid.columns) > 8 else 1)
    figure.update_yaxes(title="Head", dtick=1 if len(grid) <= 16 else 4)
    return theme.style(figure, dark=dark, width=width, alt=heads_caption(patterns, measure))


def heads_caption(patterns: DataFrame, measure: str = "effective_rank") -> str:
    """Mean, least and greatest over the heads of each condition, the null space, and the number of windows."""
    rows = pattern_rows(patterns, measure)
    n_keys = int(rows["n_keys"].iloc[0])
    parts = []
    for name in theme.conditions(rows["condition"]):
        values = rows.loc[rows["condition"] == name, "value"]
        parts.append(
            f"{theme.condition(name).label} mean {values.mean():.3g} (heads from {values.min():.3g} to "
            f"{values.max():.3g})"
        )
    null = ""
    if "rank" in set(patterns["measure"]):
        ranks = patterns[patterns["measure"] == "rank"].groupby("condition")["value"].mean()
        null = " Null space: on average " + ", ".join(
            f"{n_keys - ranks[c]:.1f} of {n_keys} dimensions with {theme.condition(c).label.split(',')[0]} weights"
            if c == "real"
            else f"{n_keys - ranks[c]:.1f} with {theme.condition(c).label}"
            for c in theme.conditions(ranks.index)
        )
        null += "."
    return (
        f"{PATTERNS.get(measure, measure)} of the attention pattern ({n_keys} x {n_keys}) of each head: "
        f"{'; '.join(parts)}.{null} Means over {int(rows['n_windows'].max())} windows of different documents; "
        "95% intervals of every head are in the data."
    )


FIGURES = (
    *(
        of_table(
            "rank_residuals",
            name=name,
            title=title,
            draw=partial(collapse, measure=measure),
            caption=partial(collapse_caption, measure=measure),
            plotted=partial(select, measure=measure),
            sources=("dong2021attention",),
        )
        for name, title, measure in (
            ("rank-residual", "Do the tokens become one vector?", "residual_composite"),
            ("rank-stable", "Stable rank, by layer", "stable_rank"),
            ("rank-cosine", "Mean cosine between tokens, by layer", "mean_cosine"),
        )
    ),
    of_table(
        "rank_patterns",
        name="rank-patterns",
        title="Effective rank of every head's attention",
        draw=heads,
        caption=heads_caption,
        plotted=pattern_rows,
        sources=("dong2021attention",),
    ),
)
