"""How much of a dimension each feature gets as features become sparser, and which features each neuron answers to.

Tables:

    toy_room         feature_probability, best, dimensions_per_feature, d_hidden, n_features     one row a seed
    toy_dimensions   feature_probability, feature, norm, dimensionality, best_of                  the best seeds
    toy_neurons      panel, neuron, feature, value, best_of                                       hidden ReLU
"""

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.theme import Width
from app.figures.toys_layout import LINES, SHAPES, best_of, finish, multiples, panels, part, span

_TICKS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]


def staircase(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Dimensions per feature D* = m / ||W||^2 against sparsity, with lines at the fractions of known polytopes."""
    theme.need(("feature_probability", "best", "dimensions_per_feature"), table, "toy_room")
    figure, look = go.Figure(), theme.look(0, dark=dark)
    best = table[table["best"]].sort_values("feature_probability")
    figure.add_scatter(
        x=1 / table["feature_probability"],
        y=table["dimensions_per_feature"],
        mode="markers",
        name="each seed",
        marker={"color": theme.translucent(look.colour, 0.6), "symbol": "circle-open", "size": 6},
        hovertemplate="1/(1−S) = %{x:.3g}: D* = %{y:.3f}<extra></extra>",
    )
    figure.add_scatter(
        x=1 / best["feature_probability"],
        y=best["dimensions_per_feature"],
        mode="lines+markers",
        name="lowest loss",
        line={"color": look.colour},
        marker={"color": look.colour, "size": 6},
        hovertemplate="1/(1−S) = %{x:.3g}: D* = %{y:.3f}<extra></extra>",
    )
    _guides(figure, dark, width)
    _sparsity_axis(figure, table)
    top = max(1.08, float(table["dimensions_per_feature"].clip(upper=3).max()) * 1.03)
    figure.update_yaxes(title="dimensions per feature, D* = m / ‖W‖²", range=[0, top])
    told = f"{_shape(table).capitalize()}; {_seeds(table)} seeds a density"
    return finish(
        figure,
        told,
        dark=dark,
        width=width,
        alt=staircase_caption(table),
        legend=True,
        height=(430, 3.1),
    )


def staircase_caption(table: DataFrame) -> str:
    """D* at the dense end and over the densities at which it rests at one half."""
    best = table[table["best"]].sort_values("feature_probability", ascending=False)
    dense, sparse = best.iloc[0], best.iloc[-1]
    resting = int(((best["dimensions_per_feature"] - 0.5).abs() < 0.04).sum())
    return (
        f"Dimensions per feature of {_shape(table)}, by how often a feature is active ({_seeds(table)} seeds a "
        f"density, the line joins those of lowest loss). D* = {dense['dimensions_per_feature']:.3f} at p = "
        f"{dense['feature_probability']:g}, the dense control, and {sparse['dimensions_per_feature']:.3f} at p = "
        f"{sparse['feature_probability']:.3g}; within 0.04 of 1/2 (antipodal pairs) at {resting} of "
        f"{len(best)} densities."
    )


def dimensionalities(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """D_i of every represented feature against sparsity: lines of points are polytopes."""
    theme.need(("feature_probability", "norm", "dimensionality"), table, "toy_dimensions")
    learned = table[table["norm"] > 0.5]
    look = theme.look(0, dark=dark)
    spread = np.random.default_rng(0).uniform(-0.012, 0.012, len(learned))
    figure = go.Figure()
    figure.add_scattergl(
        x=(1 / learned["feature_probability"]) * np.exp(spread),
        y=learned["dimensionality"],
        mode="markers",
        marker={"color": theme.translucent(look.colour, 0.55), "size": 5},
        customdata=learned[["feature", "feature_probability"]],
        hovertemplate="feature %{customdata[0]}, p = %{customdata[1]:.3g}: D = %{y:.3f}<extra></extra>",
        name="feature",
    )
    _guides(figure, dark, width)
    _sparsity_axis(figure, table)
    figure.update_yaxes(title="dimensionality of a feature, D<sub>i</sub>", range=[0, 1.08])
    told = f"{len(learned):,} features represented (norm > 0.5) at {table['feature_probability'].nunique()} densities"
    told += best_of(table, "; best of {} each")
    return finish(
        figure,
        told,
        dark=dark,
        width=width,
        alt=dimensionalities_caption(table),
        height=(430, 3.1),
    )


def dimensionalities_caption(table: DataFrame) -> str:
    """Share of represented features near each fraction, against the share of a uniform spread."""
    D = table.loc[table["norm"] > 0.5, "dimensionality"].to_numpy()
    shares = (
        ", ".join(f"{np.mean(np.abs(D - level) < 0.02):.0%} near {name}" for level, name in LINES) if len(D) else ""
    )
    return (
        f"Dimensionality D_i = ‖Wᵢ‖² / Σⱼ(Ŵᵢ·Wⱼ)² of the {len(D):,} represented features, by sparsity. "
        f"Within 0.02: {shares} (a uniform spread would have 4% in each). Points are spread sideways by 1% to be "
        f"told apart."
    )


def neurons(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Each neuron of a hidden-ReLU model as a stack of its weights, one block a feature: one block is monosemantic."""
    theme.need(("neuron", "feature", "value"), table, "toy_neurons")
    names = panels(table)
    figure = multiples(names, shared_yaxes=True, spacing=0.02)
    features = sorted(table["feature"].unique())
    shown = set()
    for i, name in enumerate(names):
        rows = part(table, name)
        for feature in features:
            own = rows[(rows["feature"] == feature) & (rows["value"].abs() > 0.05)]
            look = theme.look(features.index(feature), dark=dark)
            pattern = ("", "/", ".")[(features.index(feature) // 8) % 3]
            figure.add_bar(
                x=own["neuron"],
                y=own["value"],
                name=f"feature {feature}",
                legendgroup=str(feature),
                legendrank=features.index(feature),
                showlegend=len(features) <= 16 and feature not in shown and len(own) > 0,
                marker={
                    "color": look.colour,
                    "line": {"color": theme.GROUND[dark], "width": 1.5},
                    "pattern": {"shape": pattern, "fgcolor": theme.INK[dark], "fillmode": "overlay", "solidity": 0.2},
                },
                hovertemplate=f"neuron %{{x}}, feature {feature}: %{{y:.2f}}<extra></extra>",
                row=1,
                col=i + 1,
            )
            shown |= {feature} if len(own) else set()
        figure.update_xaxes(title="neuron", dtick=1 if rows["neuron"].nunique() <= 12 else None, row=1, col=i + 1)
    figure.update_layout(barmode="relative", bargap=0.2)
    figure.update_yaxes(zeroline=True, zerolinecolor=theme.QUIET[dark])
    figure.update_yaxes(title="weight from feature (stacked)", row=1, col=1)
    told = "Input weights of the hidden neurons, one block a feature; weights below 0.05 left out"
    told += best_of(table, "; lowest loss of {}")
    return finish(
        figure,
        told,
        dark=dark,
        width=width,
        alt=neurons_caption(table),
        legend=True,
        below=True,
        panels=True,
        height=(470, 3.2),
    )


def neurons_caption(table: DataFrame) -> str:
    """Per panel: how many neurons answer to one feature alone."""
    told = []
    for name in panels(table):
        size = part(table, name).assign(size=lambda rows: rows["value"].abs())
        largest = size.groupby("neuron")["size"].transform("max")
        counts = size[(size["size"] >= 0.2 * largest) & (largest > 0)].groupby("neuron").size()
        told.append(f"{name}: {int((counts == 1).sum())} of {size['neuron'].nunique()} neurons".lstrip(": "))
    return (
        "Weights from the features into each hidden neuron (ReLU, so the axes mean something). Monosemantic, with a "
        "single weight of a fifth of the largest or more: " + "; ".join(told) + "."
    )


def _guides(figure: go.Figure, dark: bool, width: Width) -> None:
    for level, name in LINES:
        figure.add_hline(
            y=level,
            line={"color": theme.QUIET[dark], "dash": "dot", "width": 1},
            layer="below",
            annotation={
                "text": f"{name} {SHAPES[name]}",
                "font": {"color": theme.QUIET[dark], "size": 11 if width == "screen" else 8.5},
                "yanchor": "top" if name == "3/8" else "bottom",
            },
            annotation_position="top right",
        )


def _sparsity_axis(figure: go.Figure, table: DataFrame) -> None:
    inverse = 1 / table["feature_probability"]
    figure.update_xaxes(
        title="1 / (1 − S), sparser to the right",
        type="log",
        tickvals=_TICKS,
        range=[np.log10(inverse.min() * 0.93), np.log10(inverse.max() * 1.3)],
    )


def _shape(table: DataFrame) -> str:
    if "n_features" not in table or "d_hidden" not in table:
        return "toy models"
    return f"toy models of {int(table['n_features'].iloc[0])} features in {int(table['d_hidden'].iloc[0])} dimensions"


def _seeds(table: DataFrame) -> str:
    return span(list(table.groupby("feature_probability").size()))


FIGURES = (
    of_table(
        "toy_room",
        name="toy-staircase",
        title="Dimensions per feature: the staircase",
        draw=staircase,
        caption=staircase_caption,
        sources=("elhage2022toy",),
    ),
    of_table(
        "toy_dimensions",
        name="toy-dimensionality",
        title="The fraction of a dimension each feature has",
        draw=dimensionalities,
        caption=dimensionalities_caption,
        sources=("elhage2022toy",),
    ),
    of_table(
        "toy_neurons",
        name="toy-neurons",
        title="Features of each neuron: the privileged basis",
        draw=neurons,
        caption=neurons_caption,
        sources=("elhage2022toy",),
    ),
)
