"""Top-k after the fact: what a model loses when only a share of its neurons is kept.

Tables, as `probes.keeping.measure` makes them:

    keeping          choice, layer (-1: all), share, loss, change, low, high, ppl_ratio, ratio_low, ratio_high, ...
    keeping_points   choice, share, low, high, n_tokens, n_documents
    keeping_errors   condition, layer, choice, share, error, low, high, n_tokens
"""

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import Entry, Frames, of_table
from app.figures.intervals import band, bars
from app.figures.theme import Width

CHOICES = {
    "oracle": "largest |z| of each token",
    "threshold": "|z| above one number a layer",
    "static": "always the same",
    "random": "always the same, at random",
}
"""How the neurons were chosen, in the words of legends."""
_INDEX = {"oracle": 0, "threshold": 2, "static": 1, "random": 6}
_NEEDS = ("choice", "layer", "share", "ppl_ratio", "ratio_low", "ratio_high", "n_tokens", "n_documents")


def all_layers(keeping: DataFrame) -> DataFrame:
    """Rows in which every layer is edited, with the unedited model at a share of 1 in every choice."""
    theme.need(_NEEDS, keeping, "keeping")
    rows = keeping[(keeping["layer"] == -1) & (keeping["choice"] != "none")]
    return rows.sort_values(["choice", "share"]).reset_index(drop=True)


def curve(tables: Frames, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Perplexity ratio against the share of neurons kept, one line a choice; where it costs 1% as a diamond."""
    rows = all_layers(tables["keeping"])
    figure = go.Figure()
    for name in [c for c in CHOICES if c in set(rows["choice"])]:
        part, look = rows[rows["choice"] == name], theme.look(_INDEX[name], CHOICES[name], dark=dark)
        x, y = np.append(part["share"], 1.0) * 100, np.append(part["ppl_ratio"], 1.0)
        low, high = np.append(part["ratio_low"], 1.0), np.append(part["ratio_high"], 1.0)
        band(figure, x, low, high, look.colour, name)
        figure.add_scatter(
            x=x,
            y=y,
            customdata=np.column_stack([low, high]),
            hovertemplate="%{x:.0f}% kept: perplexity × %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
            legendgroup=name,
            line=look.line,
            marker=look.marker,
            mode="lines+markers",
            name=look.label,
        )
    figure.add_hline(y=1.01, line={"color": theme.QUIET[dark], "width": 1, "dash": "dot"})
    figure.update_xaxes(title="Neurons kept (% of each layer)", range=[0, 103], dtick=20)
    figure.update_yaxes(title="Perplexity (times the model's own)", type="log")
    return theme.style(figure, dark=dark, width=width, alt=curve_caption(tables))


def curve_caption(tables: Frames) -> str:
    """The ratios at one half and one tenth, where perplexity is 1% higher, sample size and intervals."""
    rows = all_layers(tables["keeping"])
    said = []
    for name in [c for c in CHOICES if c in set(rows["choice"])]:
        part = rows[rows["choice"] == name].set_index("share")
        numbers = [
            f"{part.ppl_ratio[s]:.3g} [{part.ratio_low[s]:.3g}, {part.ratio_high[s]:.3g}] at {s:.0%}"
            for s in (0.5, 0.1)
            if s in part.index
        ] or [f"{part.ppl_ratio.iloc[0]:.3g} at {part.index[0]:.0%}"]
        said.append(f"{CHOICES[name]}: {', '.join(numbers)}")
    points = tables["keeping_points"].set_index("choice")
    lazy = ""
    if "oracle" in points.index and np.isfinite(points.share["oracle"]):
        at = points.loc["oracle"]
        lazy = f" Perplexity is 1% higher (dotted) when {at.share:.0%} [{at.low:.0%}, {at.high:.0%}] are kept."
    return (
        f"Perplexity when only a share of each layer's neurons is kept, as a multiple of the unedited model's: "
        f"{'; '.join(said)}.{lazy} {int(rows['n_tokens'].max()):,} tokens of {int(rows['n_documents'].max())} "
        "documents; bands: 95% bootstrap intervals over documents, in pairs. Choices that do not look at the token "
        "were made on other documents."
    )


def errors(frame: DataFrame, share: float = 0.1, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Output error of each layer when a share is kept: the choices, and the oracle with random weights."""
    rows = of_share(frame, share)
    figure = go.Figure()
    for condition, choice in _lines(rows):
        part = rows[(rows["condition"] == condition) & (rows["choice"] == choice)]
        control = condition != "real"
        label = theme.condition(condition).label if control else CHOICES[choice]
        look = theme.condition(condition, dark=dark) if control else theme.look(_INDEX[choice], dark=dark)
        figure.add_scatter(
            x=part["layer"],
            y=part["error"] * 100,
            error_y=bars(part, "error", 100),
            hovertemplate="layer %{x}: %{y:.1f}%",
            line={"color": look.colour, "dash": "dot" if control else look.dash},
            marker=look.marker,
            mode="lines+markers",
            name=label,
        )
    figure.update_xaxes(title="Layer", dtick=5 if rows["layer"].nunique() > 8 else 1)
    figure.update_yaxes(title=f"Output error, {share:.0%} kept (%)", rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=errors_caption(frame, share))


def of_share(frame: DataFrame, share: float = 0.1) -> DataFrame:
    """Rows of the share that is nearest to the one asked for."""
    theme.need(("condition", "layer", "choice", "share", "error", "low", "high", "n_tokens"), frame, "keeping_errors")
    held = np.array(sorted(frame["share"].unique()))
    return frame[frame["share"] == held[np.abs(held - share).argmin()]]


def errors_caption(frame: DataFrame, share: float = 0.1) -> str:
    """Means over the layers."""
    rows = of_share(frame, share)
    means = rows.groupby(["condition", "choice"])["error"].mean().to_dict()
    said = [
        f"{CHOICES[choice] if condition == 'real' else theme.condition(condition).label} {means[condition, choice]:.1%}"
        for condition, choice in _lines(rows)
    ]
    return (
        "Squared error of each layer's feed-forward output, relative to its energy, when "
        f"{rows['share'].iloc[0]:.0%} of the neurons are kept; mean over {rows['layer'].nunique()} layers: "
        f"{', '.join(said)}. {int(rows['n_tokens'].max()):,} tokens, attention sinks left out; 95% bootstrap intervals "
        "over documents."
    )


def _lines(rows: DataFrame) -> list[tuple[str, str]]:
    """The pairs of condition and choice that a table holds."""
    return [(str(a), str(b)) for a, b in rows[["condition", "choice"]].drop_duplicates().to_numpy().tolist()]


FIGURES = (
    Entry(
        name="keeping-curve",
        title="Perplexity when few neurons are kept",
        needs=("keeping", "keeping_points"),
        draw=curve,
        caption=curve_caption,
        plotted=lambda tables: all_layers(tables["keeping"]),
        sources=("li2023lazy", "liu2024teal"),
    ),
    of_table(
        "keeping_errors",
        name="keeping-errors",
        title="Output error by layer when a tenth of the neurons is kept",
        draw=errors,
        caption=errors_caption,
        plotted=of_share,
        sources=("li2023lazy",),
    ),
)
