"""What the pages share: choosing a run, a figure with all its downloads, a job's state, empty states that help.

Everything that came from a file or from a person is shown as plain text: `plain` takes Markdown's signs their meaning.
"""

import contextlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st
from pandas import DataFrame

from app import export, jobs
from app.address import pick
from app.figures.catalogue import Entry, find
from data.runs import Run, RunError, known_runs
from data.tables import Tables

CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "toImage"]}
_WRITTEN = "run in the address"
FEW = 6
"""Figures of a page that are given its whole width; more stand in pairs."""
EVERY = 2.0
"""Seconds after which a page looks again at a run that is being measured."""


def dark() -> bool:
    """Whether the page stands on a dark ground."""
    return st.context.theme.type == "dark"


def plain(text: object) -> str:
    """Text as Markdown that shows it letter by letter: no markup, no links, no icons, no colours, no formulas."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(str(text).split()))


def title(words: str, what: str) -> None:
    """The page's heading and one sentence saying what it answers."""
    st.title(words, anchor=False)
    st.caption(what)


def runs() -> list[Run]:
    """All runs that can be read: the user's own, newest first, then those that ship."""
    return known_runs()


def choose_run(needs: Collection[str] = (), *, hint: str) -> Run | None:
    """The run the page shows: the one in the address (`?run=`), or the newest with these tables; None if there is none.

    Where there is none, `hint` is the command that would make one.  The address always names the run, so that a link
    shows the same tomorrow.
    """
    fitting = [run.name for run in runs() if set(needs) <= set(run.table_names())]
    asked = st.query_params.get("run")
    if asked is not None and asked not in fitting:
        known = asked in [run.name for run in runs()]
        st.warning(
            f"Run “{plain(asked)}” {'does not hold what this page shows (yet)' if known else 'is not in the folder'}."
        )
    if not fitting:
        empty("Nothing to show here yet.", hint)
        return None
    fresh = asked in fitting and asked != st.session_state.get(_WRITTEN)
    if fresh or st.session_state.get("run") not in fitting:
        st.session_state["run"] = asked if asked in fitting else fitting[0]
    name = st.selectbox("Run", fitting, key="run", persist_state="session")
    # not `bind="query-params"`, which leaves the default out of the address
    st.query_params["run"] = st.session_state[_WRITTEN] = name
    return next(run for run in runs() if run.name == name)


def empty(words: str, command: str) -> None:
    """An empty state: what is missing, and the command that makes it."""
    with st.container(border=True):
        st.markdown(words)
        st.code(command, language="bash")
        st.caption("in a terminal; the Jobs page starts the demo, emergence and all probes but those of experts")


def frame(run: Run, name: str) -> DataFrame:
    """A table of the run, read again only when its file has changed."""
    path = run.path / f"{name}.parquet"
    return _frame(str(path), path.stat().st_mtime_ns if path.exists() else 0)


@st.cache_data(max_entries=32, show_spinner=False)
def _frame(path: str, changed: int) -> DataFrame:
    return Run(Path(path).parent).table(Path(path).stem)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Show what goes wrong with a run's tables in the block as one sentence, so that the rest of the page stands."""
    try:
        yield
    except (ValueError, OSError) as error:
        st.error(plain(error))


def measured_on(run: Run, roles: Sequence[str] = ("model", "corpus")) -> None:
    """One line: the titles of what a run read, by their roles in its table `inputs`, where it noted them."""
    if "inputs" not in run.table_names():
        return
    with told():
        titles = frame(run, "inputs").set_index("role")["title"]
        st.markdown(" · ".join(plain(titles[role]) for role in roles if role in titles))


def tables(run: Run, names: Sequence[str]) -> Tables:
    """Several tables of the run."""
    return Tables({name: frame(run, name) for name in names})


def chart(figure: Any, *, key: str, caption: str = "") -> None:
    """A figure as wide as its place, readable by a screen reader, with its caption below."""
    alt = (figure.layout.meta or {}).get("alt")
    st.plotly_chart(figure, theme=None, width="stretch", config=CHART, key=key, alt=alt)
    if caption:
        st.caption(plain(caption))


def entry_panel(entry: Entry, run: Run) -> None:
    """A figure of the catalogue with heading, caption and downloads; an error of its table becomes its sentence."""
    st.subheader(entry.title, anchor=False)
    with told():
        held = tables(run, entry.needs)
        chart(entry.draw(held, dark=dark()), key=f"chart-{entry.name}", caption=entry.caption(held))
        downloads(entry, run)


def downloads(entry: Entry, run: Run) -> None:
    """A menu that gives the figure as it goes into a paper, and the rows it is drawn from."""
    with st.popover("Download", icon=":material/download:"):
        width = st.radio("Width", ["column", "text", "wide"], horizontal=True, key=f"width-{entry.name}")
        lacking = export.missing_drawer()
        formats = ["html"] if lacking else ["pdf", "svg", "png", "html"]
        kind = st.radio("Format", formats, horizontal=True, key=f"format-{entry.name}")
        if lacking:
            st.caption(lacking)
        st.download_button(
            "Figure, data, caption, provenance (zip)",
            lambda: export.bundle(entry, run, width=export.check_width(width), formats=[kind]),
            file_name=f"{entry.name}.zip",
            mime="application/zip",
            key=f"zip-{entry.name}",
        )
        st.download_button(
            "Data (CSV)",
            lambda: entry.plotted(tables(run, entry.needs)).to_csv(index=False),
            file_name=f"{entry.name}.csv",
            mime="text/csv",
            key=f"csv-{entry.name}",
        )


class Experiment(NamedTuple):
    """One of the experiments that a page shows, whose runs hold other tables."""

    words: str
    """What the page calls it."""
    needs: str
    """The table by which its runs are known."""
    figures: tuple[str, ...]
    """Figures of the catalogue, in order."""
    hint: str
    """The command that makes a run."""


def experiments(offered: Mapping[str, Experiment], names: Sequence[str]) -> None:
    """Choose an experiment and one of its runs (the run in the address says which), then all its figures and tables.

    `names` are the tables to show, of whichever experiment.
    """
    held = next((run.table_names() for run in runs() if run.name == st.query_params.get("run")), [])
    of_run = next((name for name, one in offered.items() if one.needs in held), next(iter(offered)))
    picked = pick(
        "Experiment",
        list(offered),
        "experiment",
        place=partial(st.segmented_control, required=True),
        default=of_run,
        words=lambda name: offered[name].words,
    )

    def body(run: Run) -> None:
        named = dict.fromkeys(name for one in offered.values() for name in one.figures)
        drawn = [entry for entry in map(find, named) if entry.drawable(run.table_names())]
        across = 1 if len(drawn) <= FEW else 2
        for first in range(0, len(drawn), across):
            for place, entry in zip(st.columns(across, gap="large"), drawn[first : first + across], strict=False):
                with place:
                    entry_panel(entry, run)
        st.subheader("Tables", anchor=False)
        table_panel(run, names)

    chosen = choose_run((offered[picked].needs,), hint=offered[picked].hint)
    if chosen is not None:
        live(chosen, body)


def table_panel(run: Run, names: Sequence[str]) -> None:
    """Tables of the run as they are, each to be downloaded whole."""
    held = [name for name in names if name in run.table_names()]
    for tab, name in zip(st.tabs(held) if held else [], held, strict=True):
        with tab, told():
            rows = frame(run, name)
            st.caption(f"{len(rows):,} rows" + (", of which 1,000 are shown" if len(rows) > 1_000 else ""))
            st.dataframe(rows.head(1_000), hide_index=True, width="stretch", key=f"table-{name}")
            left, right, _ = st.columns([1, 1, 4])
            path = run.path / f"{name}.parquet"
            left.download_button("CSV", partial(_csv, rows), f"{name}.csv", key=f"c-{name}")
            right.download_button("Parquet", path.read_bytes, f"{name}.parquet", key=f"p-{name}")


def _csv(rows: DataFrame) -> str:
    return rows.to_csv(index=False)


def status(run: Run, *, offer: bool = True) -> str:
    """Draw the run's state (a bar while it runs, a button to go on where it stopped) and return it."""
    try:
        now, words = jobs.state(run), jobs.describe(run)
    except RunError as error:
        st.error(plain(error))
        return "damaged"
    told = run.progress
    if now == "running":
        share = told["done"] / told["total"] if told.get("total") else 0.0
        st.progress(min(max(share, 0.0), 1.0), text=f"Measuring: {plain(words)}")
    elif now in ("failed", "died"):
        st.error(plain(words[0].upper() + words[1:]), icon=":material/error:")
    elif now == "cancelled":
        st.warning(plain(words[0].upper() + words[1:]), icon=":material/pause_circle:")
    if offer and now in jobs.STOPPED and run.kind in jobs.WORK:
        go_on(run)
    return now


def go_on(run: Run) -> None:
    """A button that starts the run's job, from where it stopped."""
    if st.button("Go on", key=f"again-{run.name}", icon=":material/play_arrow:"):
        try:
            jobs.start(run)
        except RunError as error:
            st.error(plain(error))
        else:
            st.rerun(scope="app")


def log_panel(run: Run) -> None:
    """What the job printed, one click away."""
    if text := jobs.log_tail(run):
        with st.expander("Log"):
            st.code(text, language=None)


def live(run: Run, body: Callable[[Run], None]) -> None:
    """Draw `body(run)`, and again every two seconds while the run is being measured; the page reloads when it ends."""
    running = jobs.is_running(run)

    def again() -> None:
        now = status(run)
        body(run)
        if running and now != "running":
            st.rerun(scope="app")

    st.fragment(again, run_every=EVERY if running else None)()
