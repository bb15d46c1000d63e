"""The explorer's own figures: cells that can be clicked, one label over depth, one expert's profile, one sentence.

Tables, as `probes.routing.measure` and `probes.sentence` make them:

    cells            condition, layer, labels, expert, label, n, share, low, high, base, null, null_high, q, ...
    (a sentence)     place, token, word_class, layer, slot, expert, weight
"""

import re
from html import escape, unescape

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.intervals import bars
from app.figures.specialization import AGAINST, MAX_Q, Against, hover, words
from app.figures.theme import Width

_REACH = 3  # log2 of the largest lift told apart
_UNSEEN = {"marker": {"opacity": 0.01}}


def clickable(figure: go.Figure, *, dark: bool = False) -> go.Figure:
    """Lay an unseen point over every cell of the figure's last heat map, because a heat map cannot be clicked.

    A point's `customdata` is (x, y, hover words) of its cell, without what the axis adds in brackets.
    """
    cells = figure.data[-1]
    down, across = np.indices((len(cells.y), len(cells.x)))
    x, y = np.array(cells.x, dtype=object)[across.ravel()], np.array(cells.y, dtype=object)[down.ravel()]
    said = np.array(cells.customdata, dtype=object).reshape(len(cells.y), len(cells.x)).ravel()
    figure.add_scatter(
        x=x,
        y=y,
        customdata=np.column_stack([[_name(v) for v in x], [_name(v) for v in y], said]),
        hovertemplate="%{customdata[2]}<extra></extra>",
        marker={"color": theme.QUIET[dark], "opacity": 0.01, "size": 14, "symbol": "square"},
        mode="markers",
        name="cells",
        selected=_UNSEEN,
        showlegend=False,
        unselected=_UNSEEN,
    )
    # points would push the ends of the axes out by half a cell
    figure.update_xaxes(range=[-0.5, len(cells.x) - 0.5], autorange=False)
    figure.update_yaxes(range=[len(cells.y) - 0.5, -0.5], autorange=False)
    figure.update_layout(clickmode="event+select")
    return figure


def mark(figure: go.Figure, x: object, y: object, *, dark: bool = False) -> go.Figure:
    """Draw a frame round the cell with these coordinates; call it after `clickable`."""
    cells = figure.data[-1]
    found = [(a, b) for a, b in zip(cells.x, cells.y, strict=True) if (_name(a), _name(b)) == (str(x), str(y))]
    if not found:
        return figure
    ring = {
        "color": "rgba(0,0,0,0)",
        "size": 16,
        "symbol": "square-open",
        "line": {"color": theme.INK[dark], "width": 2},
    }
    figure.add_scatter(
        x=[found[0][0]], y=[found[0][1]], hoverinfo="skip", marker=ring, mode="markers", name="chosen", showlegend=False
    )
    return figure


def _name(value: object) -> str:
    """The name alone as the table has it, where an axis says more: `11` of `11 (8.3%)`."""
    return re.sub(r"^(\d+) \(.*\)$", r"\1", unescape(str(value)))


def over_depth(
    cells: DataFrame,
    label: str,
    labels: str = "word_class",
    condition: str = "real",
    against: Against = "base",
    *,
    dark: bool = False,
    width: Width = "screen",
) -> go.Figure:
    """All experts of all layers for one label: its share as a multiple of the null; what chance could give is blank."""
    rows = cells[(cells["labels"] == labels) & (cells["condition"] == condition) & (cells["label"] == label)]
    if not len(rows):
        raise ValueError(f"no cells of '{label}' by '{labels}' under '{condition}'")
    layers, experts = np.sort(rows["layer"].unique()), np.sort(rows["expert"].unique())
    at = np.searchsorted(layers, rows["layer"]), np.searchsorted(experts, rows["expert"])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log2((rows["share"] / rows[against]).to_numpy())
    grid, said = np.full((len(layers), len(experts)), np.nan), np.full((len(layers), len(experts)), "", dtype=object)
    grid[at] = np.where(rows["q"] <= MAX_Q, np.clip(ratio, -_REACH, _REACH), np.nan)
    said[at] = [hover(row) for row in rows.to_dict("records")]
    figure = go.Figure(
        go.Heatmap(
            z=grid,
            x=[str(e) for e in experts],
            y=[str(i) for i in layers],
            customdata=said,
            colorbar={
                "title": {"text": f"times the {AGAINST[against]}", "side": "right"},
                "tickvals": list(range(-_REACH, _REACH + 1)),
                "ticktext": ["⅛", "¼", "½", "1", "2", "4", "8"],
            },
            colorscale=[list(stop) for stop in theme.DIVERGING],
            hovertemplate="%{customdata}<extra></extra>",
            xgap=1,
            ygap=1,
            zmax=_REACH,
            zmid=0,
            zmin=-_REACH,
        )
    )
    figure.update_xaxes(title="Expert", type="category", showgrid=False)
    figure.update_yaxes(title="Layer", type="category", autorange="reversed", showgrid=False)
    figure.update_layout(height=max(260, 120 + 34 * len(layers)))
    sure = int((rows["q"] <= MAX_Q).sum())
    said_of = (
        f"{words(labels)} {label} at every expert of every layer, over its {AGAINST[against]}; {sure} of {len(rows)} "
    )
    alt = said_of[0].upper() + said_of[1:] + f"cells stand at a false discovery rate of {MAX_Q:.0%}, others are blank."
    return theme.style(figure, dark=dark, width=width, alt=alt)


def profile(cells: DataFrame, expert: int, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """One expert's share of each label (cells of one layer) with its 95% interval, the text's share, the type null."""
    rows = cells[cells["expert"] == expert].sort_values("base")
    look, figure = theme.look(0, dark=dark), go.Figure()
    names = [escape(str(label)) for label in rows["label"]]
    error = bars(rows, "share", 100) | {"width": 0}
    figure.add_bar(
        x=rows["share"] * 100, y=names, error_x=error, marker={"color": look.colour}, orientation="h", name="expert"
    )
    for index, (column, name) in enumerate(
        {"base": "share of the text", "null": "type null, mean", "null_high": "type null, 97.5%"}.items(), 1
    ):
        other = theme.look(index, dark=dark)
        symbol = ("line-ns-open", "diamond-open", "triangle-left-open")[index - 1]
        marker = {"color": other.colour, "size": 10, "symbol": symbol, "line": {"width": 2}}
        figure.add_scatter(x=rows[column] * 100, y=names, marker=marker, mode="markers", name=name)
    figure.update_xaxes(title="Share of the expert's slots (%)", rangemode="tozero")
    figure.update_layout(height=max(280, 110 + 22 * len(rows)))
    alt = (
        f"Profile of expert {expert}: shares of labels with 95% Wilson intervals beside the text's and the type null's."
    )
    return theme.style(figure, dark=dark, width=width, alt=alt)


def sentence(
    routed: DataFrame, kept: DataFrame | None = None, *, dark: bool = False, width: Width = "screen"
) -> go.Figure:
    """Tokens across, layers down; each cell names the heaviest expert, coloured by its weight, or, with the table of
    `probes.sentence.changes`, by the share of experts that an edit left in place."""
    first = routed[routed["slot"] == 0]
    layers, n = sorted(first["layer"].unique()), int(first["place"].max()) + 1
    tokens = first.drop_duplicates("place").sort_values("place")["token"].map(_shown).tolist()
    place = {layer: i for i, layer in enumerate(layers)}
    grid, text = np.full((len(layers), n), np.nan), np.full((len(layers), n), "", dtype=object)
    hover = text.copy()
    at = first["layer"].map(place).to_numpy(), first["place"].to_numpy()
    grid[at], text[at] = first["weight"], first["expert"].map(lambda e: "dropped" if e < 0 else str(e))
    for part in (
        routed.sort_values("slot").groupby(["layer", "place"], sort=False).agg(list).reset_index().to_dict("records")
    ):
        used = ", ".join(f"{e} ({w:.2f})" for e, w in zip(part["expert"], part["weight"], strict=True) if e >= 0)
        where = f"{tokens[part['place']]} ({escape(part['word_class'][0])}), layer {part['layer']}"
        hover[place[part["layer"]], part["place"]] = f"{where}<br>{used}"
    title, top = "weight of the<br>first expert", float(np.nanmax(grid))
    if kept is not None:
        grid = np.full(grid.shape, np.nan)
        grid[kept["layer"].map(place).to_numpy(), kept["place"].to_numpy()] = kept["kept"]
        title, top = "experts kept", 1.0
        for row in kept.to_dict("records"):
            moved = f"gained {row['gained'] or 'none'}, lost {row['lost'] or 'none'}"
            hover[place[row["layer"]], row["place"]] += "<br>" + ("new token" if row["was"] < 0 else moved)
    figure = go.Figure(
        go.Heatmap(
            z=grid,
            customdata=hover,
            text=text,
            texttemplate="%{text}",
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=True,
            colorbar={"title": title},
            colorscale=theme.SEQUENTIAL,
            xgap=1,
            ygap=1,
            zmax=top,
            zmin=0,
        )
    )
    figure.update_xaxes(tickvals=list(range(n)), ticktext=tokens, showgrid=False, tickangle=-45)
    figure.update_yaxes(tickvals=list(range(len(layers))), ticktext=layers, title="Layer", autorange="reversed")
    figure.update_layout(height=170 + 34 * len(layers))
    what = (
        "experts that the edit left in place" if kept is not None else "the heaviest expert of each token in each layer"
    )
    return theme.style(figure, dark=dark, width=width, alt=f"Routes of one sentence: {what}; {n} tokens.")


def _shown(token: object) -> str:
    text = str(token).replace("\n", "⏎").replace("\t", "⇥")
    return escape(text.replace(" ", "␣") if text.strip() == "" else text.strip())
