"""Secret mixtures of experts: what students miss, real activations beside Gaussian ones, and what the model loses.

Tables, as `probes.secret.compare` and `probes.secret.losses` make them:

    secret          layer, condition, method, seed, n_experts, n_active, fvu, low, high, n_sinks, stored, n_tokens, ...
    secret_ratios   layer, condition, method, n_experts, n_active, seed, ratio, low, high, fvu, fvu_dense, stored, ...
    secret_losses   layers, replaced_by, change, low, high, recovered_mean, recovered_zero, n_tokens, n_documents
    secret_cells    layer, condition, what, n_cells, used, fvu, low, high, fvu_train, stored, n_train, n_tokens
"""

import plotly.graph_objects as go
from pandas import DataFrame, Series

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.intervals import bars
from app.figures.theme import Width

LABELS = {
    "dense": "dense neurons", "closed_form": "mixture, closed form", "refined": "mixture, refined",
    "paper": "mixture, trained",
    "linear": "linear map",
    "constants": "table of cells", "oracle": "own neurons, oracle", "static": "own neurons, fixed",
    "oracle_clusters": "own clusters, oracle", "learned_clusters": "own clusters, router",
}  # fmt: skip
CONDITIONS = {
    "real": "real", "gaussian": "Gaussian", "shuffled": "shuffled coordinates", "shuffled_axes": "shuffled axes",
    "random_teacher": "random layer", "shuffled_teacher": "shuffled layer",
}  # fmt: skip
ENTRIES = 8
"""Most entries of a legend that leave room for the figure in a column."""
_SHAPES = {
    "shuffled": "triangle-up", "shuffled_axes": "triangle-down", "random_teacher": "x", "shuffled_teacher": "cross",
}  # fmt: skip
"""Marks of the conditions that are not told by a filled and an open one."""
_NEEDED = ("layer", "condition", "method", "seed", "n_active", "fvu", "low", "high", "stored", "n_tokens")
_CELLS = ("layer", "condition", "what", "n_cells", "used", "fvu", "low", "high", "stored", "n_train", "n_tokens")


def main_point(table: DataFrame) -> DataFrame:
    """The rows of the numbers of experts, active neurons and k that were asked for first; all, where one was."""
    asked = "_asked" if "n_experts_asked" in table else ""  # a dense student has no experts, whatever was asked
    for column in (f"n_experts{asked}", "n_active", f"k{asked}"):
        table = table[table[column] == table[column].iloc[0]] if column in table else table
    return table


def levels(secret: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """FVU of every student by layer; filled marks are real activations, open ones Gaussian, others have own shapes."""
    theme.need(_NEEDED, secret, "secret")
    secret = main_point(secret)
    figure = go.Figure()
    each = len(secret[["method", "condition"]].drop_duplicates()) <= ENTRIES
    for number, (method, part) in enumerate(secret.groupby("method", sort=False)):
        look = theme.look(number, dark=dark)
        for condition, rows in part.groupby("condition", sort=False):
            figure.add_scatter(
                x=[f"layer {layer}" for layer in rows["layer"]],
                y=rows["fvu"],
                error_y=bars(rows, "fvu"),
                mode="markers",
                marker={"color": look.colour, "symbol": _symbol(look.symbol, str(condition)), "size": 9},
                name=", ".join(_words(method, condition)),
                showlegend=each,
                offsetgroup=f"{method} {condition}",
                customdata=rows[["stored", "n_tokens", "seed"]],
                hovertemplate="FVU %{y:.3f}<br>%{customdata[0]:,} parameters stored<br>%{customdata[1]:,} tokens, "
                "seed %{customdata[2]}<extra></extra>",
            )
    if not each:
        _explain(figure, secret, dark)
    figure.update_yaxes(title="Fraction of variance unexplained", rangemode="tozero")
    figure.update_layout(scattermode="group", scattergap=0.5)  # side by side: many lie at one height
    return theme.style(figure, dark=dark, width=width, alt=levels_caption(secret))


def _explain(figure: go.Figure, secret: DataFrame, dark: bool) -> None:
    """Legend entries for colours (students) and shapes (conditions), where one for each pair would fill the figure."""
    methods, held = (list(map(str, secret[name].unique())) for name in ("method", "condition"))
    entries = [(LABELS[method], theme.look(i, dark=dark).marker) for i, method in enumerate(methods)]
    first = theme.look(0, dark=dark)
    entries += [
        (CONDITIONS[name], {"symbol": _symbol(first.symbol, name), "color": theme.QUIET[dark]}) for name in held
    ]
    group = figure.data[0].offsetgroup
    for name, marker in entries:
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, offsetgroup=group)


def _symbol(symbol: str, condition: str) -> str:
    return _SHAPES.get(condition, symbol if condition == "real" else f"{symbol}-open")


def levels_caption(secret: DataFrame) -> str:
    """FVU of each student under each condition, mean over layers and seeds, with stored parameters."""
    theme.need(_NEEDED, secret, "secret")
    secret = main_point(secret)
    parts = []
    dense = secret[secret["method"] == "dense"].groupby("condition")["fvu"].mean().to_dict()
    for (method, condition), rows in secret.groupby(["method", "condition"], sort=False):
        level = f"{rows['fvu'].mean():.3f}, {int(rows['stored'].iloc[0]):,} parameters stored"
        if method != "dense" and condition in dense:
            level += f", dense over it {dense[condition] / rows['fvu'].mean():.2f}"
        parts.append("{} ({}) {}".format(*_words(method, condition), level))
    sinks = int(secret["n_sinks"].max()) if "n_sinks" in secret else 0
    with_sinks = ""
    if sinks and "fvu_with_sinks" in secret:
        among = secret[secret["n_sinks"] > 0]
        both = f"{among['fvu'].mean():.3f}, and {among['fvu_with_sinks'].mean():.3f} with them"
        with_sinks = f" (where there are any: {both})"
    return (
        f"Fraction of variance unexplained with {_one(secret['n_active'])} active neurons, mean over "
        f"layers ({secret['layer'].nunique()}) and seeds ({secret['seed'].nunique()}): {'; '.join(parts)}. "
        f"{int(secret['n_tokens'].iloc[0]):,} tokens of documents not fitted on; bars: 95%, documents resampled. "
        f"{sinks} attention sinks left out{with_sinks}."
    )


def ratios(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """FVU of the dense student over that of each other one, by layer and condition."""
    theme.need(("layer", "condition", "method", "ratio", "low", "high", "fvu", "fvu_dense"), table, "secret_ratios")
    table = main_point(table)
    figure = go.Figure()
    for number, ((method, condition), rows) in enumerate(table.groupby(["method", "condition"], sort=False)):
        look = theme.look(number, dark=dark)
        figure.add_scatter(
            x=[f"layer {layer}" for layer in rows["layer"]],
            y=rows["ratio"],
            error_y=bars(rows, "ratio"),
            mode="markers",
            marker=look.marker | {"size": 9},
            name=", ".join(_words(method, condition)),
            customdata=rows[["fvu", "fvu_dense", "stored", "seed"]],
            hovertemplate="ratio %{y:.2f}<br>FVU %{customdata[0]:.3f}, dense %{customdata[1]:.3f}"
            "<br>%{customdata[2]:,} parameters stored, seed %{customdata[3]}<extra></extra>",
        )
    figure.add_hline(y=1, line={"dash": "dot", "width": 1})
    figure.update_yaxes(title="FVU of dense / FVU")
    figure.update_layout(scattermode="group", scattergap=0.5)
    return theme.style(figure, dark=dark, width=width, alt=ratios_caption(table))


def ratios_caption(table: DataFrame) -> str:
    """Mean ratio of each student under each condition, with the levels it is made of."""
    table, parts = main_point(table), []
    for (method, condition), rows in table.groupby(["method", "condition"], sort=False):
        level = f"{rows['fvu_dense'].mean():.3f} / {rows['fvu'].mean():.3f}, {int(rows['stored'].iloc[0]):,}"
        ratio = f"{rows['ratio'].mean():.2f} = {level} parameters stored"
        parts.append("{} ({}) {}".format(*_words(method, condition), ratio))
    return (
        f"How many times more a dense layer of {_one(table['n_active'])} neurons misses than a student of equal active "
        f"size: {'; '.join(parts)}. Above 1 on real activations and not on Gaussian ones is structure of the "
        f"activations. Bars: 95%, {int(table['n_documents'].iloc[0])} documents resampled in pairs."
    )


def losses(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Change of the model's loss when layers are replaced."""
    theme.need(("layers", "replaced_by", "change", "low", "high", "n_tokens"), table, "secret_losses")
    figure = go.Figure()
    names = {"student": "mixture", "mean": "its mean", "zero": "zero", "teacher": "the block itself"}
    for number, (kind, name) in enumerate(names.items()):
        rows = table[table["replaced_by"] == kind]
        look = theme.look(number, dark=dark)
        figure.add_scatter(
            x=[f"layer {layers}" for layers in rows["layers"]],
            y=rows["change"],
            error_y=bars(rows, "change"),
            mode="markers",
            marker=look.marker | {"size": 9},
            name=name,
        )
    figure.update_yaxes(title="Change of loss (nats a token)")
    return theme.style(figure, dark=dark, width=width, alt=losses_caption(table))


def losses_caption(table: DataFrame) -> str:
    """Change and share recovered for each set of layers."""
    parts = [
        f"layer {r['layers']}: {r['change']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}], {r['recovered_mean']:.0%} of "
        f"mean and {r['recovered_zero']:.0%} of zero ablation's harm recovered, {int(r['stored']):,} parameters "
        f"stored for {int(r['stored_teacher']):,}"
        for r in table[table["replaced_by"] == "student"].to_dict("records")
    ]
    return (
        f"Loss with the mixture in the block's place: {'; '.join(parts)}. {int(table['n_tokens'].iloc[0]):,} held-out "
        f"tokens of {int(table['n_documents'].iloc[0])} documents, resampled in pairs for the intervals; the first "
        "four positions of each window keep the block."
    )


def cells(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """FVU against the number of cells, constants and affine maps, real beside Gaussian."""
    theme.need(_CELLS, table, "secret_cells")
    figure = go.Figure()
    groups = table.sort_values("n_cells").groupby(["layer", "what", "condition"], sort=False)
    for number, ((layer, what, condition), rows) in enumerate(groups):
        look = theme.look(number, dark=dark)
        figure.add_scatter(
            x=rows["n_cells"],
            y=rows["fvu"],
            error_y=bars(rows, "fvu"),
            mode="lines+markers",
            line=look.line,
            marker={"symbol": look.symbol},
            name=f"layer {layer}, {what}, {CONDITIONS.get(str(condition), condition)}",
            customdata=rows[["stored", "used"]],
            hovertemplate="%{x:,} cells: FVU %{y:.3f}<br>%{customdata[0]:,} parameters stored<br>held-out tokens fall "
            "in %{customdata[1]:,} cells<extra></extra>",
        )
    sizes = sorted(table["n_cells"].unique())
    figure.update_xaxes(title="Cells", type="log", tickvals=sizes, ticktext=[f"{n:,}" for n in sizes])
    figure.update_yaxes(title="Fraction of variance unexplained", type="log")
    return theme.style(figure, dark=dark, width=width, alt=cells_caption(table))


def cells_caption(table: DataFrame) -> str:
    """First and last level of each curve."""
    parts = []
    for (layer, what, condition), rows in table.sort_values("n_cells").groupby(
        ["layer", "what", "condition"], sort=False
    ):
        first, last = rows.iloc[0], rows.iloc[-1]
        name = f"layer {layer}, {what} ({CONDITIONS.get(str(condition), condition)})"
        parts.append(
            f"{name} {first['fvu']:.3f} at {first['n_cells']} to {last['fvu']:.3f} at {last['n_cells']} cells, "
            f"{int(first['stored']):,} to {int(last['stored']):,} parameters stored, {int(last['used']):,} cells used"
        )
    return (
        f"What a table of cells misses: {'; '.join(parts)}. Fitted on {int(table['n_train'].iloc[0]):,} tokens, "
        f"measured on {int(table['n_tokens'].iloc[0]):,} of other documents; bars: 95%, documents resampled."
    )


def _words(method: object, condition: object) -> tuple[str, str]:
    """A student and its inputs, as they are written."""
    return LABELS.get(str(method), str(method)), CONDITIONS.get(str(condition), str(condition))


def _one(values: "Series[int]") -> str:
    return ", ".join(str(v) for v in sorted(values.unique().tolist()))


FIGURES = (
    of_table(
        "secret", name="secret-fvu", title="What students miss", draw=levels, caption=levels_caption, plotted=main_point
    ),
    of_table(
        "secret_ratios",
        name="secret-ratios",
        title="Dense over mixture",
        draw=ratios,
        caption=ratios_caption,
        plotted=main_point,
    ),
    of_table("secret_losses", name="secret-losses", title="Back in the model", draw=losses, caption=losses_caption),
    of_table("secret_cells", name="secret-cells", title="Tables of cells", draw=cells, caption=cells_caption),
)
