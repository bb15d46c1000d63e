"""Top-k after the fact against top-k trained so.

Table, as `app.topk.measure` makes it:

    series_topk   seed, trained, choice, share, loss, change, low, high, active, n_tokens, n_documents
"""

from collections.abc import Iterable

import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.intervals import bars
from app.figures.theme import Width

LINES = {
    "oracle": "dense, after the fact: largest |z| of each token",
    "static": "dense, after the fact: always the same",
    "random": "dense, after the fact: at random",
    "trained": "dense, trained with the largest |z| only",
    "experts": "experts, trained with k of them",
}
"""The lines, in the words of legends."""
_INDEX = {"oracle": 0, "static": 1, "random": 6, "trained": 2, "experts": 3}
_NEEDS = ("seed", "trained", "choice", "share", "change", "low", "high", "active", "n_tokens", "n_documents")


def lines(topk: DataFrame) -> DataFrame:
    """One row a line and share: `line, share, change, low, high, active, seeds`.

    With several seeds change is their mean and low, high their range; with one the interval over documents.
    """
    theme.need(_NEEDS, topk, "series_topk")
    own = (topk["choice"] == "oracle") & (topk["trained"] != "after the fact")
    rows = topk.assign(line=topk["choice"].mask(own, "trained"))
    groups = rows.groupby(["line", "share"], sort=False)
    found = groups[["change", "low", "high", "active"]].mean().assign(seeds=groups["seed"].nunique())
    if topk["seed"].nunique() > 1:
        found = found.assign(low=groups["change"].min(), high=groups["change"].max())
    return found.reset_index().sort_values(["line", "share"], ignore_index=True)


def against_share(topk: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Loss above the dense model's against the share of neurons used for a token, one line a way."""
    rows = lines(topk)
    figure = go.Figure()
    for name in [line for line in LINES if line in set(rows["line"])]:
        part, look = rows[rows["line"] == name], theme.look(_INDEX[name], LINES[name], dark=dark)
        figure.add_scatter(
            x=part["share"] * 100,
            y=part["change"],
            customdata=part[["low", "high", "active"]],
            error_y=bars(part, "change"),
            hovertemplate="%{x:.3g}% used: %{y:+.3f} [%{customdata[0]:+.3f}, %{customdata[1]:+.3f}] nats, "
            "%{customdata[2]:,.0f} parameters",
            line=look.line,
            marker=look.marker | {"size": 9},
            mode="lines+markers",
            name=look.label,
        )
    figure.add_hline(y=0, line={"color": theme.QUIET[dark], "width": 1, "dash": "dot"})
    shares = sorted(map(float, rows["share"].unique()))
    figure.update_xaxes(
        title="Neurons used for a token (%)", type="log", tickvals=[100 * s for s in shares], ticktext=_percent(shares)
    )
    figure.update_yaxes(title="Loss above the dense model's<br>with all neurons (nats a token)")
    return theme.style(figure, dark=dark, width=width, alt=caption(topk))


def caption(topk: DataFrame) -> str:
    """Every line's changes, sample size and what the bars are."""
    rows = lines(topk)
    said = []
    for name in [line for line in LINES if line in set(rows["line"])]:
        part = rows[rows["line"] == name]
        numbers = [
            f"{r.change:+.3f} [{r.low:+.3f}, {r.high:+.3f}] at {at}"
            for r, at in zip(part.itertuples(), _percent(part["share"]), strict=True)
        ]
        said.append(f"{LINES[name]}: {', '.join(numbers)}")
    n = topk["seed"].nunique()
    brackets = "95%, documents resampled in pairs" if n == 1 else f"range over {n} seeds"
    return (
        f"Loss (nats a token) above that of a dense model of as many neurons, all used, trained alike: "
        f"{'; '.join(said)}. Brackets: {brackets}; {int(topk['n_tokens'].max()):,} tokens of "
        f"{int(topk['n_documents'].max())} documents that no training read."
    )


def _percent(shares: Iterable[float]) -> list[str]:
    return [f"{100 * share:.3g}%" for share in shares]


FIGURES = (
    of_table(
        "series_topk",
        name="series-topk",
        title="Few neurons after the fact, or few experts trained so?",
        draw=against_share,
        caption=caption,
        plotted=lines,
        sources=("li2023lazy", "dai2024deepseekmoe"),
    ),
)
