"""Who is routed where in a mixture of experts: load, pairs of experts, routes from layer to layer.

Tables, as `probes.routing.measure` makes them:

    routing        condition, layer, measure, value, low, high, chance, chance_low, chance_high, ceiling, n_tokens
    load           condition, layer, expert, slots, share, low, high, weight_share, .., even, n_tokens
    coactivation   condition, layer, expert, other, share, low, high, expected, n
    transitions    condition, layer, expert, next_layer, next_expert, n, n_expert, share, low, high, expected
"""

from functools import partial

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.intervals import bars
from app.figures.theme import Width

MEASURES = {
    "effective_experts": "Effective experts, exp(entropy of the load)",
    "gini": "Gini coefficient of the load",
    "busiest_share": "Share of the busiest tenth of experts (%)",
    "dead_share": "Experts never used (%)",
    "repeat_rate": "Experts kept from one token to the next (%)",
    "drop_rate": "Slots dropped (%)",
    "balance_loss": "Balance loss (1: even)",
    "router_entropy": "Entropy of the router (nats)",
}
"""Axis titles of the measures."""
_PER_CENT = ("busiest_share", "dead_share", "repeat_rate", "drop_rate")
STRONGEST = 60
"""Links of the route map that are drawn, at most."""


def measures(routing: DataFrame) -> list[str]:
    """Measures of a `routing` table that have an axis title and a value."""
    held = set(routing.loc[routing["value"].notna(), "measure"])
    return [name for name in MEASURES if name in held]


def select(routing: DataFrame, measure: str) -> DataFrame:
    """Rows of one measure; ValueError lists the measures there are."""
    theme.need(("condition", "layer", "measure", "value", "low", "high", "chance", "n_tokens"), routing, "routing")
    rows = routing[routing["measure"] == measure]
    if not len(rows):
        raise ValueError(f"no measure '{measure}' in the table; there are {', '.join(measures(routing))}")
    return rows.sort_values(["condition", "layer"]).reset_index(drop=True)


def by_layer(
    routing: DataFrame, measure: str = "effective_experts", *, dark: bool = False, width: Width = "screen"
) -> go.Figure:
    """The measure over depth, one line a condition with its 95% interval, chance dotted, the ceiling dashed."""
    rows = select(routing, measure)
    factor = 100 if measure in _PER_CENT else 1
    figure = go.Figure()
    for name in theme.conditions(rows["condition"]):
        part, look = rows[rows["condition"] == name], theme.condition(name, dark=dark)
        figure.add_scatter(
            x=part["layer"],
            y=part["value"] * factor,
            error_y=bars(part, "value", factor) | {"width": 2},
            customdata=part[["n_tokens"]],
            hovertemplate="layer %{x}: %{y:.3g}<br>%{customdata[0]:,} tokens",
            line=look.line,
            marker=look.marker,
            mode="lines+markers",
            name=look.label,
        )
    real = rows[rows["condition"] == "real"] if "real" in set(rows["condition"]) else rows
    quiet = theme.QUIET[dark]
    for column, dash, words in (("chance", "dot", _chance_words(measure)), ("ceiling", "dash", "highest possible")):
        if column in real and real[column].notna().any():
            line = {"color": quiet, "dash": dash, "width": 1.5}
            figure.add_scatter(x=real["layer"], y=real[column] * factor, line=line, mode="lines", name=words)
    theme.layer_axis(figure, rows["layer"])
    figure.update_yaxes(title=MEASURES.get(measure, measure.replace("_", " ")), rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=by_layer_caption(routing, measure))


def by_layer_caption(routing: DataFrame, measure: str = "effective_experts") -> str:
    """Range over the layers for each condition, chance, sample size."""
    rows = select(routing, measure)
    parts = []
    for name in theme.conditions(rows["condition"]):
        part = rows[rows["condition"] == name]["value"]
        parts.append(f"{theme.condition(name).label} {_number(part.min(), measure)} to {_number(part.max(), measure)}")
    chance = rows["chance"].dropna()
    beside = f"; {_chance_words(measure)} {_number(chance.mean(), measure)}" if len(chance) else ""
    title = MEASURES.get(measure, measure.replace("_", " ")).removesuffix(" (%)")
    return (
        f"{title}, by layer: {', '.join(parts)}{beside}. "
        f"Bars: 95% intervals, blocks of documents left out in turn. {theme.sample_size(rows)}; attention sinks and "
        "first positions left out."
    )


def _chance_words(measure: str) -> str:
    return "independent tokens at these loads" if measure == "repeat_rate" else "uniform router"


def _number(value: float, measure: str) -> str:
    return f"{value:.1%}" if measure in _PER_CENT else f"{value:.3g}"


def load_bars(
    load: DataFrame, layer: int | None = None, condition: str = "real", *, dark: bool = False, width: Width = "screen"
) -> go.Figure:
    """Each expert's share of slots and of gate weight in one layer, busiest first, with 95% intervals."""
    rows, layer = _of_layer(load, layer, condition, "load")
    rows = rows.sort_values("share", ascending=False)
    figure = go.Figure()
    for index, (what, names) in enumerate(
        {"slots": ("share", "low", "high"), "gate weight": ("weight_share", "weight_low", "weight_high")}.items()
    ):
        value, low, high = (rows[name] * 100 for name in names)
        look = theme.look(index, dark=dark)
        figure.add_bar(
            x=rows["expert"].astype(str),
            y=value,
            error_y={"array": high - value, "arrayminus": value - low, "width": 0, "thickness": 1},
            hovertemplate=f"expert %{{x}}: %{{y:.2f}}% of {what}<extra></extra>",
            marker={"color": look.colour},
            name=f"share of {what}",
        )
    even = float(rows["even"].iloc[0]) * 100
    figure.add_hline(y=even, line={"color": theme.QUIET[dark], "dash": "dot"}, annotation_text="even")
    figure.update_layout(barmode="group")
    figure.update_xaxes(title=f"Expert of layer {layer}, busiest first", type="category")
    figure.update_yaxes(title="Share (%)", rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=load_caption(load, layer, condition))


def load_caption(load: DataFrame, layer: int | None = None, condition: str = "real") -> str:
    """The busiest and the idlest expert, the even share, sample size."""
    rows, layer = _of_layer(load, layer, condition, "load")
    share = rows["share"].to_numpy()
    most, least = rows.iloc[int(share.argmax())], rows.iloc[int(share.argmin())]
    return (
        f"Load of layer {layer} ({theme.condition(condition).label}): expert {most['expert']} takes "
        f"{most['share']:.1%} "
        f"of the slots [{most['low']:.1%}, {most['high']:.1%}], expert {least['expert']} {least['share']:.1%}; even "
        f"would be {rows['even'].iloc[0]:.1%}. 95% intervals, blocks of documents left out in turn; "
        f"{int(most['n_tokens']):,} tokens."
    )


def pairs(
    coactivation: DataFrame,
    layer: int | None = None,
    condition: str = "real",
    *,
    dark: bool = False,
    width: Width = "screen",
) -> go.Figure:
    """How often two experts of a layer are chosen together, as a multiple of independent choice at these loads."""
    rows, layer = _of_layer(coactivation, layer, condition, "coactivation")
    n = int(rows["expert"].max()) + 1
    grid, hover = np.full((n, n), np.nan), np.empty((n, n), dtype=object)
    ratio = np.log2(np.maximum(rows["share"] / rows["expected"], 2**-4))
    sure = (rows["low"] > rows["expected"]) | (rows["high"] < rows["expected"])
    at = rows["expert"], rows["other"]
    grid[at] = np.where(sure, ratio, 0)
    hover[at] = [
        f"of expert {i}'s tokens {s:.1%} [{a:.1%}, {b:.1%}] also use {j}; independent {x:.1%}"
        for i, j, s, a, b, x in zip(
            *(rows[c] for c in ("expert", "other", "share", "low", "high", "expected")), strict=True
        )
    ]
    figure = go.Figure(
        go.Heatmap(
            z=grid,
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
            colorscale=[list(stop) for stop in theme.DIVERGING],
            zmid=0,
            zmin=-2,
            zmax=2,
            colorbar={
                "title": "together,<br>× chance",
                "tickvals": [-2, -1, 0, 1, 2],
                "ticktext": ["¼", "½", "1", "2", "4"],
            },
        )
    )
    figure.update_xaxes(title="also uses", dtick=max(1, n // 16))
    figure.update_yaxes(title=f"expert of layer {layer}", dtick=max(1, n // 16), autorange="reversed")
    return theme.style(figure, dark=dark, width=width, alt=pairs_caption(coactivation, layer, condition))


def pairs_caption(coactivation: DataFrame, layer: int | None = None, condition: str = "real") -> str:
    """The closest pair, how many pairs are told from chance."""
    rows, layer = _of_layer(coactivation, layer, condition, "coactivation")
    sure = (rows["low"] > rows["expected"]) | (rows["high"] < rows["expected"])
    best = rows.iloc[int(np.nanargmax((rows["share"] / rows["expected"]).to_numpy()))]
    return (
        f"Pairs of experts of layer {layer}: share of one's tokens that also use the other, over that of independent "
        f"choices at the same loads; {int(sure.sum())} of {len(rows)} ordered pairs have a 95% interval that excludes "
        f"it, others are blank. Closest: {best['expert']} and {best['other']}, {best['share']:.1%} [{best['low']:.1%}, "
        f"{best['high']:.1%}] against {best['expected']:.1%}; {int(best['n']):,} tokens use expert {best['expert']}."
    )


def route_map(
    transitions: DataFrame, condition: str = "real", *, dark: bool = False, width: Width = "screen"
) -> go.Figure:
    """Links from layer to layer, by the heaviest expert of each token: those that most exceed independence."""
    rows = strongest_links(transitions, condition)
    look, figure = theme.look(0, dark=dark), go.Figure()
    links = rows.to_dict("records")
    for link in links:
        strength = min(1.0, 0.25 + 0.15 * link["share"] / link["expected"])
        figure.add_scatter(
            x=[link["layer"], link["next_layer"]],
            y=[link["expert"], link["next_expert"]],
            hoverinfo="skip",
            line={"color": theme.translucent(look.colour, strength), "width": 1 + 80 * link["tokens"]},
            mode="lines",
            showlegend=False,
        )
    words = [
        f"layer {r['layer']} expert {r['expert']} to layer {r['next_layer']} expert {r['next_expert']}: "
        f"{r['share']:.1%} of its tokens [{r['low']:.1%}, {r['high']:.1%}]; of all "
        f"{r['expected']:.1%}; n = {r['n']:,}"
        for r in links
    ]
    figure.add_scatter(
        x=(rows["layer"] + rows["next_layer"]) / 2,
        y=(rows["expert"] + rows["next_expert"]) / 2,
        customdata=words,
        hovertemplate="%{customdata}<extra></extra>",
        marker={"color": look.colour, "opacity": 0.01, "size": 16},
        mode="markers",
        showlegend=False,
    )
    nodes = transitions[transitions["condition"] == condition]
    ends = DataFrame({"layer": nodes["layer"], "expert": nodes["expert"]}).drop_duplicates()
    last = nodes[["next_layer", "next_expert"]].set_axis(["layer", "expert"], axis=1).drop_duplicates()
    for part in (ends, last[~last["layer"].isin(ends["layer"])]):
        figure.add_scatter(
            x=part["layer"],
            y=part["expert"],
            hovertemplate="layer %{x}, expert %{y}<extra></extra>",
            marker={"color": theme.QUIET[dark], "size": 6, "symbol": "square"},
            mode="markers",
            showlegend=False,
        )
    figure.update_xaxes(title="Layer", dtick=1)
    n_experts = int(max(nodes["expert"].max(), nodes["next_expert"].max())) + 1
    figure.update_yaxes(title="Expert", dtick=max(1, n_experts // 16), range=[n_experts - 0.5, -0.5])
    figure.update_layout(height=560)
    return theme.style(figure, dark=dark, width=width, alt=route_caption(transitions, condition))


def strongest_links(transitions: DataFrame, condition: str = "real") -> DataFrame:
    """Links whose interval lies above independence, the largest excess first; `tokens` is their share."""
    theme.need(
        ("condition", "layer", "expert", "next_expert", "n", "share", "low", "expected"), transitions, "transitions"
    )
    rows = transitions[transitions["condition"] == condition]
    if not len(rows):
        raise ValueError(
            f"no transitions under '{condition}'; there are {', '.join(sorted(set(transitions['condition'])))}"
        )
    rows = rows.assign(tokens=rows["n"] / rows.groupby("layer")["n"].transform("sum"))
    rows = rows.assign(excess=(rows["share"] - rows["expected"]) * rows["n_expert"])
    return rows[rows["low"] > rows["expected"]].nlargest(STRONGEST, "excess")


def route_caption(transitions: DataFrame, condition: str = "real") -> str:
    """The strongest link with what independence gives, and how the links were chosen."""
    rows = strongest_links(transitions, condition)
    everything = transitions[transitions["condition"] == condition]
    sure = int((everything["low"] > everything["expected"]).sum())
    first = rows.iloc[0] if len(rows) else None
    best = "" if first is None else (
        f" Strongest: layer {first['layer']} expert {first['expert']} to expert {first['next_expert']}, "
        f"{first['share']:.1%} of its tokens [{first['low']:.1%}, {first['high']:.1%}], of all {first['expected']:.1%}."
    )  # fmt: skip
    return (
        f"Routes through depth ({theme.condition(condition).label}), by the expert with the largest weight: the "
        f"{len(rows)} of {sure} links (95% Wilson interval above independence, of {len(everything):,}) that move most "
        f"tokens; width: share of tokens.{best} Token identity alone links layers: compare the hash router."
    )


def _of_layer(frame: DataFrame, layer: int | None, condition: str, table: str) -> tuple[DataFrame, int]:
    theme.need(("condition", "layer", "expert", "share", "low", "high"), frame, table)
    rows = frame[frame["condition"] == condition]
    if not len(rows):
        raise ValueError(
            f"no rows under '{condition}' in '{table}'; there are {', '.join(sorted(set(frame['condition'])))}"
        )
    layer = int(rows["layer"].min()) if layer is None else layer
    rows = rows[rows["layer"] == layer]
    if not len(rows):
        raise ValueError(f"no layer {layer} in table '{table}'")
    return rows.reset_index(drop=True), layer


FIGURES = (
    *(
        of_table(
            "routing",
            name=f"experts-{name}",
            title=title,
            draw=partial(by_layer, measure=measure),
            caption=partial(by_layer_caption, measure=measure),
            plotted=partial(select, measure=measure),
            sources=sources,
        )
        for name, title, measure, sources in (
            ("effective", "How many experts share the load, by layer", "effective_experts", ()),
            ("busiest", "Load on the busiest tenth of the experts, by layer", "busiest_share", ()),
            ("repeats", "Experts kept from one token to the next, by layer", "repeat_rate", ()),
        )
    ),
    of_table("load", name="experts-load", title="Load of each expert", draw=load_bars, caption=load_caption),
    of_table("coactivation", name="experts-pairs", title="Experts used together", draw=pairs, caption=pairs_caption),
    of_table(
        "transitions",
        name="experts-routes",
        title="Routes through depth",
        draw=route_map,
        caption=route_caption,
        plotted=strongest_links,
    ),
)
