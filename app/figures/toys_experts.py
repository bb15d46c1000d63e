"""Toy models with experts, and the neural process that separates context from conditional computation.

Tables, as `toymodels.moe.run` and `toymodels.process.run` make them:

    toy_moe_runs          router, n_experts, seed, features_per_dimension, best, d_hidden, n_features
    toy_process_runs      architecture, n_context, seed, fvu, uses_context, uses_experts, macs, n_parameters
"""

import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.theme import Width
from app.figures.toys_layout import finish, panels, span

ROUTERS = {"frozen": "frozen router", "trained": "trained router", "random": "random choice (control)"}
_BOUNDS = {"bayes_without": "dot", "bayes_with": "longdashdot"}
PREDICTORS = {
    "bayes_without": "best possible without context",
    "dense": "dense",
    "moe": "experts",
    "cnp": "context (neural process)",
    "context_routed": "experts routed by context",
    "cnp_moe": "context and experts",
    "bayes_with": "best possible with context",
}


def experts(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Features per dimension against the number of experts: each seed, the mean, and the random router."""
    theme.need(("router", "n_experts", "features_per_dimension"), table, "toy_moe_runs")
    figure = go.Figure()
    for i, router in enumerate(panels(table, "router")):
        rows = table[table["router"] == router]
        look = theme.look(i if router != "random" else 6, ROUTERS.get(str(router), str(router)), dark=dark)
        mean = rows.groupby("n_experts")["features_per_dimension"].mean()
        figure.add_scatter(
            x=rows["n_experts"],
            y=rows["features_per_dimension"],
            mode="markers",
            showlegend=False,
            hoverinfo="skip",
            marker={"color": theme.translucent(look.colour, 0.5), "symbol": f"{look.symbol}-open", "size": 6},
        )
        figure.add_scatter(
            x=mean.index,
            y=mean,
            mode="lines+markers",
            name=look.label,
            line=look.line,
            marker=look.marker | {"size": 8},
            hovertemplate=f"{look.label}, %{{x}} experts: %{{y:.2f}}<extra></extra>",
        )
    counts = sorted(table["n_experts"].unique())
    figure.update_xaxes(title="experts, E (one chosen an input)", type="log", tickvals=counts)
    figure.update_yaxes(title="features per dimension, ‖W‖²/m", rangemode="tozero")
    told = f"Mean over experts and {_seeds(table, ['router', 'n_experts'])} seeds (open: each seed)"
    if "n_features" in table:
        told += f"; {int(table['n_features'].iloc[0])} features, {int(table['d_hidden'].iloc[0])} dimensions an expert"
    return finish(
        figure,
        told,
        dark=dark,
        width=width,
        alt=experts_caption(table),
        legend=True,
        height=(430, 3.3),
    )


def experts_caption(table: DataFrame) -> str:
    """The means by number of experts, with the control's."""
    told = []
    for router in panels(table, "router"):
        means = table[table["router"] == router].groupby("n_experts")["features_per_dimension"].mean()
        listed = ", ".join(f"{value:.2f} (E = {count})" for count, value in means.items())
        told.append(f"{ROUTERS.get(str(router), str(router))}: {listed}")
    return (
        f"Features per dimension of toy mixtures of experts, mean over experts and "
        f"{_seeds(table, ['router', 'n_experts'])} seeds. " + "; ".join(told) + "."
    )


def process(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Unexplained variance of each predictor against the number of context points, at equal compute."""
    theme.need(("architecture", "n_context", "fvu", "seed"), table, "toy_process_runs")
    figure = go.Figure()
    for i, (name, words) in enumerate((k, v) for k, v in PREDICTORS.items() if k in set(table["architecture"])):
        rows = table[table["architecture"] == name]
        bound = name.startswith("bayes")
        look = theme.look(6 if bound else i, words, dark=dark)
        grouped = rows.groupby("n_context")["fvu"]
        mean = grouped.mean()
        figure.add_scatter(
            x=mean.index,
            y=mean,
            mode="lines" if bound else "lines+markers",
            name=words,
            line={"color": look.colour, "dash": _BOUNDS.get(name, look.dash), "width": 1.5 if bound else 2},
            marker=look.marker | {"size": 8},
            error_y=None
            if bound
            else {
                "type": "data",
                "symmetric": False,
                "array": grouped.max() - mean,
                "arrayminus": mean - grouped.min(),
                "thickness": 1,
                "width": 3,
            },
            hovertemplate=f"{words}, %{{x}} context points: %{{y:.3f}}<extra></extra>",
        )
    figure.update_xaxes(
        title="context points given with each task", type="log", tickvals=sorted(table["n_context"].unique())
    )
    figure.update_yaxes(title="variance left unexplained (FVU)", range=[0, max(0.7, float(table["fvu"].max()) * 1.05)])
    seeds = _seeds(table, ["architecture", "n_context"])
    told = f"Mean of {seeds} seeds, bars from least to greatest; equal multiply-adds a query"
    return finish(
        figure,
        told,
        dark=dark,
        width=width,
        alt=process_caption(table),
        legend=True,
        below=True,
        height=(520, 4.4),
    )


def process_caption(table: DataFrame) -> str:
    """The 2 x 2 at the middle number of context points, with the bounds."""
    sizes = sorted(table["n_context"].unique())
    middle = sizes[len(sizes) // 2]
    means = table[table["n_context"] == middle].groupby("architecture")["fvu"].mean()
    listed = ", ".join(f"{words} {means[name]:.3f}" for name, words in PREDICTORS.items() if name in means.index)
    return (
        f"Fraction of variance unexplained by networks of equal compute with and without context information and "
        f"conditional computation; at {middle} context points: {listed}. Means of "
        f"{_seeds(table, ['architecture', 'n_context'])} seeds."
    )


def _seeds(table: DataFrame, by: list[str]) -> str:
    return span(list(table.groupby(by)["seed"].nunique()))


FIGURES = (
    of_table(
        "toy_moe_runs",
        name="toy-experts",
        title="Experts need less superposition",
        draw=experts,
        caption=experts_caption,
    ),
    of_table(
        "toy_process_runs",
        name="toy-process",
        title="Context and conditional computation are two things",
        draw=process,
        caption=process_caption,
    ),
)
