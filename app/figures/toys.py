"""Toy models at a glance: their matrices, and which features they represent and with how much interference.

Tables (each may have a column `panel` whose values become small multiples, e.g. `p = 0.1`):

    toy_matrices   matrix ("W^T W" or "b"), row, column, value          best of `best_of` seeds
    toy_features   feature, norm, superposition, dimensionality         best of `best_of` seeds
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.theme import Width
from app.figures.toys_layout import best_of, finish, multiples, panels, part

Stops = Sequence[tuple[float, str]]

_DIVERGING_DARK = ((0.0, "#56b4e9"), (0.5, "#1f242b"), (1.0, "#f58b45"))
_SUPERPOSITION = {
    False: ((0, "#0072b2"), (0.5, "#8d6a9f"), (1, "#f0a202")),
    True: ((0, "#56b4e9"), (0.5, "#c79fc4"), (1, "#ffd166")),
}


def matrices(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """W^T W beside b for each panel: ones on the diagonal are features learned, colours off it interference."""
    theme.need(("matrix", "row", "column", "value"), table, "toy_matrices")
    names = panels(table)
    widths = [w for _ in names for w in (1.0, 0.13)]
    titles = [title for name in names for title in (str(name), "")]
    lines = _lines(names, width)
    across = -(-len(names) // lines)
    titles += [""] * (2 * across * lines - len(titles))
    figure = multiples(
        titles, rows=lines, column_widths=(widths * across)[: 2 * across], spacing=0.012, vertical_spacing=0.25
    )
    reach = max(float(table["value"].abs().max()), 1e-9)
    for number, name in enumerate(names):
        rows, (line, i) = part(table, name), divmod(number, across)
        for offset, matrix in enumerate(("W^T W", "b")):
            square = rows[rows["matrix"] == matrix].pivot_table(index="row", columns="column", values="value")
            words = "feature %{x} → output %{y}" if matrix == "W^T W" else "bias of output %{y}"
            figure.add_heatmap(
                z=square.to_numpy(),
                x=square.columns if matrix == "W^T W" else ["b"],
                y=square.index,
                coloraxis="coloraxis",
                hovertemplate=f"{words}: %{{z:.3f}}<extra></extra>",
                xgap=1 if len(square) <= 40 else 0,
                ygap=1 if len(square) <= 40 else 0,
                row=line + 1,
                col=2 * i + 1 + offset,
            )
        first = i == 0
        middle = i == (across - 1) // 2 and line == lines - 1
        figure.update_xaxes(
            title="input feature i" if middle else None,
            showline=False,
            nticks=4,
            tickangle=0,
            row=line + 1,
            col=2 * i + 1,
        )
        figure.update_yaxes(
            title="output feature j" if first else None,
            autorange="reversed",
            showline=False,
            showticklabels=first,
            ticks="outside" if first else "",
            row=line + 1,
            col=2 * i + 1,
        )
        beside = {"row": line + 1, "col": 2 * i + 2}
        figure.update_yaxes(showticklabels=False, autorange="reversed", ticks="", showline=False, **beside)
        figure.update_xaxes(showline=False, ticks="", **beside)
    _hide_spare(figure, 2 * len(names), 2 * across, lines)
    stops = _DIVERGING_DARK if dark else theme.DIVERGING
    figure.update_layout(coloraxis=_scale(stops, -reach, reach, "weight", "right") | {"cmid": 0})
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    told = (
        f"WᵀW and bias b of the lowest-loss toy model{_best(table)}; 1 on the diagonal: learned, off it: interference"
    )
    return finish(
        figure,
        told,
        dark=dark,
        width=width,
        alt=matrices_caption(table),
        height=(340, 1.4 + 1.2 * lines),
        panels=True,
    )


def matrices_caption(table: DataFrame) -> str:
    """How many features each panel learned and how far W^T W is from the identity on them."""
    told = []
    for name in panels(table):
        rows = part(table, name)
        square = rows[rows["matrix"] == "W^T W"].pivot_table(index="row", columns="column", values="value").to_numpy()
        learned = np.flatnonzero(np.diag(square) > 0.25)
        off = np.abs(square - np.diag(np.diag(square))).max() if len(square) > 1 else 0.0
        told.append(f"{name}: {len(learned)} of {len(square)} features, largest interference {off:.2f}".lstrip(": "))
    return f"WᵀW and bias of the lowest-loss toy model{_best(table)}. " + "; ".join(told) + "."


def stacks(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Norm of each feature as a bar, coloured by the interference it suffers; one panel a density."""
    theme.need(("feature", "norm", "superposition"), table, "toy_features")
    names = panels(table)
    lines = _lines(names, width)
    across = -(-len(names) // lines)
    figure = multiples(names, rows=lines, shared_yaxes=True, spacing=0.015, vertical_spacing=0.2)
    for number, name in enumerate(names):
        rows, (line, i) = part(table, name).sort_values("feature"), divmod(number, across)
        figure.add_bar(
            x=rows["norm"],
            y=rows["feature"],
            orientation="h",
            customdata=rows["superposition"],
            hovertemplate="feature %{y}: norm %{x:.2f}, superposition %{customdata:.2f}<extra></extra>",
            marker={"color": rows["superposition"].clip(0, 1), "coloraxis": "coloraxis", "line": {"width": 0}},
            row=line + 1,
            col=i + 1,
        )
        last = number + across >= len(names)
        figure.update_xaxes(
            title="‖Wᵢ‖" if last else None,
            range=[0, max(1.25, float(table["norm"].max()) * 1.05)],
            tickvals=[0, 1],
            row=line + 1,
            col=i + 1,
        )
    _hide_spare(figure, len(names), across, lines)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_yaxes(title="feature, most important first", col=1)
    scale = _scale(_SUPERPOSITION[dark], 0, 1, "superposition<br>Σ(Ŵᵢ·Wⱼ)²<br> ", "top")
    scale["colorbar"] |= {"tickvals": [0, 0.5, 1], "ticktext": ["0 alone", "0.5", "≥ 1 shared"], "len": 0.7}
    figure.update_layout(bargap=0.15, coloraxis=scale)
    told = f"Features' norms in the lowest-loss toy model{_best(table)}; colour: interference from all other features"
    return finish(
        figure,
        told,
        dark=dark,
        width=width,
        alt=stacks_caption(table),
        height=(400, 1.4 + 1.4 * lines),
        panels=True,
    )


def stacks_caption(table: DataFrame) -> str:
    """Per panel: features represented, and how many of them share their dimension."""
    told = []
    for name in panels(table):
        rows = part(table, name)
        learned = rows[rows["norm"] > 0.5]
        shared = int((learned["superposition"] > 0.1).sum())
        told.append(f"{name}: {len(learned)} of {len(rows)} represented, {shared} in superposition".lstrip(": "))
    return (
        f"Norm of each feature's direction in the lowest-loss toy model{_best(table)} (represented: above 0.5; "
        f"in superposition: others' squared projections above 0.1). " + "; ".join(told) + "."
    )


def _scale(stops: Stops, low: float, high: float, words: str, side: str) -> dict[str, Any]:
    """The colour axis of all panels, and its bar with `words` at one side."""
    bar = {"title": {"text": words, "side": side}, "thickness": 10, "outlinewidth": 0}
    return {"colorscale": [list(stop) for stop in stops], "cmin": low, "cmax": high, "colorbar": bar}


def _best(table: DataFrame) -> str:
    return best_of(table, " of {}")


def _lines(names: Sequence[Hashable], width: Width) -> int:
    """Rows of small multiples: in a column at most four stand side by side, else their names meet."""
    return -(-len(names) // 4) if width == "column" else 1


def _hide_spare(figure: go.Figure, used: int, across: int, lines: int) -> None:
    """Take away the axes of places that are left over in the last row."""
    for place in range(used, across * lines):
        line, i = divmod(place, across)
        figure.update_xaxes(visible=False, row=line + 1, col=i + 1)
        figure.update_yaxes(visible=False, row=line + 1, col=i + 1)


FIGURES = (
    of_table(
        "toy_matrices",
        name="toy-matrices",
        title="What the model computes: WᵀW and the bias",
        draw=matrices,
        caption=matrices_caption,
        sources=("elhage2022toy",),
    ),
    of_table(
        "toy_features",
        name="toy-features",
        title="Which features are represented, and which share",
        draw=stacks,
        caption=stacks_caption,
        sources=("elhage2022toy",),
    ),
)
