"""Does activation sparsity come by itself, when, and when not?"""

import streamlit as st

from app.figures.catalogue import find
from app.panels import choose_run, entry_panel, live, runs, table_panel, title
from data.runs import Run

VIEWS = {
    "training": (
        "A small language model, from random weights on",
        "emergence_losses",
        ("firing", "energy", "load", "saturation", "repeats", "losses", "coherence", "crowding"),
        "sparsescope emergence training --steps 400",
    ),
    "two-layer": (
        "A two-layer network in four settings",
        "emergence_summary",
        ("settings", "dependence"),
        "sparsescope emergence two-layer --seeds 3",
    ),
}
"""Experiment -> heading, table it needs, figures (`emergence-` left out), command that makes it."""
TABLES = (
    "emergence_summary",
    "emergence",
    "emergence_dependence",
    "emergence_losses",
    "emergence_snapshots",
    "emergence_routing",
)


def asked() -> str:
    """The experiment of the run in the address, so that a link to a run shows it."""
    name = st.query_params.get("run")
    held = next((run.table_names() for run in runs() if run.name == name), [])
    return next((view for view, (_, table, _, _) in VIEWS.items() if table in held), "training")


def body(run: Run) -> None:
    """All panels whose tables are there."""
    held = run.table_names()
    for _, _, names, _ in VIEWS.values():
        for entry in (find(f"emergence-{name}") for name in names):
            if entry.drawable(held):
                entry_panel(entry, run)
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
if view == "two-layer":
    st.caption(
        "Samples are fresh at every step unless the run was made with `--finite`: with 4,096 of them, read more than "
        "twice, random labels begin to be memorised, and ReLU-Gaussian inputs keep 27-28% of the units on."
    )
chosen = choose_run((VIEWS[view][1],), hint=VIEWS[view][3])
if chosen is not None:
    live(chosen, body)
