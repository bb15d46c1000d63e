"""How far apart the directions of a dictionary are, what that guarantees, and what recovery does in fact."""

from functools import partial
from typing import Any

import streamlit as st
from pandas import DataFrame
from pydantic import ValidationError

from app import jobs
from app.address import pick
from app.coherence import CoherenceConfig
from app.figures import coherence as figures
from app.figures.coherence_routers import FIGURES as ROUTERS
from app.panels import chart, choose_run, dark, entry_panel, frame, live, plain, table_panel, title, told
from app.telling import sentence
from app.uploads import keep
from data.runs import Run, create

HINT = "sparsescope coherence measure smollm2-135m#layer-15-down"
TABLES = ("coherence", "recovery_bars", "recovery", "coherence_neighbours", "coherence_clusters", "coherence_nearest")


def form() -> None:
    """Choose another dictionary and measure it in its own process."""
    with st.expander("Measure another dictionary"), st.form("coherence"):
        text = st.text_input(
            "Dictionary",
            "smollm2-135m#layer-15-down",
            help="MODEL#PART (`sparsescope coherence parts` lists them), a file FILE[#KEY] or frame:NAME[:SIZES].",
        )
        upload = st.file_uploader("or a file", ["npy", "npz", "safetensors", "csv"], help="Never pickle.")
        left, middle, right = st.columns(3)
        methods = left.multiselect("Methods", ["thresholding", "omp", "lasso"], ["thresholding", "omp"])
        trials = middle.number_input("Trials for each k", 20, 10_000, 100)
        transpose = right.checkbox("The file keeps features as rows")
        key = right.text_input("Array in the file", help="Where a .npz or .safetensors file holds several.")
        spread = left.number_input("Dynamic range", 1.0, None, 1.0, help="Greatest over least active magnitude.")
        noise = middle.number_input("Noise", 0.0, None, 0.0, 0.1, help="Its length; the least magnitude is 1.")
        together = left.file_uploader(
            "Supports seen in use",
            ["npy", "npz", "csv"],
            help="One row a sample: codes over the features (an SAE's latents) or indices of active features. "
            "Without it, active features are drawn uniformly.",
        )
        support = middle.text_input("One support", placeholder="3 17 40", help="For its exact recovery condition.")
        if st.form_submit_button("Measure", type="primary", icon=":material/play_arrow:"):
            settings = {"methods": tuple(methods), "trials": int(trials), "transpose": transpose}
            settings |= {"dynamic_range": spread, "noise": noise, "support": tuple(support.replace(",", " ").split())}
            start(text, key, upload, together, settings)


def start(text: str, key: str, upload: Any, together: Any, settings: dict[str, object]) -> None:
    """Start the job; a refusal is a sentence."""
    try:
        if upload is not None:
            text = str(keep(upload.name, upload.getvalue())) + (f"#{key}" if key else "")
        if together is not None:
            settings |= {"supports": str(keep(together.name, together.getvalue()))}
        config = CoherenceConfig.model_validate({"dictionaries": (text,), **settings})
        run = create(f"coherence-{config.digest()}", config, kind="probe.coherence", seed=config.seed)
        if run.progress["state"] != "done":
            jobs.start(run)
    except (ValidationError, ValueError, OSError) as error:
        st.error(plain(sentence(error)))
    else:
        st.query_params["run"] = run.name
        st.session_state.pop("run", None)
        st.rerun()


def numbers(rows: DataFrame) -> None:
    """The dictionary's mu and k beside those of its controls."""
    by = rows.set_index("condition").to_dict("index")
    real = by["real"]
    quiet: dict[str, Any] = {"delta_color": "off", "delta_arrow": "off"}
    columns = st.columns(5)
    columns[0].metric("Coherence mu", f"{real['mu']:.3f}", _of("random", "random", by), **quiet)
    columns[1].metric("Welch bound", f"{real['welch']:.3f}", help="Least mu of any dictionary of this size.")
    columns[2].metric("Guaranteed k", real["k_guaranteed"], f"Babel {real['k_babel']}", **quiet)
    columns[3].metric("Median nearest", f"{real['median_nearest']:.3f}", _of("centred mu", "centred", by), **quiet)
    columns[4].metric("Near-duplicates", f"{real['near_duplicates']:,}", help="Features with a |cosine| >= .99.")
    st.markdown(
        f"{real['n_features']:,} features in {real['d_model']:,} dimensions. Nearest pair: "
        f"**{plain(real['first'])}** and **{plain(real['second'])}**. No bound through mu certifies any dictionary of "
        f"many more features than dimensions beyond k = {real['bottleneck']:.1f}."
    )
    if real.get("erc", float("nan")) == real.get("erc"):
        said = "every code on it is recovered" if real["erc"] < 1 else "it promises nothing"
        beside = f" (random dictionary {by['random']['erc']:.3f})" if "random" in by else ""
        st.markdown(f"Exact recovery condition of the support asked for: **{real['erc']:.3f}**{beside}; {said}.")


def _of(words: str, condition: str, by: dict[Any, dict[Any, Any]]) -> str | None:
    return f"{words} {by[condition]['mu']:.3f}" if condition in by else None


def neighbours(rows: DataFrame, clusters: DataFrame) -> None:
    """Nearest others of one feature, and the groups of near-duplicates."""
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Nearest others", anchor=False)
        st.caption("The closest pairs; look for a feature by its number or name.")
        asked = st.text_input("Feature", key="feature", placeholder="neuron 873", label_visibility="collapsed")
        shown = rows[rows["label"].str.contains(asked, case=False, regex=False)] if asked else rows[rows["rank"] == 1]
        shown = shown.reindex(shown["cosine"].abs().sort_values(ascending=False).index) if not asked else shown
        st.dataframe(
            shown[["label", "rank", "neighbour_label", "cosine"]].head(500),
            hide_index=True,
            width="stretch",
            height=320,
        )
    with right:
        st.subheader("Near-duplicates", anchor=False)
        if clusters.empty:
            st.caption("No two features have a |cosine| of .99 or more.")
        else:
            count = clusters["cluster"].nunique()
            st.caption(f"{len(clusters):,} features in {count:,} groups linked by |cosine| >= .99.")
            st.dataframe(
                clusters[["cluster", "size", "label", "cosine"]].head(500),
                hide_index=True,
                width="stretch",
                height=320,
            )


def body(run: Run) -> None:
    """All panels of one dictionary of the run."""
    names = list(dict.fromkeys(frame(run, "coherence")["dictionary"]))
    name = pick("Dictionary", names, "dictionary") if len(names) > 1 else names[0]
    st.markdown(f"### {plain(name)}")

    def rows(table: str) -> DataFrame:
        return figures.one(frame(run, table), name)

    with told():
        numbers(rows("coherence"))
    left, right = st.columns(2, gap="large")
    panels = (
        (left, "How many active features", "recovery_bars", figures.bars, figures.bars_caption),
        (right, "Recovery", "recovery", figures.curve, figures.curve_caption),
        (left, "Nearest neighbours", "coherence_nearest", figures.nearest, figures.nearest_caption),
        (right, "Babel function", "coherence_babel", figures.babel, figures.babel_caption),
    )
    for place, words, table, draw, caption in panels:
        with place, told():
            st.subheader(words, anchor=False)
            chart(draw(rows(table), dark=dark()), key=f"chart-{table}", caption=caption(rows(table)))
    with told():
        clusters = frame(run, "coherence_clusters")
        neighbours(rows("coherence_neighbours"), clusters[clusters["dictionary"] == name])
    st.subheader("Tables", anchor=False)
    table_panel(run, TABLES)


def routers(run: Run) -> None:
    """A model's routers read as dictionaries."""
    entry_panel(ROUTERS[0], run)
    with told():
        rows = frame(run, "router_recovery")
        st.caption(
            "Share of codes on expert rows whose experts top-k finds: uniform supports, and those routed (given)."
        )
        shown = ["layer", "router", "supports", "k", "rate", "low", "high", "trials"]
        st.dataframe(rows[shown], hide_index=True, width="stretch")
    table_panel(run, ("router_reading", "router_recovery", "router_overlap"))


title("Coherence", "How far apart are the directions, what does that guarantee, and what is recovered in fact?")
form()
what = pick(
    "Show",
    ["dictionaries", "routers"],
    "show",
    place=partial(st.segmented_control, required=True, label_visibility="collapsed"),
    words=str.capitalize,
)
if what == "routers":
    chosen = choose_run(("router_reading", "router_overlap"), hint="sparsescope coherence router FOLDER_OF_A_MOE")
    if chosen is not None:
        live(chosen, routers)
else:
    chosen = choose_run(("coherence",), hint=HINT)
    if chosen is not None:
        live(chosen, body)
