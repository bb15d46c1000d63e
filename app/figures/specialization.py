"""What experts specialise in: association by layer against its nulls, expert by label, and names.

Tables, as `probes.routing.measure` makes them:

    specialization   condition, layer, labels, mi, low, high, null_type, sd_type, z_type, within, null_within, ..
    cells            condition, layer, labels, expert, label, n, n_expert, share, low, high, base, lift, null, q, ..
    names            condition, layer, expert, name, evidence, share, base, null_high, n_expert, tokens, ..
"""

from collections.abc import Mapping
from functools import partial
from html import escape
from math import isnan
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.intervals import band, bars
from app.figures.theme import Width, words

Against = Literal["base", "null"]
AGAINST = {"base": "share in the text", "null": "share under the type null"}
MAX_Q = 0.05
"""Cells above this false discovery rate are drawn grey."""
MOST_NAMES = 15
"""Names in a figure."""
_REACH = 3
"""Colours reach from 1/8 to 8 times."""


def select(specialization: DataFrame, labels: str = "word_class") -> DataFrame:
    """Rows of one way to label; ValueError lists those there are."""
    columns = ("condition", "layer", "labels", "mi", "low", "high", "null_type", "sd_type", "z_type", "n_tokens")
    theme.need((*columns, "within", "null_within"), specialization, "specialization")
    rows = specialization[(specialization["labels"] == labels) & specialization["null_type"].notna()]
    if not len(rows):
        held = ", ".join(specialization.loc[specialization["null_type"].notna(), "labels"].unique())
        raise ValueError(f"no association with '{labels}' in the table; there are {held or 'none'}")
    rows = rows.assign(beyond=rows["within"] - rows["null_within"])
    return rows.sort_values(["condition", "layer"]).reset_index(drop=True)


def by_layer(
    specialization: DataFrame, labels: str = "word_class", *, dark: bool = False, width: Width = "screen"
) -> go.Figure:
    """I(expert; label) of every condition with its interval, the type null of the measured routing as a band, and what
    the context tells beyond the token's identity.

    The band is of the measured router's own profiles; a router with sharper profiles (`hash`) may lie above it by
    chance, and is judged by the z of its own null.
    """
    rows = select(specialization, labels)
    figure = go.Figure()
    main = rows[rows["condition"] == theme.conditions(rows["condition"])[0]]
    quiet = theme.QUIET[dark]
    null, sd = main["null_type"], main["sd_type"]
    band(figure, main["layer"], np.maximum(null - 1.96 * sd, 0), null + 1.96 * sd, quiet, "null")
    line = {"color": quiet, "dash": "dot"}
    figure.add_scatter(
        x=main["layer"],
        y=null,
        line=line,
        mode="lines",
        name="profiles exchanged over tokens (type null)",
        legendgroup="null",
    )
    for name in theme.conditions(rows["condition"]):
        part, look = rows[rows["condition"] == name], theme.condition(name, dark=dark)
        figure.add_scatter(
            x=part["layer"],
            y=part["mi"],
            error_y=bars(part, "mi") | {"color": look.colour, "width": 2},
            customdata=part[["z_type", "n_tokens"]],
            hovertemplate="layer %{x}: %{y:.4f} nats<br>z = %{customdata[0]:.1f} against the type null of its own "
            "router<br>%{customdata[1]:,} tokens",
            line=look.line,
            marker=look.marker,
            mode="lines+markers",
            name=look.label,
        )
    look = theme.look(4, dark=dark)
    figure.add_scatter(
        x=main["layer"],
        y=main["beyond"],
        hovertemplate="layer %{x}: %{y:.4f} nats",
        line=look.line,
        marker=look.marker,
        mode="lines+markers",
        name="within tokens: I(expert; label | token) less its null",
    )
    theme.layer_axis(figure, rows["layer"])
    figure.update_yaxes(title=f"I(expert; {words(labels)}) (nats)", rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=by_layer_caption(specialization, labels))


def by_layer_caption(specialization: DataFrame, labels: str = "word_class") -> str:
    """Range over layers, z against the type null, controls."""
    rows = select(specialization, labels)
    said = []
    for name in theme.conditions(rows["condition"]):
        part = rows[rows["condition"] == name]
        said.append(
            f"{theme.condition(name).label} {part['mi'].min():.3f}-{part['mi'].max():.3f} nats "
            f"(z {part['z_type'].min():.1f} to {part['z_type'].max():.1f})"
        )
    main = rows[rows["condition"] == theme.conditions(rows["condition"])[0]]
    return (
        f"Mutual information of expert and {words(labels)}, lowest and highest of {rows['layer'].nunique()} layers, "
        f"with z against exchanging routing profiles over token types of like frequency: {'; '.join(said)}. Bars: 95% "
        f"intervals from resampled documents; band: 95% of the exchanges. {main['untestable'].mean():.0%} of tokens "
        f"are of types that have fewer than 20 of like frequency. {_drawn(rows)}{theme.sample_size(rows)}."
    )


def _drawn(rows: DataFrame) -> str:
    """How far the trained router lies beyond several routers of random directions, where the table holds several."""
    if "z_draws" not in rows or rows["z_draws"].isna().all():
        return ""
    z, drawn = rows["z_draws"].dropna(), rows.dropna(subset=["n_draws"])
    return (
        f"Random directions are the mean over {int(drawn['n_draws'].max())} routers, whose information has a standard "
        f"deviation of {drawn['sd_draws'].min():.3f}-{drawn['sd_draws'].max():.3f} nats; the trained router lies "
        f"{z.min():.1f} to {z.max():.1f} of them above. "
    )


def of_layer(
    cells: DataFrame, layer: int | None = None, labels: str = "word_class", condition: str = "real"
) -> DataFrame:
    """Cells of one layer; without `layer` the one whose experts and labels are most closely tied."""
    theme.need(("condition", "layer", "labels", "expert", "label", "n", "share", "base", "null", "q"), cells, "cells")
    rows = cells[(cells["condition"] == condition) & (cells["labels"] == labels)]
    if not len(rows):
        raise ValueError(f"no cells of '{labels}' under '{condition}' in the table")
    if layer is None:
        tied = rows["n"] * np.log(rows["lift"].where(rows["n"] > 0, 1))
        layer = int((tied.groupby(rows["layer"]).sum() / rows.groupby("layer")["n"].sum()).idxmax())
    rows = rows[rows["layer"] == layer]
    if not len(rows):
        raise ValueError(f"no layer {layer} under '{condition}' in the table")
    return rows


def heat_map(
    cells: DataFrame,
    layer: int | None = None,
    labels: str = "word_class",
    condition: str = "real",
    against: Against = "null",
    *,
    dark: bool = False,
    width: Width = "screen",
) -> go.Figure:
    """Share of each label among an expert's tokens, as a multiple of its share in the text (`base`) or under the type
    null (`null`); cells that the tests do not tell from chance are grey.  Experts in the order of their strongest
    label, labels from the commonest."""
    rows = of_layer(cells, layer, labels, condition)
    if rows[against].isna().all():
        raise ValueError("no type null is drawn for these labels; choose the share in the text")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log2((rows["share"] / rows[against]).to_numpy())
    sure = rows["q"].to_numpy() <= MAX_Q
    grid = rows.assign(
        ratio=np.clip(np.where(sure, ratio, np.nan), -_REACH, _REACH),
        grey=np.where(sure, np.nan, 0.0),
        said=[hover(row) for row in rows.to_dict("records")],
    )
    load = rows.groupby("expert")["n"].sum() / rows["n"].sum()
    columns = rows.groupby("label")["base"].first().sort_values(ascending=False).index
    tables = {
        c: grid.pivot_table(index="expert", columns="label", values=c, aggfunc="first") for c in ("ratio", "grey")
    }
    told = grid.pivot_table(index="expert", columns="label", values="said", aggfunc="first").reindex(columns=columns)
    shown = {c: t.reindex(index=told.index, columns=columns) for c, t in tables.items()}
    order = _by_strongest(shown["ratio"])
    figure = go.Figure()
    common: dict[str, Any] = {"x": [escape(str(c)) for c in columns], "y": [f"{e} ({load[e]:.1%})" for e in order]}
    common |= {"customdata": told.loc[order].to_numpy(), "hovertemplate": "%{customdata}<extra></extra>"}
    quiet = theme.translucent(theme.QUIET[dark], 0.35)
    figure.add_heatmap(
        z=shown["grey"].loc[order].to_numpy(), colorscale=[[0, quiet], [1, quiet]], showscale=False, **common
    )
    ticks = list(range(-_REACH, _REACH + 1))
    figure.add_heatmap(
        z=shown["ratio"].loc[order].to_numpy(),
        colorscale=[list(stop) for stop in theme.DIVERGING],
        zmid=0,
        zmin=-_REACH,
        zmax=_REACH,
        colorbar={
            "title": {"text": f"times the {AGAINST[against]}", "side": "right"},
            "tickvals": ticks,
            "ticktext": ["⅛", "¼", "½", "1", "2", "4", "8"],
        },
        **common,
    )
    figure.update_xaxes(title=words(labels).capitalize(), type="category", tickangle=-40)
    figure.update_yaxes(
        title=f"Expert of layer {int(rows['layer'].iloc[0])} (load)", type="category", autorange="reversed"
    )
    caption = heat_map_caption(cells, layer, labels, condition, against)
    high = 220 + 16 * len(order) if width == "screen" else 1.2 + 0.14 * len(order)
    return theme.style(figure, dark=dark, width=width, height=high, alt=caption)


def heat_map_caption(
    cells: DataFrame,
    layer: int | None = None,
    labels: str = "word_class",
    condition: str = "real",
    against: Against = "null",
) -> str:
    """The purest cell, and how many are told from chance."""
    rows = of_layer(cells, layer, labels, condition)
    sure = rows[(rows["q"] <= MAX_Q)]
    more = sure[sure["share"] > sure["base"]]
    nulls = "exchanged labels and the type null" if rows["null"].notna().any() else "the text's share alone"
    said = (
        f"Experts of layer {int(rows['layer'].iloc[0])} by {words(labels)} ({theme.condition(condition).label}): share "
        f"of the expert's tokens over the {AGAINST[against]}. {len(sure)} of {int(rows['q'].notna().sum())} cells "
        f"tested stand at a false discovery rate of {MAX_Q:.0%} against {nulls}; others are grey. "
    )
    if len(more):
        best = next(more.assign(gap=more["share"] - more["base"]).nlargest(1, "gap").itertuples())
        said += f"Furthest above the text: {_said(best)}. "
    return said + f"{int(rows['n'].sum()):,} slots of tokens."


def name_table(
    names: DataFrame, layer: int | None = None, condition: str = "real", *, dark: bool = False, width: Width = "screen"
) -> go.Figure:
    """The experts of a layer (all layers without one) that have a name, with the evidence."""
    rows = named(names, layer, condition)
    if not len(rows):
        return theme.style(
            theme.note(go.Figure(), names_caption(names, layer, condition), dark=dark), dark=dark, width=width
        )
    ink, grid = theme.INK[dark], theme.GRID[dark]
    heads = ["Layer,<br>expert", "Name", "Evidence", "Tokens that say most"]
    where = rows["layer"].astype(str) + ", " + rows["expert"].astype(str)
    columns = [where, *(rows[c].map(lambda v: escape(str(v))) for c in ("name", "evidence", "tokens"))]
    if width == "column":  # four columns would be a page and a half high
        heads, columns = heads[:3], columns[:3]
    cell = {"font": {"color": ink}, "line": {"color": grid}, "align": "left"}
    figure = go.Figure(
        go.Table(
            columnwidth=[2.4, 4, 8, 8] if width == "screen" else [2.2, 3.4, 6, 5][: len(heads)],
            header={"values": heads, "fill": {"color": grid}} | cell,
            cells={"values": columns, "fill": {"color": theme.GROUND[dark]}, "height": 24} | cell,
        )
    )
    alt, screen = names_caption(names, layer, condition), width == "screen"
    lines = {"column": 0.6, "text": 0.38, "wide": 0.31}.get(width, 0.0)
    high = 90 + 26 * len(rows) if screen else 0.5 + lines * len(rows)
    return theme.style(figure, dark=dark, width=width, height=high, alt=alt)


def named(names: DataFrame, layer: int | None = None, condition: str = "real") -> DataFrame:
    """Rows of experts with a name, by layer and share; at most the MOST_NAMES surest, so that they fit on a page."""
    theme.need(("condition", "layer", "expert", "name", "evidence", "share", "tokens"), names, "names")
    rows = names[(names["condition"] == condition) & (names["name"] != "none")]
    rows = rows if layer is None else rows[rows["layer"] == layer]
    rows = rows.sort_values("share", ascending=False, kind="stable").head(MOST_NAMES)
    return rows.sort_values(["layer", "share"], ascending=[True, False]).fillna({"tokens": ""}).reset_index(drop=True)


def names_caption(names: DataFrame, layer: int | None = None, condition: str = "real") -> str:
    """How many experts have a name, in the measurement and in its controls."""
    held = names if layer is None else names[names["layer"] == layer]
    said = []
    for name in theme.conditions(held["condition"]):
        part = held[held["condition"] == name]
        said.append(f"{int((part['name'] != 'none').sum())} of {len(part)} ({theme.condition(name).label})")
    place = "all layers" if layer is None else f"layer {layer}"
    shown = ((held["condition"] == condition) & (held["name"] != "none")).sum()
    most = f" The {MOST_NAMES} with the largest shares are shown." if shown > MOST_NAMES else ""
    return (
        f"Experts with a name in {place}: {'; '.join(said)}. A name needs a false discovery rate of 1% against "
        "exchanged labels and the type null, a tenth of the expert's tokens, and 1.5 times the share in the text."
        + most
    )


def _said(row: object) -> str:
    get = partial(getattr, row)
    null = "" if isnan(get("null")) else f"type null {get('null'):.1%}, up to {get('null_high'):.1%}; "
    return (
        f"{get('share'):.1%} of expert {get('expert')}'s tokens are {get('label')} [{get('low'):.1%}, "
        f"{get('high'):.1%}]; text {get('base'):.1%}; {null}n = {int(get('n')):,}"
    )


def hover(row: Mapping[Any, Any]) -> str:
    """A cell in four lines, its label escaped."""
    lines = [
        f"expert {row['expert']} of layer {row['layer']}: {row['share']:.1%} {escape(str(row['label']))} "
        f"[{row['low']:.1%}, {row['high']:.1%}]",
        f"text {row['base']:.1%}"
        + ("" if isnan(row["null"]) else f"; type null {row['null']:.1%}, up to {row['null_high']:.1%}"),
        f"n = {int(row['n']):,} slots",
    ]
    return "<br>".join(lines if row["q"] <= MAX_Q else [*lines, "may be chance"])


def _by_strongest(ratio: DataFrame) -> list[int]:
    """Experts ordered by their strongest label, then by how strong it is."""
    filled = ratio.fillna(-_REACH - 1)
    best, height = filled.to_numpy().argmax(axis=1), filled.to_numpy().max(axis=1)
    return [ratio.index[i] for i in np.lexsort([-height, best])]


FIGURES = (
    of_table(
        "specialization",
        name="specialization-by-layer",
        title="Specialization against its controls",
        draw=by_layer,
        caption=by_layer_caption,
        plotted=select,
        sources=("muennighoff2024olmoe",),
    ),
    of_table(
        "cells",
        name="specialization-cells",
        title="Experts by word class",
        draw=heat_map,
        caption=heat_map_caption,
        plotted=of_layer,
        sources=("muennighoff2024olmoe",),
    ),
    of_table(
        "names",
        name="specialization-names",
        title="Names of experts",
        draw=name_table,
        caption=names_caption,
        plotted=named,
    ),
)
