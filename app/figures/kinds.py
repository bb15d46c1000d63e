"""Kinds of neurons, and what they fire on.

Tables:

    kinds            condition, layer, kind, share, low, high, n_neurons, n_tokens     (`probes.sparsity.measure`)
    word_classes     condition, layer, word_class, frequency, low, high, n_tokens      (the same, with a tagger)
    positions        condition, layer, position, first, frequency, low, high, n_tokens
    class_summary    condition, layer, kind, n_neurons, n_with_class, n_claims, n_tests, ... (`probes.kinds.measure`)
    neuron_classes   condition, layer, neuron, kind, frequency, word_class, rate, elsewhere, q, ...
"""

import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.intervals import bars
from app.figures.theme import Width

KINDS = {
    "dead": "dead (< 0.1%)",
    "rare": "rare (0.1-5%)",
    "specialised": "specialised (5-30%)",
    "intermediate": "intermediate (30-50%)",
    "generalized": "generalized (> 50%)",
}
_INDEX = {"dead": 6, "rare": 4, "specialised": 0, "intermediate": 2, "generalized": 1}


def bands(kinds: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Mean share of neurons of each kind, one stacked bar a condition."""
    rows = mean_shares(kinds)
    figure = go.Figure()
    names = theme.conditions(rows["condition"])
    for kind, words in KINDS.items():
        part = rows[rows["kind"] == kind].set_index("condition").loc[names]
        figure.add_bar(
            y=[theme.condition(c).label for c in names],
            x=part["share"] * 100,
            customdata=part[["least", "most"]] * 100,
            hovertemplate=words + ": %{x:.1f}% (layers %{customdata[0]:.1f}-%{customdata[1]:.1f}%)",
            marker={"color": theme.look(_INDEX[kind], dark=dark).colour},
            name=words,
            orientation="h",
        )
    figure.update_layout(barmode="stack", legend={"traceorder": "normal"})
    figure.update_xaxes(title="Neurons (%), mean over the layers", range=[0, 100])
    figure.update_yaxes(autorange="reversed")
    return theme.style(figure, dark=dark, width=width, alt=bands_caption(kinds))


def mean_shares(kinds: DataFrame) -> DataFrame:
    """Means over the layers: columns condition, kind, share, low, high (mean ends), least, most, n_tokens."""
    theme.need(("condition", "layer", "kind", "share", "low", "high", "n_tokens"), kinds, "kinds")
    groups = kinds.groupby(["condition", "kind"], sort=False)
    means = groups[["share", "low", "high"]].mean()
    means = means.assign(least=groups["share"].min(), most=groups["share"].max(), n_tokens=groups["n_tokens"].max())
    return means.reset_index()


def bands_caption(kinds: DataFrame) -> str:
    """Shares of every kind in each condition, with the mean interval of a layer."""
    rows = mean_shares(kinds)
    said = []
    for name in theme.conditions(rows["condition"]):
        part = rows[rows["condition"] == name].set_index("kind")
        shares = [f"{part.share[kind]:.1%} {kind}" for kind in reversed(KINDS)]
        said.append(f"{theme.condition(name).label}: {', '.join(shares)}")
    reach = float(((rows["high"] - rows["low"]) / 2).mean())
    return (
        f"Neurons by the share of tokens on which they fire, mean over {kinds['layer'].nunique()} layers. "
        f"{'; '.join(said)}. 95% intervals of one layer (documents left out in turn): ± {100 * reach:.1f} points on "
        f"average. {theme.sample_size(rows)}, attention sinks left out."
    )


def by_layer(kinds: DataFrame, *, condition: str = "real", dark: bool = False, width: Width = "screen") -> go.Figure:
    """Shares of the kinds in each layer, stacked."""
    rows = kinds[kinds["condition"] == condition]
    figure = go.Figure()
    for kind, words in KINDS.items():
        part = rows[rows["kind"] == kind].sort_values("layer")
        figure.add_bar(
            x=part["layer"],
            y=part["share"] * 100,
            customdata=part[["low", "high"]] * 100,
            hovertemplate="layer %{x}: %{y:.1f}% [%{customdata[0]:.1f}, %{customdata[1]:.1f}]",
            marker={"color": theme.look(_INDEX[kind], dark=dark).colour},
            name=words,
        )
    figure.update_layout(barmode="stack", bargap=0.1, legend={"traceorder": "normal"})
    figure.update_xaxes(title="Layer", dtick=5 if rows["layer"].nunique() > 8 else 1)
    figure.update_yaxes(title="Neurons (%)", range=[0, 100])
    return theme.style(figure, dark=dark, width=width, alt=by_layer_caption(kinds, condition=condition))


def by_layer_caption(kinds: DataFrame, *, condition: str = "real") -> str:
    """Where specialised neurons are most and least."""
    rows = kinds[(kinds["condition"] == condition) & (kinds["kind"] == "specialised")]
    ranked = rows.sort_values("share")
    least, most = ranked.iloc[0], ranked.iloc[-1]
    return (
        f"Kinds of neurons in each layer ({theme.condition(condition).label}). Specialised neurons are most in layer "
        f"{int(most['layer'])} ({most['share']:.1%} [{most['low']:.1%}, {most['high']:.1%}]) and least in layer "
        f"{int(least['layer'])} ({least['share']:.1%} [{least['low']:.1%}, {least['high']:.1%}]). "
        f"{int(rows['n_tokens'].max()):,} tokens, attention sinks left out; 95% jackknife intervals over documents."
    )


def contexts(frame: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Mean firing frequency by word class or by position, one row of points a condition."""
    key = "word_class" if "word_class" in frame.columns else "position"
    rows = by_context(frame)
    order = (
        rows[rows["condition"] == "real"].sort_values("frequency")[key].tolist()
        if key == "word_class"
        else rows.sort_values("first")[key].drop_duplicates().tolist()
    )
    figure = go.Figure()
    for name in theme.conditions(rows["condition"]):
        look = theme.condition(name, dark=dark)
        part = rows[rows["condition"] == name].set_index(key).reindex(order)
        figure.add_scatter(
            x=order,
            y=part["frequency"] * 100,
            error_y=bars(part, "frequency", 100),
            customdata=part["n_tokens"],
            hovertemplate="%{x}: %{y:.1f}%<br>%{customdata:,} tokens",
            marker=look.marker,
            line=look.line,
            mode="markers" if key == "word_class" else "lines+markers",
            name=look.label,
        )
    figure.update_xaxes(title=key.replace("_", " ").capitalize(), type="category")
    figure.update_yaxes(title="Neurons firing (%)")
    return theme.style(figure, dark=dark, width=width, alt=contexts_caption(frame))


def by_context(frame: DataFrame) -> DataFrame:
    """Means over the layers of frequency and of the ends of its interval."""
    key = "word_class" if "word_class" in frame.columns else "position"
    theme.need(("condition", "layer", key, "frequency", "low", "high", "n_tokens"), frame, f"{key}s")
    keys = ["condition", key, *(["first"] if key == "position" else [])]
    groups = frame.groupby(keys, sort=False)
    return groups[["frequency", "low", "high"]].mean().assign(n_tokens=groups["n_tokens"].max()).reset_index()


def contexts_caption(frame: DataFrame) -> str:
    """The highest and the lowest of each condition."""
    key = "word_class" if "word_class" in frame.columns else "position"
    rows = by_context(frame)
    said = []
    for name in theme.conditions(rows["condition"]):
        ranked = rows[rows["condition"] == name].sort_values("frequency")
        bottom, top = ranked.iloc[0], ranked.iloc[-1]
        said.append(
            f"{theme.condition(name).label} from {bottom['frequency']:.1%} ({bottom[key]}) to {top['frequency']:.1%} "
            f"({top[key]})"
        )
    total = int(rows[rows["condition"] == rows["condition"].iloc[0]]["n_tokens"].sum())
    return (
        f"Share of neurons that fire by {key.replace('_', ' ')}, mean over {frame['layer'].nunique()} layers: "
        f"{'; '.join(said)}. {total:,} tokens; mean of the layers' 95% bootstrap intervals over documents."
    )


def claimed(class_summary: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Share of rare and specialised neurons with at least one word class, by layer, beside the controls."""
    rows = with_share(class_summary)
    figure = go.Figure()
    for place, (name, kind) in enumerate(
        (name, kind) for name in theme.conditions(rows["condition"]) for kind in dict.fromkeys(rows["kind"])
    ):
        part = rows[(rows["condition"] == name) & (rows["kind"] == kind)]
        words = "exchanged word classes" if name == "exchanged" else theme.condition(name).label
        look = theme.look(place, f"{kind}, {words}", dark=dark)
        figure.add_bar(
            x=part["layer"].astype(str),
            y=part["share"] * 100,
            customdata=part[["n_with_class", "n_neurons"]],
            hovertemplate="layer %{x}: %{y:.1f}% (%{customdata[0]} of %{customdata[1]})",
            marker={"color": look.colour},
            name=look.label,
        )
    figure.update_layout(barmode="group")
    figure.update_xaxes(title="Layer", type="category")
    figure.update_yaxes(title="Neurons with a word class (%)", rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=claimed_caption(class_summary))


def with_share(class_summary: DataFrame) -> DataFrame:
    """The table with the share of neurons that have a class."""
    needed = ("condition", "layer", "kind", "n_neurons", "n_with_class", "n_tests", "n_tokens")
    theme.need(needed, class_summary, "class_summary")
    return class_summary.assign(share=class_summary["n_with_class"] / class_summary["n_neurons"].clip(lower=1))


def claimed_caption(class_summary: DataFrame) -> str:
    """Counts over the layers of each condition."""
    theme.need(("condition", "layer", "kind", "n_neurons", "n_with_class", "n_tests"), class_summary, "class_summary")
    sums = class_summary.groupby("condition")[["n_neurons", "n_with_class", "n_tests"]].sum()
    said = []
    for name in theme.conditions(class_summary["condition"]):
        words = "with exchanged word classes" if name == "exchanged" else theme.condition(name).label
        said.append(f"{words} {int(sums['n_with_class'][name]):,} of {int(sums['n_neurons'][name]):,} neurons")
    return (
        "Neurons that fire on a word class more than under two nulls, labels exchanged over tokens and over token "
        f"types of like frequency, at a false discovery rate of 5% (Benjamini-Hochberg): {'; '.join(said)}. Layers "
        f"{', '.join(map(str, sorted(class_summary['layer'].unique())))}; {int(sums['n_tests'].max()):,} tests, "
        f"{int(class_summary['n_tokens'].max()):,} tokens."
    )


FIGURES = (
    of_table(
        "kinds",
        name="kinds-bands",
        title="Kinds of neurons",
        draw=bands,
        caption=bands_caption,
        plotted=mean_shares,
        sources=("li2023lazy",),
    ),
    of_table(
        "kinds",
        name="kinds-by-layer",
        title="Kinds of neurons, by layer",
        draw=by_layer,
        caption=by_layer_caption,
        sources=("li2023lazy",),
    ),
    of_table(
        "positions",
        name="kinds-positions",
        title="Firing by position",
        draw=contexts,
        caption=contexts_caption,
        plotted=by_context,
    ),
    of_table(
        "word_classes",
        name="kinds-word-classes",
        title="Firing by word class",
        draw=contexts,
        caption=contexts_caption,
        plotted=by_context,
    ),
    of_table(
        "class_summary",
        name="kinds-claimed",
        title="Neurons with a word class",
        draw=claimed,
        caption=claimed_caption,
        plotted=with_share,
    ),
)
