"""Do the tokens of a text become one vector, and what prevents it?"""

from functools import partial

import streamlit as st

from app.address import pick
from app.figures import rank as figures
from app.figures import theme
from app.figures.catalogue import find
from app.panels import chart, choose_run, dark, downloads, frame, live, measured_on, table_panel, title, told
from data.runs import Run

HINT = "sparsescope probe rank --model smollm2-135m --windows 8"


def by_layer(run: Run) -> None:
    """The measure over the layers, for every variant and condition."""
    rows = frame(run, "rank_residuals")
    left, right = st.columns([3, 2])
    held = [m for m in figures.MEASURES if m in set(rows["measure"])]
    measure = pick("Measure", held, "measure", place=left.selectbox, words=theme.words)
    first = pick(
        "First position",
        ["in", "out"],
        "first",
        place=partial(right.segmented_control, required=True),
        help="The first position holds massive activations; without it the other tokens can be seen.",
    )
    end = figures.select(rows, measure, first=first)
    end = end[end["layer"] == end["layer"].max()]
    held = [v for v in figures.VARIANTS if v in set(end["variant"])]
    for column, variant in zip(st.columns(len(held)), held, strict=True):
        values = end[end["variant"] == variant].set_index("condition")["value"]
        controls = [
            f"{theme.condition(c).label} {values[c]:.2g}" for c in theme.conditions(values.index) if c != "real"
        ]
        column.metric(
            figures.VARIANTS[variant],
            f"{values['real']:.2g}" if "real" in values else "not yet",
            delta=", ".join(controls) or None,
            delta_color="off",
            delta_arrow="off",
            help="After the last layer with trained weights; below, the controls.",
        )
    drawn = figures.collapse(rows, measure, first=first, dark=dark())
    chart(drawn, key="collapse", caption=figures.collapse_caption(rows, measure, first=first))
    name = {"residual_composite": "rank-residual", "stable_rank": "rank-stable", "mean_cosine": "rank-cosine"}
    if measure in name and first == "in":
        downloads(find(name[measure]), run)


def by_head(run: Run) -> None:
    """Rank and null space of every head's attention pattern."""
    rows = frame(run, "rank_patterns")
    st.subheader("Attention patterns, head by head", anchor=False)
    held = [m for m in figures.PATTERNS if m in set(rows["measure"])]
    measure = pick("Of each pattern", held, "pattern", words=theme.words)
    chart(figures.heads(rows, measure, dark=dark()), key="heads", caption=figures.heads_caption(rows, measure))
    if measure == "effective_rank":
        downloads(find("rank-patterns"), run)


def body(run: Run) -> None:
    """All panels whose tables are there."""
    held = run.table_names()
    measured_on(run)
    with told():
        by_layer(run)
    if "rank_patterns" in held:
        with told():
            by_head(run)
    st.subheader("Tables", anchor=False)
    table_panel(run, ("rank_residuals", "rank_patterns"))


title(
    "Rank",
    "Attention alone makes the tokens of a text one vector. How fast, and which part of the block prevents it?",
)
chosen = choose_run(("rank_residuals",), hint=HINT)
if chosen is not None:
    live(chosen, body)
