"""What experts are worth: loss without them, what could stand in for them, how alike they are, how many are needed.

Tables, as `probes.experts.measure` makes them:

    damage     layer, expert, replacement, of, word_class, value, low, high, per_use, share, n, n_documents
    fits       layer, expert, n_fit, n, constant_fvu, affine_fvu, participation, d_model
    pairs      condition, layer, expert, other, output_cosine, neuron_cosine, subspace, gradient_cosine, ..
    agreement  layer, replacement, of, correlation, low, high, within, within_low, within_high, n_cells
    curves     how, by, removed, n_removed, value, low, high, n
"""

import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.intervals import bars
from app.figures.theme import Width

REPLACEMENTS = {
    "zero": "left out",
    "mean": "its mean output",
    "affine": "an affine map of its input",
    "random": "a random other expert",
}
"""Words for what stands in an expert's place."""
CRITERIA = {"load": "least used", "damage": "least damage", "similarity": "most alike", "random": "at random"}
"""Words for who goes first."""


def whole(damage: DataFrame) -> DataFrame:
    """Loss changes over all predictions, one row an expert and replacement."""
    theme.need(("layer", "expert", "replacement", "word_class", "value", "low", "high"), damage, "damage")
    rows = damage[damage["word_class"] == "all"]
    return rows.sort_values(["replacement", "layer", "value"]).reset_index(drop=True)


def losses(damage: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Each expert's loss change by layer, one symbol a replacement, with 95% intervals."""
    rows, figure = whole(damage), go.Figure()
    present = [name for name in REPLACEMENTS if name in set(rows["replacement"])]
    for index, name in enumerate(present):
        part, look = rows[rows["replacement"] == name], theme.look(index, dark=dark)
        rank = part.groupby("layer")["value"].rank(method="first") / (
            part.groupby("layer")["value"].transform("size") + 1
        )
        figure.add_scatter(
            x=part["layer"] + (index + rank - len(present) / 2) * 0.8 / len(present),
            y=part["value"],
            customdata=part[["expert", "layer", "low", "high", "share", "n"]],
            error_y=bars(part, "value"),
            hovertemplate="layer %{customdata[1]}, expert %{customdata[0]}: %{y:.4f} nats [%{customdata[2]:.4f}, "
            "%{customdata[3]:.4f}]<br>used by %{customdata[4]:.1%} of %{customdata[5]} tokens",
            marker=look.marker | {"size": 5},
            mode="markers",
            name=REPLACEMENTS[name],
        )
    figure.add_hline(y=0, line={"color": theme.QUIET[dark], "width": 1})
    theme.layer_axis(figure, rows["layer"], "Layer (experts in order of their damage)")
    figure.update_yaxes(title="Change of the loss, nats a token")
    return theme.style(figure, dark=dark, width=width, alt=losses_caption(damage))


def losses_caption(damage: DataFrame) -> str:
    """Mean and largest loss change by replacement."""
    rows = whole(damage)
    parts = []
    for name, words in REPLACEMENTS.items():
        part = rows[rows["replacement"] == name]
        if len(part):
            worst = part.sort_values("value").to_dict("records")[-1]
            parts.append(
                f"{words}: {part['value'].mean():+.4f} on average, at most {worst['value']:+.4f} [{worst['low']:.4f}, "
                f"{worst['high']:.4f}] (layer {worst['layer']}, expert {worst['expert']})"
            )
    head = "Change of the loss in nats a token, used or not, when one expert is replaced. "
    return head + "; ".join(parts) + f". {rows['n'].max():,} held-out tokens, 95% intervals over documents."


def stand_ins(fits: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Each expert: what its mean leaves unexplained against what an affine map leaves unexplained."""
    theme.need(("layer", "expert", "n", "constant_fvu", "affine_fvu", "participation"), fits, "fits")
    figure = go.Figure()
    for index, (layer, part) in enumerate(fits.dropna(subset=["constant_fvu"]).groupby("layer")):
        look = theme.look(index, dark=dark)
        figure.add_scatter(
            x=part["constant_fvu"],
            y=part["affine_fvu"],
            customdata=part[["expert", "n", "participation"]],
            hovertemplate="expert %{customdata[0]}: constant %{x:.3f}, affine %{y:.3f}<br>%{customdata[1]} tokens, "
            "inputs over %{customdata[2]:.1f} dimensions",
            marker=look.marker,
            mode="markers",
            name=f"layer {layer}",
        )
    figure.update_xaxes(title="Unexplained by the mean output (constant FVU)", rangemode="tozero")
    figure.update_yaxes(title="Unexplained by an affine map (affine FVU)", rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=stand_ins_caption(fits))


def stand_ins_caption(fits: DataFrame) -> str:
    """Medians by layer."""
    parts = [
        f"layer {layer}: {part['constant_fvu'].median():.2f} by the mean, {part['affine_fvu'].median():.2f} by an "
        f"affine map, inputs over {part['participation'].median():.1f} of {part['d_model'].iloc[0]} dimensions"
        for layer, part in fits.groupby("layer")
    ]
    return (
        "What of an expert's output stays unexplained (medians over experts): " + "; ".join(parts) + ". Fitted on "
        f"{fits['n_fit'].median():,.0f} tokens an expert, scored on {fits['n'].median():,.0f} of other documents."
    )


def fewer_experts(curves: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Loss against the share of experts removed: pruned solid, merged dashed."""
    theme.need(("how", "by", "removed", "value", "low", "high"), curves, "curves")
    figure = go.Figure()
    for index, (by, words) in enumerate(CRITERIA.items()):
        look = theme.look(index, dark=dark)
        for how, dash in (("prune", "solid"), ("merge", "dash")):
            part = curves[(curves["by"] == by) & (curves["how"] == how)].sort_values("removed")
            figure.add_scatter(
                x=part["removed"],
                y=part["value"],
                error_y=bars(part, "value"),
                line={"color": look.colour, "dash": dash},
                marker=look.marker,
                mode="lines+markers",
                name=words if how == "prune" else f"{words}, merged",
                showlegend=how == "prune",
            )
    # one entry for all dashes, so that the legend leaves a printed column its plot
    figure.add_scatter(
        x=[None], y=[None], line={"color": theme.INK[dark], "dash": "dash"}, mode="lines", name="dashed: merged"
    )
    figure.update_xaxes(title="Experts removed from every layer", tickformat=".0%")
    figure.update_yaxes(title="Change of the loss, nats a token")
    return theme.style(figure, dark=dark, width=width, alt=fewer_caption(curves))


def fewer_caption(curves: DataFrame) -> str:
    """The loss at half of the experts, by criterion."""
    half = curves[curves["removed"] == 0.5]
    parts = [
        f"{CRITERIA.get(row['by'], row['by'])}, {row['how']}d: {row['value']:+.3f} [{row['low']:.3f}, "
        f"{row['high']:.3f}]"
        for row in half.to_dict("records")
    ]
    return (
        "Change of the loss as experts go, in every layer at once; with half of them gone: " + "; ".join(parts)
        + f". {curves['n'].max():,} held-out tokens; random order is the control."
    )  # fmt: skip


def causes(agreement: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """By layer: does an expert's share of a word class predict its damage on that class?"""
    theme.need(("layer", "replacement", "of", "correlation", "within"), agreement, "agreement")
    rows, figure = agreement[agreement["replacement"] == agreement["replacement"].iloc[0]], go.Figure()
    for index, (of, column, ends, words) in enumerate(
        (
            ("read", "correlation", ("low", "high"), "class of the token read"),
            ("read", "within", ("within_low", "within_high"), "the same within experts (load taken off)"),
            ("predicted", "correlation", ("low", "high"), "class of the token predicted"),
        )
    ):
        part, look = rows[rows["of"] == of].sort_values("layer"), theme.look(index, dark=dark)
        shown = part.rename(columns={column: "shown"}).assign(low=part[ends[0]], high=part[ends[1]])
        figure.add_scatter(
            x=shown["layer"],
            y=shown["shown"],
            error_y=bars(shown, "shown"),
            marker=look.marker,
            line={"color": look.colour},
            mode="lines+markers",
            name=words,
        )
    figure.add_hline(y=0, line={"color": theme.QUIET[dark], "width": 1})
    theme.layer_axis(figure, rows["layer"])
    figure.update_yaxes(title="Correlation of share and damage", range=[-1, 1])
    return theme.style(figure, dark=dark, width=width, alt=causes_caption(agreement))


def causes_caption(agreement: DataFrame) -> str:
    """The correlations by layer."""
    rows = agreement[(agreement["replacement"] == agreement["replacement"].iloc[0]) & (agreement["of"] == "read")]
    parts = [
        f"layer {row['layer']}: {row['correlation']:.2f} [{row['low']:.2f}, {row['high']:.2f}], within experts "
        f"{row['within']:.2f} [{row['within_low']:.2f}, {row['within_high']:.2f}]"
        for row in rows.to_dict("records")
    ]
    return (
        "Correlation over (expert, word class) of the share of the class that uses the expert and the loss change on "
        "the class without it. " + "; ".join(parts) + ". Within experts, load alone would give 0."
    )


LIKENESS = {
    "output_cosine": "outputs for the same token",
    "neuron_cosine": "neurons' output weights",
    "subspace": "subspaces (squared principal cosines)",
    "gradient_cosine": "gradients of the loss",
}
"""Words for how alike two experts are."""


def likeness(pairs: DataFrame) -> DataFrame:
    """Mean and quartiles over pairs: `condition, layer, measure, value, low, high, n_pairs`."""
    theme.need(("condition", "layer", *LIKENESS), pairs, "pairs")
    long = pairs.melt(["condition", "layer"], list(LIKENESS), "measure").dropna(subset="value")
    by = long.groupby(["condition", "layer", "measure"], sort=False)["value"]
    parts = {"value": by.mean(), "low": by.quantile(0.25), "high": by.quantile(0.75), "n_pairs": by.size()}
    return DataFrame(parts).reset_index()


def alike(pairs: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """How alike two experts of a layer are, by layer: trained solid, random weights dashed."""
    rows, figure = likeness(pairs), go.Figure()
    for index, (measure, words) in enumerate(LIKENESS.items()):
        look = theme.look(index, dark=dark)
        for condition, dash in (("real", "solid"), ("random_init", "dash")):
            part = rows[(rows["measure"] == measure) & (rows["condition"] == condition)].sort_values("layer")
            if len(part):
                figure.add_scatter(
                    x=part["layer"],
                    y=part["value"],
                    error_y=bars(part, "value"),
                    line={"color": look.colour, "dash": dash},
                    marker=look.marker,
                    mode="lines+markers",
                    name=words if condition == "real" else f"{words}, random weights",
                )
    theme.layer_axis(figure, rows["layer"])
    figure.update_yaxes(title="Likeness of two experts")
    return theme.style(figure, dark=dark, width=width, alt=alike_caption(pairs))


def alike_caption(pairs: DataFrame) -> str:
    """The first and the last layer's means, beside random weights."""
    rows = likeness(pairs).set_index(["condition", "measure", "layer"])["value"]
    first, last = (int(at(pairs["layer"])) for at in (min, max))
    parts = [
        f"{words} {rows.get(('real', measure, first), float('nan')):.2f} and "
        f"{rows.get(('real', measure, last), float('nan')):.2f} (random weights "
        f"{rows.get(('random_init', measure, first), float('nan')):.2f} and "
        f"{rows.get(('random_init', measure, last), float('nan')):.2f})"
        for measure, words in LIKENESS.items()
    ]
    return (
        f"How alike two experts of one layer are, in layers {first} and {last}: " + "; ".join(parts) + ". Means over "
        "pairs, bars their quartiles."
    )


FIGURES = (
    of_table(
        "pairs",
        name="worth-alike",
        title="How alike are the experts of a layer?",
        draw=alike,
        caption=alike_caption,
        plotted=likeness,
    ),
    of_table(
        "damage",
        name="worth-losses",
        title="What is lost without an expert?",
        draw=losses,
        caption=losses_caption,
        plotted=whole,
    ),
    of_table(
        "fits",
        name="worth-stand-ins",
        title="Could a constant or an affine map stand in for an expert?",
        draw=stand_ins,
        caption=stand_ins_caption,
    ),
    of_table(
        "curves",
        name="worth-fewer",
        title="How many experts are needed?",
        draw=fewer_experts,
        caption=fewer_caption,
    ),
    of_table(
        "agreement",
        name="worth-causes",
        title="Does what an expert is used for predict what it is good for?",
        draw=causes,
        caption=causes_caption,
    ),
)
