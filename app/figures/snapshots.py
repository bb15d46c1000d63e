"""A mixture of experts over its training: when routing settles, and when it says something about words.

Tables, as `app.snapshots.measure` makes them, each with `step` and `tokens`: saturation, specialization, snapshots.
"""

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame, Series
from plotly.subplots import make_subplots

from app.figures import theme
from app.figures.catalogue import Entry, Frames
from app.figures.theme import Width

NEEDS = ("saturation", "specialization", "snapshots")


def select(tables: Frames) -> DataFrame:
    """One row a snapshot, means over layers: `step, saturation, chance, information, null_type, loss, kneser_ney`."""
    theme.need(("step", "layer", "value", "chance"), tables["saturation"], "saturation")
    settled = tables["saturation"].groupby("step")[["value", "chance", "n_tokens"]].mean()
    words = tables["specialization"].query("labels == 'word_class' and condition == 'real'")
    said = words.groupby("step")[["mi", "null_type"]].mean().rename(columns={"mi": "information"})
    index = tables["snapshots"].set_index("step")
    known = [name for name in ("loss", "unigram", "kneser_ney") if name in index]
    return settled.rename(columns={"value": "saturation"}).join(said).join(index[known]).reset_index()


def over_training(tables: Frames, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Saturation above, information about word classes in the middle, loss below, over the training step."""
    rows = select(tables)
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    drawn = (
        (1, "saturation", "experts already those of the end (%)", 0, 100),
        (1, "chance", "chance", 6, 100),
        (2, "information", "information expert-word class (nats)", 1, 1),
        (2, "null_type", "type null", 6, 1),
        (3, "loss", "held-out loss (nats)", 2, 1),
        (3, "kneser_ney", "Kneser-Ney 5-gram", 6, 1),
    )
    for row, column, name, index, scale in drawn:
        if column not in rows:
            continue
        look = theme.look(index, name, dark=dark)
        control = index == 6
        figure.add_scatter(
            x=rows["step"] + 1,
            y=rows[column] * scale,
            customdata=rows["step"],
            hovertemplate="step %{customdata}: %{y:.3g}",
            line={"color": look.colour, "dash": "dot" if control else "solid"},
            marker=look.marker,
            mode="lines" if control else "lines+markers",
            name=name,
            row=row,
            col=1,
        )
    figure.update_xaxes(type="log", dtick=1)
    figure.update_xaxes(title="Training step + 1", row=3, col=1)
    for row, words in enumerate(("Settled (%)", "Information", "Loss"), start=1):
        figure.update_yaxes(title=words, rangemode="tozero" if row < 3 else "normal", row=row, col=1)
    figure.update_layout(height=560)
    height = None if width == "screen" else theme.INCHES[width] * (1.1 if width == "column" else 0.8)
    return theme.style(figure, dark=dark, width=width, height=height, alt=caption(tables))


def caption(tables: Frames) -> str:
    """When half of the way is made, of settling and of meaning; first and last values."""
    rows = select(tables)
    first, last = rows.iloc[0], rows.iloc[-1]
    excess = rows["information"] - rows["null_type"]
    means = _first(rows["step"], excess >= excess.iloc[-1] / 2)
    way = (rows["saturation"] - rows["chance"]) / (1 - rows["chance"])
    settles = _first(rows["step"], way >= 0.5)
    return (
        f"Means over layers at {len(rows)} snapshots, {int(rows['n_tokens'].max()):,} held-out tokens each. Share of a "
        f"token's last experts that it has already: {first['saturation']:.2f} with random weights (chance "
        f"{first['chance']:.2f}), half of the way from chance made by step {settles}. Information between expert and "
        f"word class: {first['information']:.3f} nats (type null {first['null_type']:.3f}) to {last['information']:.3f}"
        f" ({last['null_type']:.3f}); half of the excess there by step {means}. One training, no interval over seeds."
    )


def _first(steps: Series, there: Series) -> int:
    return int(steps.to_numpy()[int(np.argmax(there))])


FIGURES = (
    Entry(
        name="snapshots-routing",
        title="What comes first: routing that settles, or experts that mean something?",
        needs=NEEDS,
        draw=over_training,
        caption=caption,
        plotted=select,
        sources=("muennighoff2024olmoe",),
    ),
)
