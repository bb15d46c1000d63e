"""Every figure that a run allows: pick one, see it as it will be printed, take it with all that goes with it."""

import streamlit as st

from app import export
from app.figures.catalogue import Entry
from app.figures.sources import BIBTEX
from app.figures.theme import INCHES
from app.panels import CHART, choose_run, dark, empty, plain, tables, title, told
from data.runs import Run

PRINTED = ("pdf", "svg", "png", "html")


def chosen(entries: list[Entry]) -> Entry:
    """The figure in the address, or the first."""
    names = {entry.name: entry for entry in entries}
    if st.session_state.get("figure") not in (None, *names):
        st.session_state.pop("figure")
    # no `format_func`: the address would hold its words instead of the figure's name
    name = st.selectbox("Figure", list(names), key="figure", bind="query-params")
    st.subheader(names[name].title, anchor=False)
    return names[name]


def preview(entry: Entry, run: Run, width: str) -> None:
    """The figure at its printed size (96 pixels an inch), with its caption."""
    held = tables(run, entry.needs)
    drawn = entry.draw(held, dark=dark(), width=export.check_width(width))
    alt = (drawn.layout.meta or {}).get("alt")
    with st.container(border=True, width=int(drawn.layout.width) + 34):
        st.plotly_chart(drawn, theme=None, width="content", config=CHART, key=f"preview-{entry.name}-{width}", alt=alt)
    st.caption(plain(entry.caption(held)))


def take(entries: list[Entry], run: Run, width: str, ground: bool) -> None:
    """Downloads: this figure, all figures, the lines of LaTeX."""
    lacking = export.missing_drawer()
    if lacking:
        st.caption(lacking)
    formats = st.multiselect(
        "Formats", ["html"] if lacking else list(PRINTED), default=["html"] if lacking else ["pdf"], key="formats"
    )
    if not formats:
        st.markdown("Choose at least one format.")
        return
    one, all_of_them = st.columns(2)
    entry, whole = entries[0], entries[1:]

    def packed(chosen: list[Entry]) -> bytes:
        return export.archive(chosen, run, width=export.check_width(width), formats=formats, dark=ground)

    one.download_button(
        "This figure (zip)", lambda: packed([entry]), f"{entry.name}.zip", "application/zip", key=f"one-{entry.name}"
    )
    all_of_them.download_button(
        f"All {len(whole)} figures of the run (zip)",
        lambda: packed(whole),
        f"{run.name}-figures.zip",
        "application/zip",
        key="all",
    )
    st.code(
        f"sparsescope figures {run.name} --only {entry.name} --out figures --width {width} "
        f"--format {','.join(formats)}",
        language="bash",
    )


def latex(entry: Entry, run: Run, width: str) -> None:
    """The lines of LaTeX that include the figure, and the works it cites."""
    with st.expander("LaTeX and BibTeX"):
        caption = entry.caption(tables(run, entry.needs))
        st.code(export.snippet(entry, caption, export.check_width(width)), language="latex", wrap_lines=True)
        if entry.sources:
            st.code("\n\n".join(BIBTEX[key] for key in entry.sources), language="bibtex")


title("Figures", "Each figure of a run at the size of print, with its data, caption, provenance and LaTeX lines.")
run = choose_run(hint="sparsescope demo")
if run is not None:
    try:
        possible = export.choose(run)
    except ValueError as error:
        possible = []
        st.markdown(plain(error))
        empty("A run with tables gives figures.", "sparsescope demo")
    if possible:
        picked = chosen(possible)
        left, right = st.columns(2)
        size = left.segmented_control(
            "Width", list(INCHES), default="column", required=True, key="width", bind="query-params"
        )
        left.caption(f"{INCHES[size]:g} inches")
        on_dark = right.toggle("Dark ground in the file", key="ground")
        with told():
            preview(picked, run, size)
            take([picked, *possible], run, size, on_dark)
            latex(picked, run, size)
