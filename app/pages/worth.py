"""What is each expert worth: the loss without it, what could stand in for it, how many are needed?"""

import streamlit as st

from app.figures.catalogue import find
from app.panels import choose_run, entry_panel, frame, live, measured_on, table_panel, title, told
from data.runs import Run

HINT = "sparsescope probe worth --model tinymoe --tokens 8000"
TABLES = ("damage", "fits", "pairs", "agreement", "curves", "fewer", "vectors")
FIGURES = ("worth-losses", "worth-causes", "worth-stand-ins", "worth-fewer", "worth-alike")


def written(run: Run) -> None:
    """What an expert's mean output raises in the vocabulary."""
    words = frame(run, "vectors")
    layers = sorted(int(layer) for layer in words["layer"].unique())
    layer = st.selectbox("Layer", layers, key="layer", bind="query-params")
    rows = words[words["layer"] == layer].sort_values(["expert", "rank"])
    named = rows.assign(token=rows["token"].map(repr)).groupby("expert")["token"].agg("  ".join)
    st.dataframe(named.rename("raises most").reset_index(), hide_index=True, width="stretch")


def body(run: Run) -> None:
    """One figure after another, then the tokens and the tables."""
    held = set(run.table_names())
    measured_on(run)
    with told():
        for name in FIGURES:
            entry = find(name)
            if set(entry.needs) <= held:
                entry_panel(entry, run)
        if "vectors" in held:
            st.subheader("What does each expert write?", anchor=False)
            written(run)
    with st.expander("Tables"):
        table_panel(run, TABLES)


title("Worth of experts", "What is lost without an expert, and could something simpler stand in for it?")
chosen = choose_run(("damage", "fits"), hint=HINT)
if chosen is not None:
    live(chosen, body)
