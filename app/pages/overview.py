"""What this is, what has been measured, what to do next."""

import streamlit as st
from pandas import DataFrame

from app import jobs
from app.figures.catalogue import catalogue
from app.panels import empty, entry_panel, live, plain, runs, title
from app.telling import duration
from data.runs import Run, RunError, create

# what a newcomer sees first, as soon as the tables are there
FIRST = ("specialization-cells", "toy-directions", "sparsity-firing", "sparsity-spectrum", "toy-staircase")
# question -> page that answers it, tables by which it knows its runs
QUESTIONS: dict[str, tuple[str, set[str]]] = {
    "Which experts take verbs, which punctuation, and is that more than the token's identity gives?": (
        "experts",
        {"cells", "load", "coactivation"},
    ),
    "How do five features fit into two dimensions? Trained while you watch": ("toy_lab", set()),
    "How few of its neurons does a language model use for a token?": ("sparsity", {"layers"}),
    "What comes first in training, routing that settles or experts that mean something?": (
        "training",
        {"saturation"},
    ),
    "How many active features can be told apart?": ("coherence", {"coherence"}),
    "What do the field's claims come to?": ("claims", set()),
}


def headline(run: Run) -> None:
    """The parts of the newest run and its first pictures, two in a row."""
    held = run.table_names()
    if "parts" in held:
        marks = {
            "done": "check_circle",
            "running": "hourglass_top",
            "failed": "error",
            "cancelled": "pause_circle",
            "stopped": "pause_circle",
        }
        lines = []
        going = jobs.state(run) == "running"
        for part in run.table("parts").itertuples():
            state = "stopped" if part.state == "running" and not going else str(part.state)
            spent = f", {part.seconds:.0f} s" if state == "done" else ""
            wrong = f": {plain(part.error)}" if state == "failed" else ""
            lines.append(
                f":material/{marks.get(state, 'schedule')}: {plain(part.title)} ({plain(state)}{spent}{wrong})"
            )
        parts = run.table("parts")
        if (parts["state"] == "done").all():
            with st.expander(f"{len(parts)} parts, {duration(float(parts['seconds'].sum()))} of work"):
                st.markdown("  \n".join(lines))
        else:
            st.markdown("  \n".join(lines))
    entries = catalogue()
    ready = [entries[name] for name in FIRST if name in entries and entries[name].drawable(held)]
    ready += [e for e in entries.values() if e.drawable(held) and e not in ready][: 2 if not ready else 0]
    for i in range(0, len(ready), 2):
        for column, entry in zip(st.columns(2, gap="large"), ready[i : i + 2], strict=False):
            with column:
                entry_panel(entry, run)


def questions(found: list[Run]) -> None:
    """Each question with a link to its page, on the first run that answers it."""
    lines = []
    for words, (page, needs) in QUESTIONS.items():
        run = next((run.name for run in found if needs <= set(run.table_names())), None)
        if run is not None:
            lines.append(f"- [{plain(words)}](/{page}{f'?run={run}' if needs else ''})")
    st.markdown("\n".join(lines))


def overview_of(run: Run) -> dict[str, object]:
    """One row of the list of runs."""
    try:
        settings = run.settings
        return {
            "run": run.name,
            "kind": run.kind,
            "state": jobs.state(run),
            "model": settings["model"] if isinstance(settings.get("model"), str) else "",
            "corpus": settings.get("corpus", ""),
            "tokens": settings.get("n_tokens"),
            "tables": len(run.table_names()),
            "made": run.provenance.get("made_at", ""),
        }
    except RunError as error:
        return {"run": run.name, "state": "damaged", "kind": str(error)}


title(
    "sparsescope",
    "How does a network hold more features than it has dimensions, how few of its units does it use at a time, and "
    "what do its parts specialise in? Every number stands beside its sample size, its uncertainty and its control.",
)
found = runs()
if not found:
    empty("Nothing has been measured in this folder yet. The demo takes a few minutes:", "sparsescope demo")
    if st.button("Run the demo here", type="primary", icon=":material/play_arrow:"):
        from app.demo import DemoConfig

        try:
            jobs.start(create("demo", DemoConfig(), kind="demo", seed=0))
        except ValueError as error:
            st.error(plain(error))
        else:
            st.rerun()
else:
    asked = st.query_params.get("run")
    shown = next((run for run in found if run.name == asked), found[0])
    questions(found)
    st.header(f"Run {plain(shown.name)}", anchor=False)
    live(shown, headline)
    st.header("All runs", anchor=False)
    st.dataframe(DataFrame([overview_of(run) for run in found]), hide_index=True, width="stretch")
    st.header("Your own", anchor=False)
    st.markdown(
        "- **Your model or text**: the Jobs page, or `sparsescope probe experts --model MODEL --corpus PATH`, "
        "`sparsescope probe sparsity --model MODEL --corpus PATH`.\n"
        "- **A figure in a paper**: *Download* below it, the Figures page, or `sparsescope figures RUN --out figures "
        "--width column --format pdf`."
    )
