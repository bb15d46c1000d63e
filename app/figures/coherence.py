"""Coherence and recovery: four bars, recovery curves, nearest neighbours, the Babel function, separable clusters.

All tables have the columns `dictionary` and `condition`: real, centred (the mean direction removed), random (a random
dictionary of the same size, the control).
"""

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame
from plotly.subplots import make_subplots

from app.figures import intervals, theme
from app.figures.catalogue import of_table
from app.figures.theme import Width

WORDS = {"real": "as it is", "centred": "mean removed", "random": "random, same size"}
METHODS = {"thresholding": "thresholding", "omp": "OMP", "lasso": "Lasso"}
BARS = {
    "mu": "guaranteed by mu",
    "babel": "guaranteed by Babel",
    "thresholding predictor": "predicted, thresholding",
    "omp predictor": "predicted, OMP",
    "thresholding": "measured, thresholding",
    "omp": "measured, OMP",
    "lasso": "measured, Lasso",
}
_SERIES = "<extra>%{fullData.name}</extra>"
_CONDITION = {"real": 0, "centred": 2, "random": 6}


def one(frame: DataFrame, dictionary: str | None = None) -> DataFrame:
    """The rows of one dictionary: the named one, or the first."""
    name = dictionary or str(frame["dictionary"].iloc[0])
    rows = frame[frame["dictionary"] == name]
    if rows.empty:
        raise ValueError(f"no dictionary '{name}' in the table; it has {', '.join(frame['dictionary'].unique())}")
    return rows


def bars(frame: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """How many active features: guaranteed, predicted and measured, for the dictionary and its random control."""
    rows = one(frame)
    figure = go.Figure()
    for condition in ("random", "real"):
        part = rows[rows["condition"] == condition].iloc[::-1]
        if part.empty:
            continue
        look = theme.look(_CONDITION[condition], WORDS[condition], dark=dark)
        k = part["k"].clip(lower=0.5)  # a bar of no length could not be seen on a logarithmic axis
        figure.add_bar(
            y=[BARS[bar] for bar in part["bar"]],
            x=k,
            orientation="h",
            offsetgroup=condition,
            name=look.label,
            marker={"color": look.colour, "pattern": {"shape": "" if condition == "real" else "/"}},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": part["high"] - part["k"],
                "arrayminus": (k - part["low"].clip(lower=0.5)).clip(lower=0),
                "color": theme.INK[dark],
                "thickness": 1,
            },
            customdata=part[["kind", "k", "low", "high"]],
            hovertemplate="%{y}<br>k = %{customdata[1]} (%{customdata[2]}–%{customdata[3]})" + _SERIES,
        )
        figure.add_bar(  # a second, unseen bar up to the whisker's end carries the number beyond it
            y=[BARS[bar] for bar in part["bar"]],
            x=part["high"].clip(lower=0.5),
            orientation="h",
            offsetgroup=condition,
            marker={"color": "rgba(0,0,0,0)", "line": {"width": 0}},
            text=part["k"],
            textposition="outside",
            textfont={"color": theme.INK[dark]},
            cliponaxis=False,
            hoverinfo="skip",
            showlegend=False,
        )
    figure.update_xaxes(type="log", title="active features k", tickvals=[1, 2, 5, 10, 20, 50, 100, 200, 500])
    figure.update_layout(barmode="group", bargap=0.25, legend={"traceorder": "reversed"})
    return theme.style(figure, dark=dark, width=width, alt=bars_caption(frame))


def bars_caption(frame: DataFrame) -> str:
    """Caption of `bars`."""
    rows = one(frame)
    real = rows[rows["condition"] == "real"].set_index("bar")["k"]
    best = real.drop(["mu", "babel", "thresholding predictor", "omp predictor"], errors="ignore")
    found = ", ".join(f"{METHODS[str(m)]} {k}" for m, k in best.items())
    return (
        f"{rows['dictionary'].iloc[0]}: the coherence bound guarantees k = {real['mu']} active features "
        f"(Babel {real['babel']}); measured, the exact support comes back in 95% of trials up to k = {found} "
        f"({rows['trials'].iloc[0]} trials for each k; whiskers: where the 95% Wilson interval of the rate lies wholly "
        "above, or still reaches, 95%). Hatched: a random dictionary of the same size."
    )


def curve(frame: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Share of codes whose exact support is found, against their number of active features."""
    rows = one(frame)
    figure = go.Figure()
    for number, method in enumerate(m for m in METHODS if m in set(rows["method"])):
        for condition in ("real", "random"):
            part = rows[(rows["method"] == method) & (rows["condition"] == condition)].sort_values("k")
            if part.empty:
                continue
            look = theme.look(number, f"{METHODS[method]}, {WORDS[condition]}", dark=dark)
            if condition == "real":
                figure.add_scatter(
                    x=[*part["k"], *part["k"][::-1]],
                    y=[*part["high"], *part["low"][::-1]],
                    mode="lines",
                    fill="toself",
                    fillcolor=theme.translucent(look.colour, 0.18),
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                )
            figure.add_scatter(
                x=part["k"],
                y=part["rate"],
                mode="lines+markers",
                name=look.label,
                line={"color": look.colour, "dash": "solid" if condition == "real" else "dot"},
                marker={"symbol": look.symbol if condition == "real" else f"{look.symbol}-open"},
                customdata=part[["successes", "trials"]],
                hovertemplate="k = %{x}: %{customdata[0]} of %{customdata[1]}<extra>%{fullData.name}</extra>",
            )
    figure.add_hline(y=0.95, line={"color": theme.QUIET[dark], "width": 1, "dash": "dot"})
    figure.update_xaxes(type="log", title="active features k", tickvals=[1, 2, 5, 10, 20, 50, 100, 200, 500])
    figure.update_yaxes(title="share of supports found", range=[-0.03, 1.03], tickformat=".0%")
    return theme.style(figure, dark=dark, width=width, alt=curve_caption(frame))


def curve_caption(frame: DataFrame) -> str:
    """Caption of `curve`."""
    rows = one(frame)
    first = rows.iloc[0]
    return (
        f"{first['dictionary']}: share of planted codes whose exact support is found, {first['trials']} trials a "
        f"point, magnitudes in [1, {first['amplitude_range']:g}], {first['signs']} signs, {first['supports']} "
        f"supports, noise {first['noise']:g}; bands: 95% Wilson intervals; dotted: random control of the same size."
    )


def nearest(frame: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Distribution of each feature's largest |cosine|: mu is only its last point."""
    rows = one(frame)
    figure = go.Figure()
    for condition in WORDS:
        part = rows[rows["condition"] == condition]
        if part.empty:
            continue
        look = theme.look(_CONDITION[condition], WORDS[condition], dark=dark)
        order = part["cosine"].abs().to_numpy().argsort()
        # a curve of a few hundred points looks the same as one of a hundred thousand; the last ones are all kept
        keep = order[np.unique(np.r_[np.linspace(0, len(order) - 1, 400).astype(int), np.arange(len(order))[-50:]])]
        share = np.argsort(order)[keep] + 1
        figure.add_scatter(
            x=part["cosine"].abs().to_numpy()[keep],
            y=share / len(order),
            mode="lines",
            name=look.label,
            line=look.line,
            customdata=part[["label", "neighbour", "cosine"]].to_numpy()[keep],
            hovertemplate="%{customdata[0]} – %{customdata[1]}<br>cosine %{customdata[2]:.3f}" + _SERIES,
        )
    figure.update_xaxes(title="largest |cosine| with another feature", range=[0, 1.02])
    figure.update_yaxes(title="share of features", range=[0, 1.02], tickformat=".0%")
    return theme.style(figure, dark=dark, width=width, alt=nearest_caption(frame))


def nearest_caption(frame: DataFrame) -> str:
    """Caption of `nearest`."""
    rows = one(frame)
    real = rows.loc[rows["condition"] == "real", "cosine"].abs()
    return (
        f"{rows['dictionary'].iloc[0]}: cumulative share of {len(real):,} features by |cosine| to their nearest other. "
        f"Half lie below {real.median():.2f}, {(real > 0.9).mean():.2%} above .9; the coherence {real.max():.3f} is "
        "set by the last pair alone."
    )


def babel(frame: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """The Babel function: the most that k features can sum up to on another one."""
    rows = one(frame)
    figure = go.Figure()
    for condition in WORDS:
        part = rows[rows["condition"] == condition]
        if part.empty:
            continue
        look = theme.look(_CONDITION[condition], WORDS[condition], dark=dark)
        figure.add_scatter(
            x=part["k"],
            y=part["babel"],
            mode="lines+markers",
            name=look.label,
            line=look.line,
            marker={"symbol": look.symbol, "size": 4},
        )
    figure.add_hline(
        y=0.5,
        line={"color": theme.QUIET[dark], "width": 1, "dash": "dot"},
        annotation_text="recovery guaranteed below about 1/2",
        annotation_position="top right",
    )
    figure.update_xaxes(title="k")
    figure.update_yaxes(title="largest sum of k |cosines|", rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=babel_caption(frame))


def babel_caption(frame: DataFrame) -> str:
    """Caption of `babel`."""
    rows = one(frame)
    real = rows[rows["condition"] == "real"].sort_values("k")["babel"].to_numpy()
    return (
        f"{rows['dictionary'].iloc[0]}: Babel function, mu_1(1) = {real[0]:.3f}, mu_1(8) = {real[7]:.3f}. Recovery of "
        "k active features is guaranteed while mu_1(k - 1) + mu_1(k) < 1."
    )


def separable(frame: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Accuracy of a linear router on planted clusters of codes, against k, one line a coherence, a panel a sign law."""
    kinds = list(dict.fromkeys(frame["signs"]))
    figure = make_subplots(cols=len(kinds), shared_yaxes=True, subplot_titles=[f"{kind} signs" for kind in kinds])
    for column, kind in enumerate(kinds, start=1):
        for number, (mu, part) in enumerate(frame[frame["signs"] == kind].groupby("mu")):
            look = theme.look(number, f"mu = {mu:.2f}", dark=dark)
            figure.add_scatter(
                x=part["k"],
                y=part["accuracy"],
                mode="lines+markers",
                name=look.label,
                legendgroup=look.label,
                showlegend=column == 1,
                line=look.line,
                marker={"symbol": look.symbol},
                error_y=intervals.bars(part, "accuracy"),
                row=1,
                col=column,
            )
    figure.add_hline(y=float(frame["chance"].iloc[0]), line={"color": theme.QUIET[dark], "width": 1, "dash": "dot"})
    figure.update_xaxes(type="log", title="active features k", tickvals=sorted(frame["k"].unique()))
    figure.update_yaxes(title="router accuracy", range=[0, 1.03], tickformat=".0%", col=1)
    figure.update_layout(legend={"y": 1.12})
    return theme.style(figure, dark=dark, width=width, alt=separable_caption(frame))


def separable_caption(frame: DataFrame) -> str:
    """Caption of `separable`."""
    means = frame.groupby("signs")["accuracy"].mean()
    said = ", ".join(f"{kind} signs {value:.0%}" for kind, value in means.items())
    return (
        f"Test accuracy of a linear router on clusters of planted sparse codes ({said} on average; chance "
        f"{frame['chance'].iloc[0]:.1%}, permuted labels {frame['null'].mean():.1%}; {frame['n_tokens'].iloc[0]:,} "
        f"test tokens a cell, 95% Wilson intervals, noise {frame['noise'].iloc[0]:g})."
    )


FIGURES = (
    of_table(
        "recovery_bars",
        name="coherence-bars",
        title="Guaranteed, predicted and measured numbers of active features",
        draw=bars,
        caption=bars_caption,
        plotted=one,
    ),
    of_table("recovery", name="coherence-recovery", title="Recovery", draw=curve, caption=curve_caption, plotted=one),
    of_table(
        "coherence_nearest",
        name="coherence-nearest",
        title="Nearest neighbours",
        draw=nearest,
        caption=nearest_caption,
        plotted=one,
    ),
    of_table(
        "coherence_babel",
        name="coherence-babel",
        title="Babel function",
        draw=babel,
        caption=babel_caption,
        plotted=one,
    ),
    of_table(
        "separability",
        name="coherence-separability",
        title="Planted codes and a linear router",
        draw=separable,
        caption=separable_caption,
    ),
)
