"""Does activation sparsity come by itself, when, and when not?"""

import streamlit as st

from app.figures import emergence as figures
from app.figures.catalogue import find
from app.panels import chart, choose_run, dark, entry_panel, frame, live, runs, table_panel, title
from data.runs import Run

VIEWS = {
    "training": (
        "A small language model, from random weights on",
        "emergence_losses",
        ("emergence-firing", "emergence-energy", "emergence-losses", "emergence-coherence"),
        "sparsescope emergence training --steps 400",
    ),
    "two-layer": (
        "A two-layer network in four settings",
        "emergence_summary",
        ("emergence-settings", "emergence-dependence"),
        "sparsescope emergence two-layer --seeds 3",
    ),
}
"""Experiment -> heading, table it needs, figures, command that makes it."""
TABLES = (
    "emergence_summary", "emergence", "emergence_dependence", "emergence_losses", "emergence_snapshots"
)  # fmt: skip


DENSE = ("emergence-firing", "emergence-energy", "emergence-coherence")
"""Figures of a dense model's neurons."""


def is_dense(run: Run) -> bool:
    """Whether the run's snapshots hold measures of neurons."""
    return "firing_frequency" in set(frame(run, "emergence_snapshots")["measure"])


def load(run: Run) -> None:
    """How evenly experts are used, where the model trained is a mixture."""
    rows = frame(run, "emergence_snapshots")
    if "load_entropy" in set(rows["measure"]):
        st.subheader("How evenly experts are used, over training", anchor=False)
        drawn = figures.over_training(rows, "load_entropy", dark=dark())
        chart(drawn, key="load", caption=figures.over_training_caption(rows, "load_entropy"))


def asked() -> str:
    """The experiment of the run in the address, so that a link to a run shows it."""
    name = st.query_params.get("run")
    held = next((run.table_names() for run in runs() if run.name == name), [])
    return next((view for view, (_, table, _, _) in VIEWS.items() if table in held), "training")


def body(run: Run) -> None:
    """All panels whose tables are there."""
    held = run.table_names()
    for _, _, names, _ in VIEWS.values():
        for entry in map(find, names):
            if entry.drawable(held) and (entry.name not in DENSE or is_dense(run)):
                entry_panel(entry, run)
    if "emergence_snapshots" in held:
        load(run)
    st.subheader("Tables", anchor=False)
    table_panel(run, TABLES)


title("Emergence", "Sparsity sets in during training: with which data and labels, and what does it cost to ask for it?")
view = st.segmented_control(
    "Experiment",
    list(VIEWS),
    default=asked(),
    required=True,
    key="experiment",
    bind="query-params",
    format_func=lambda name: VIEWS[name][0],
)
chosen = choose_run((VIEWS[view][1],), hint=VIEWS[view][3])
if chosen is not None:
    live(chosen, body)
