"""Neurons as memories: how often what a neuron writes is what follows its trigger, and what it writes.

Tables, as `probes.memory.measure` makes them:

    memory_agreement  layer, condition, sign, rate, low, high, chance, p_value, n_agree, n_neurons, n_tokens
    memory_values     layer, neuron, sign, rank, token, score
"""

import plotly.graph_objects as go
from pandas import DataFrame
from scipy.stats import false_discovery_control

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.intervals import bars
from app.figures.theme import Width

_COLUMNS = (
    "layer",
    "condition",
    "sign",
    "rate",
    "low",
    "high",
    "chance",
    "p_value",
    "n_agree",
    "n_neurons",
    "n_tokens",
)
_SIGNS = {"+": "positive", "-": "negative"}


def agreement(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Rate by layer for both signs with 95% intervals, the chance of a random pairing, and the controls' rates."""
    theme.need(_COLUMNS, table, "memory_agreement")
    figure = go.Figure()
    for number, sign in enumerate(_SIGNS):
        for name in theme.conditions(table["condition"]):
            part = table[(table["sign"] == sign) & (table["condition"] == name)].sort_values("layer")
            look = theme.look(number, dark=dark) if name == "real" else theme.condition(name, dark=dark)
            figure.add_scatter(
                x=part["layer"],
                y=part["rate"] * 100,
                customdata=part[["n_agree", "n_neurons", "p_value"]],
                error_y=bars(part, "rate", 100) | {"width": 2} if name == "real" else None,
                hovertemplate="layer %{x}: %{y:.2f}% (%{customdata[0]} of %{customdata[1]:,} neurons)"
                "<br>p = %{customdata[2]:.3g}",
                line={"color": look.colour, "dash": "solid" if sign == "+" else "dash"},
                marker={"color": look.colour, "symbol": theme.SYMBOLS[number] + ("" if name == "real" else "-open")},
                mode="lines+markers",
                name=f"{_SIGNS[sign]} triggers, {theme.condition(name).label}",
            )
    chance = table[table["condition"] == "real"].groupby("layer")["chance"].mean()
    figure.add_scatter(
        x=chance.index,
        y=chance * 100,
        hovertemplate="layer %{x}: %{y:.2f}%",
        line={"color": theme.QUIET[dark], "dash": "dot"},
        mode="lines",
        name="chance: triggers and values paired at random",
    )
    theme.layer_axis(figure, table["layer"])
    figure.update_yaxes(title="Neurons that agree (%)", rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=agreement_caption(table))


def agreement_caption(table: DataFrame) -> str:
    """Rate over all layers and signs of each condition, chance, layers beyond it, and the sample size."""
    theme.need(_COLUMNS, table, "memory_agreement")
    parts = []
    for name in theme.conditions(table["condition"]):
        part = table[table["condition"] == name]
        n = int(part["n_neurons"].sum())
        expected = float((part["chance"] * part["n_neurons"]).sum())
        parts.append(
            f"{theme.condition(name).label}: {int(part['n_agree'].sum()):,} of {n:,} pairs "
            f"({part['n_agree'].sum() / max(n, 1):.2%}; chance {expected / max(n, 1):.2%})"
        )
    real = table[table["condition"] == "real"]
    beyond = int((false_discovery_control(real["p_value"].dropna()) <= 0.05).sum()) if len(real) else 0
    return (
        "Share of neurons whose value vector, read in the vocabulary, puts first the token that follows their "
        f"strongest trigger, for both signs of the activation. {'; '.join(parts)}. Above chance in {beyond} of "
        f"{len(real)} cases of layer and sign (999 random pairings each, false discovery rate .05). Bars: 95% Wilson "
        f"intervals, neurons taken as independent. {int(real['n_tokens'].max()) if len(real) else 0:,} tokens."
    )


def value_tokens(
    values: DataFrame, *, layer: int, neuron: int, sign: str = "+", dark: bool = False, width: Width = "screen"
) -> go.Figure:
    """The tokens that one neuron's value vector raises most, with their scores as bars."""
    part = values[(values["layer"] == layer) & (values["neuron"] == neuron) & (values["sign"] == sign)]
    part = part.sort_values("rank", ascending=False)
    figure = go.Figure()
    if not len(part):
        theme.note(figure, f"layer {layer}, neuron {neuron} has no value in the table (yet)", dark=dark)
        return theme.style(figure, dark=dark, width=width, alt="No value.")
    names = [shown(token) for token in part["token"]]
    figure.add_bar(
        x=part["score"],
        y=part["rank"],
        orientation="h",
        hovertemplate="%{x:.1f} standard deviations above the vocabulary's mean<extra></extra>",
        marker={"color": theme.look(0, dark=dark).colour},
    )
    figure.update_xaxes(title="Score (standard deviations)", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", tickvals=part["rank"], ticktext=names)
    best = ", ".join(names[::-1])
    alt = f"Tokens that neuron {neuron} of layer {layer} raises most when it is {_SIGNS[sign]}: {best}."
    return theme.style(figure, dark=dark, width=width, height=380 if width == "screen" else None, alt=alt)


def shown(token: object) -> str:
    """A token as a label: white space made visible, nothing that plotly would take for markup."""
    visible = str(token).replace("\n", "⏎").replace("\r", "⏎").replace("\t", "⇥").replace(" ", "␣")
    return "".join(c if c.isprintable() else "�" for c in visible).replace("&", "&amp;").replace("<", "&lt;") or "∅"


FIGURES = (
    of_table(
        "memory_agreement",
        name="memory-agreement",
        title="Does a neuron write what follows its trigger?",
        draw=agreement,
        caption=agreement_caption,
        sources=("geva2021transformer",),
    ),
)
