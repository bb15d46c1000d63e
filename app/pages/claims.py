"""The ledger of claims: what the literature says, the verdict here, the numbers and their control."""

from typing import Any

import streamlit as st
from pandas import DataFrame

from app.claims import NOT_YET, VERDICTS, Claim, find
from app.claims.ledger import counts, ledger, markdown
from app.figures.catalogue import find as find_figure
from app.panels import empty, entry_panel, plain, runs, title
from data.runs import Run, open_run, root

ICONS: dict[str, str] = dict(zip(VERDICTS, ("check_circle", "contrast", "cancel", "pending"), strict=True))
COLOURS: dict[str, Any] = dict(zip(VERDICTS, ("green", "orange", "red", "gray"), strict=True))
ALL = "all runs, the newest that decides"


@st.cache_data(max_entries=8, show_spinner="Reading the runs")
def _judged(folder: str, names: tuple[str, ...], changed: tuple[int, ...]) -> DataFrame:
    return ledger([open_run(name) for name in names])


def judged(among: list[Run]) -> DataFrame:
    """The ledger, computed again only when a table of a run has changed."""
    changed = tuple(max((p.stat().st_mtime_ns for p in run.path.glob("*.parquet")), default=0) for run in among)
    return _judged(str(root().resolve()), tuple(run.name for run in among), changed)


def card(row: dict[str, str]) -> None:
    """One claim: statement, verdict, numbers, control, sample size, where to see it."""
    claim, known = find(row["claim"]), row["verdict"]
    with st.container(border=True):
        left, right = st.columns([5, 1], vertical_alignment="center")
        left.subheader(plain(row["statement"]), anchor=row["claim"])
        right.badge(known, icon=f":material/{ICONS[known]}:", color=COLOURS[known])
        st.caption(plain(row["said_by"]))
        if known == NOT_YET:
            st.markdown(plain(row["measured"]))
            st.code(row["experiment"], language="bash")
        else:
            st.markdown(f"**Measured**: {plain(row['measured'])}")
            st.markdown(f"**Control**: {plain(row['control'])}")
            st.caption(f"n: {plain(row['n'])}. Run {plain(row['run'])}.")
        with st.expander("What the verdict means, and where to look"):
            st.markdown(plain(row["threshold"]))
            st.code(row["experiment"], language="bash")
            links(claim, row["run"])


def links(claim: Claim, run: str) -> None:
    """The page and the figure that show the claim's tables."""
    if run:
        st.markdown(f"[Open its page](/{claim.page}?run={run})")
        if claim.figure and st.toggle("Show the figure", key=f"figure-{claim.name}"):
            entry_panel(find_figure(claim.figure), open_run(run))


def chosen(table: DataFrame) -> DataFrame:
    """The claims that the filters in the address keep."""
    left, right = st.columns([3, 2])
    wanted = left.pills(
        "Verdict", VERDICTS, selection_mode="multi", key="verdict", bind="query-params", label_visibility="collapsed"
    )
    words = right.text_input(
        "Words", key="words", bind="query-params", placeholder="words of a claim", label_visibility="collapsed"
    )
    if wanted:
        table = table[table["verdict"].isin(wanted)]
    text = table[["statement", "said_by", "measured", "claim"]].agg(" ".join, axis=1).str.casefold()
    return table[[all(word in line for word in words.casefold().split()) for line in text]] if words else table


title(
    "Claims",
    "What the literature says, and what the tables of this folder's runs say of it. A verdict is computed from tables "
    "alone: delete the run, and the claim is not yet measured.",
)
held = runs()
names = [run.name for run in held]
if not held:
    empty("Nothing has been measured yet, so nothing is decided.", "sparsescope demo")
asked = st.query_params.get("run")
if held:
    options = [ALL, *names]
    picked = st.selectbox("Runs", options, index=options.index(asked) if asked in names else 0, key="among")
    if picked == ALL:
        st.query_params.pop("run", None)
    else:
        st.query_params["run"] = picked
        held = [run for run in held if run.name == picked]
ledger_table = judged(held)
for column, (verdict, number) in zip(st.columns(len(VERDICTS)), counts(ledger_table).items(), strict=True):
    column.metric(verdict, number)
shown = chosen(ledger_table)
for record in shown.to_dict("records"):
    card({str(k): str(v) for k, v in record.items()})
if shown.empty:
    st.markdown("No claim fits the filter.")
one, two, _ = st.columns([1, 1, 4])
one.download_button("CSV", lambda: shown.to_csv(index=False), "claims.csv", "text/csv", key="csv")
two.download_button("Markdown", lambda: markdown(shown), "claims.md", "text/markdown", key="markdown")
