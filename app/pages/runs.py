"""The runs of the folder: what each is, how two differ, what to keep."""

import json

import streamlit as st

from app import export, redo
from app.panels import choose_run, log_panel, plain, runs, status, table_panel, title, told
from data.runs import SHIPPED, Run, RunError, compare, open_run


def details(run: Run) -> None:
    """Settings, provenance and tables of one run."""
    left, right = st.columns(2)
    left.subheader("Settings", anchor=False)
    left.code(json.dumps(run.settings, indent=1), language="json", wrap_lines=True)
    right.subheader("Provenance", anchor=False)
    right.code(json.dumps(run.provenance, indent=1), language="json", wrap_lines=True)
    st.subheader("Tables", anchor=False)
    if not run.table_names():
        st.markdown("No table yet.")
    table_panel(run, run.table_names())


def figures_of(run: Run) -> None:
    """Every figure the run allows, as one archive."""
    try:
        entries = export.choose(run)
    except ValueError as error:
        st.caption(plain(error))
        return
    st.caption(plain(", ".join(entry.name for entry in entries)))
    st.code(f"sparsescope figures {run.name} --out figures --width column --format pdf", language="bash")


def differences(run: Run) -> None:
    """Settings, software and tables in which another run differs."""
    others = [other.name for other in runs() if other.name != run.name]
    if not others:
        st.caption("There is no other run to compare with; this does the run again and compares the tables:")
        st.code(f"sparsescope redo {run.name}", language="bash")
        return
    other = st.selectbox("Compare with", others, key="with", bind="query-params", index=None, placeholder="another run")
    if other:
        table = compare(run, open_run(other))
        table.columns = ["setting", run.name, other]
        if len(table):
            st.dataframe(table, hide_index=True, width="stretch")
        else:
            st.markdown("The settings are the same.")
        second = open_run(other)
        made = redo.versions(run, second)
        made.columns = ["made with", run.name, other]
        if len(made):
            st.dataframe(made, hide_index=True, width="stretch", key="versions")
        if st.toggle("Compare their tables", key="tables", bind="query-params"):
            with told():
                held = redo.tables(run, second)
                st.dataframe(held, hide_index=True, width="stretch", key="compared")
                equal = int(held["verdict"].isin([redo.EQUAL, redo.CLOSE]).sum())
                st.caption(f"{equal} of {len(held)} tables are the same; durations are not compared.")


@st.dialog("Delete this run?")
def confirm(run: Run) -> None:
    """Ask before a folder is removed."""
    size = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file()) / 2**20
    st.markdown(f"The folder of **{plain(run.name)}** with {size:,.1f} MiB will be removed. There is no way back.")
    if st.button("Delete it", type="primary"):
        try:
            run.delete()
        except RunError as error:
            st.error(plain(error))
        else:
            st.session_state.pop("run", None)
            st.rerun()


title("Runs", "Every measurement is a folder with its settings, provenance and tables.")
chosen = choose_run(hint="sparsescope demo")
if chosen is not None:
    try:
        now = status(chosen)
        log_panel(chosen)
        st.subheader("Compare", anchor=False)
        differences(chosen)
        st.subheader("Figures", anchor=False)
        figures_of(chosen)
        details(chosen)
        ships = chosen.path.parent == SHIPPED
        if ships:
            st.caption("This run came with the installation, so it is not deleted here.")
        if st.button("Delete this run", icon=":material/delete:", disabled=ships or now == "running"):
            confirm(chosen)
    except RunError as error:
        st.error(plain(error))
