"""Small mixtures of experts trained from scratch: snapshots of one, and series that differ in one thing."""

import streamlit as st

from app.figures.catalogue import find
from app.panels import choose_run, entry_panel, live, runs, table_panel, title
from data.runs import Run

VIEWS = {
    "snapshots": (
        "One mixture over its training",
        "saturation",
        ("snapshots-routing",),
        "sparsescope train models/little-moe --family olmoe --activation silu --steps 500\n"
        "sparsescope probe snapshots models/little-moe",
    ),
    "series": (
        "Mixtures that differ in one thing",
        "series_models",
        ("series-loss", "series-specialization", "series-punctuation", "series-verbs", "series-load", "series-busiest"),
        "sparsescope series granularity",
    ),
}
"""Experiment -> heading, table it needs, figures, command that makes it."""
TABLES = ("series_models", "series", "snapshots", "saturation", "specialization", "purest", "routing")


def asked() -> str:
    """The experiment of the run in the address, so that a link to a run shows it."""
    name = st.query_params.get("run")
    held = next((run.table_names() for run in runs() if run.name == name), [])
    return next((view for view, (_, table, _, _) in VIEWS.items() if table in held), "snapshots")


def body(run: Run) -> None:
    """All panels whose tables are there."""
    held = run.table_names()
    for _, _, names, _ in VIEWS.values():
        for entry in map(find, names):
            if entry.drawable(held):
                entry_panel(entry, run)
    st.subheader("Tables", anchor=False)
    table_panel(run, TABLES)


title(
    "Training",
    "When does routing settle, and what do finer experts, more experts or balanced loads change?",
)
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
