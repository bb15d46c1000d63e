"""Train toy models of superposition here and now, and look at their geometry."""

from collections.abc import Callable
from functools import partial
from io import BytesIO

import streamlit as st
from pandas import DataFrame

from app import toy_lab as lab
from app.address import pick
from app.figures import toys, toys_dynamics, toys_geometry, toys_phase, toys_polytopes
from app.panels import chart, dark, plain, title
from app.telling import duration, sentence
from data.runs import create
from data.tables import Tables
from toymodels import ToyConfig

VIEWS = {"model": "One model", "staircase": "Sweep over sparsity", "phase": "Phase diagram"}
KINDS = {
    "independent": "independent",
    "correlated": "correlated groups",
    "anticorrelated": "anticorrelated groups",
    "hierarchical": "hierarchical groups",
    "one_active": "exactly one active",
}
MODELS = {
    "relu": "ReLU output",
    "linear": "linear",
    "hidden_relu": "ReLU hidden (privileged basis)",
    "untied": "ReLU hidden, untied",
}
EVERY = 0.5  # seconds after which the page looks again at work under way


def use_preset() -> None:
    """Set every widget to the chosen preset."""
    chosen = lab.PRESETS[st.session_state["preset"]].lab
    toy = chosen.toy
    st.session_state.update(
        {
            "n": toy.n_features,
            "m": toy.d_hidden,
            "p": lab.written(toy.feature_probability),
            "importance": lab.written(toy.importance),
            "together": toy.features,
            "group": toy.group_size,
            "kind": toy.model,
            "absolute": toy.target == "absolute",
            "seeds": chosen.seeds,
        }
    )


def model_settings() -> lab.OneModel:
    """Widgets of one model; ValueError for what makes no model."""
    default = lab.PRESETS["pentagon"].lab
    names = list(lab.PRESETS)
    preset = pick("Preset", names, "preset", words=str.capitalize, on_change=use_preset)
    st.caption(plain(lab.PRESETS[preset].words))
    a, b, c, d = st.columns(4)
    n = a.slider("Features, n", 1, 200, default.toy.n_features, key="n", bind="query-params")
    m = b.slider("Dimensions, m", 1, 100, default.toy.d_hidden, key="m", bind="query-params")
    p = c.text_input(
        "Feature probability, 1 − S",
        "0.05",
        key="p",
        help="Chance that a feature is active: one number, or one a feature separated by commas.",
        bind="query-params",
    )
    importance = d.text_input(
        "Importance",
        "1",
        key="importance",
        help="r for Iᵢ = rⁱ (1: all equal), or one number a feature.",
        bind="query-params",
    )
    a, b, c, d = st.columns(4)
    together = pick("Features are", list(KINDS), "together", place=a.selectbox, words=KINDS.__getitem__)
    group = b.number_input(
        "Group size", 2, 100, 2, key="group", disabled=together in ("independent", "one_active"), bind="query-params"
    )
    kind = pick("Model", list(MODELS), "kind", place=c.selectbox, words=MODELS.__getitem__)
    absolute = d.toggle(
        "Compute |x|", key="absolute", help="Values in [−1, 1]; the output is compared with |x|.", bind="query-params"
    )
    a, b = st.columns(2)
    steps = a.select_slider(
        "Steps", [200, 500, 1000, 2000, 5000, 10_000, 20_000], 5000, key="steps", bind="query-params"
    )
    seeds = b.slider("Seeds, of which the best is shown", 1, 100, default.seeds, key="seeds", bind="query-params")
    toy = {
        "n_features": n,
        "d_hidden": m,
        "feature_probability": lab.numbers(p or "", "Feature probability"),
        "importance": lab.numbers(importance or "", "Importance"),
        "features": together,
        "group_size": 2 if together in ("independent", "one_active") else group,
        "model": kind,
        "signed": absolute,
        "target": "absolute" if absolute else "identity",
        "steps": steps,
    }
    return lab.OneModel(toy=ToyConfig.model_validate(toy), seeds=seeds)


def staircase_settings() -> lab.Staircase:
    """Widgets of the sweep over sparsity."""
    default, a, b, c = lab.Staircase(), *st.columns(3)
    n = a.slider("Features, n", 2, 200, default.n_features, key="sn", bind="query-params")
    m = b.slider("Dimensions, m", 1, 40, default.d_hidden, key="sm", bind="query-params")
    count = c.slider("Densities", 2, 40, default.densities, key="sd", bind="query-params")
    sparsest = a.select_slider("Sparsest, 1/(1 − S)", [2, 5, 10, 20, 50, 100], 20, key="sp", bind="query-params")
    steps = b.select_slider("Steps", [200, 500, 1000, 3000, 10_000], 3000, key="ss", bind="query-params")
    seeds = c.slider("Seeds", 1, 10, default.seeds, key="sk", bind="query-params")
    return lab.Staircase(n_features=n, d_hidden=m, densities=count, sparsest=sparsest, steps=steps, seeds=seeds)


def phase_settings() -> lab.Diagram:
    """Widgets of the phase diagram."""
    default, a, b, c = lab.Diagram(), *st.columns(3)
    n = pick(
        "Model",
        [2, 3],
        "pn",
        place=partial(a.segmented_control, required=True),
        words=lambda k: f"{k} features in {k - 1} dimension{'s' if k > 2 else ''}",
    )
    side = b.slider("Cells a side", 4, 48, default.resolution, key="pr", bind="query-params")
    seeds = c.slider("Starts a cell", 1, 20, default.seeds, key="pk", bind="query-params")
    return lab.Diagram(n_features=3 if n == 3 else 2, resolution=side, seeds=seeds)


def model_body(tables: Tables) -> None:
    """Everything about one model."""
    parts = tables["toy_parts"]
    seeds, best = tables["toy_seeds"], tables["toy_seeds"].query("best").iloc[0]
    a, b, c = st.columns(3)
    name = parts["geometry"].iloc[0] if len(parts) else "nothing represented"
    shape = name.split(" (cosines")[0]
    a.metric("Geometry", f"{len(parts)} pieces" if " + " in shape else shape, help=name)
    b.metric(
        "Loss, mean per feature",
        f"{best['loss']:.3g}",
        help=f"Best of {len(seeds)} seeds; worst {seeds['loss'].max():.3g}",
    )
    c.metric("Dimensions per feature, D*", f"{best['dimensions_per_feature']:.3f}")
    st.caption(plain(f"{name}; lowest loss of {len(seeds)} seeds"))
    left, right = st.columns(2, gap="large")
    with left:
        if "toy_film" in tables:
            film = tables["toy_film"]
            chart(
                toys_polytopes.polytope(film, dark=dark()),
                key="polytope",
                caption=toys_polytopes.polytope_caption(film),
            )
        else:
            st.dataframe(parts.drop(columns=["geometry", "best_of"]), hide_index=True, width="stretch", key="parts")
            st.caption(
                "More than three dimensions: the pieces in which the features lie, each orthogonal to the others."
            )
    with right:
        matrices = tables["toy_matrices"]
        chart(toys.matrices(matrices, dark=dark()), key="matrices", caption=toys.matrices_caption(matrices))
    left, right = st.columns(2, gap="large")
    with left:
        features = tables["toy_features"]
        chart(toys.stacks(features, dark=dark()), key="stacks", caption=toys.stacks_caption(features))
    with right:
        st.dataframe(features.drop(columns="best_of").round(4), hide_index=True, width="stretch", key="features")
        st.caption("Each feature's length, its fraction of a dimension Dᵢ, and how much the others weigh on it.")
    if "toy_neurons" in tables:
        neurons = tables["toy_neurons"]
        chart(
            toys_geometry.neurons(neurons, dark=dark()), key="neurons", caption=toys_geometry.neurons_caption(neurons)
        )
    moves, losses = tables["toy_dynamics"], tables["toy_losses"]
    chart(
        toys_dynamics.dynamics(moves, losses, dark=dark()), key="dynamics", caption=toys_dynamics.caption(moves, losses)
    )


def staircase_body(tables: Tables) -> None:
    """D* and D_i over sparsity."""
    room, each = tables["toy_room"], tables["toy_dimensions"]
    chart(toys_geometry.staircase(room, dark=dark()), key="staircase", caption=toys_geometry.staircase_caption(room))
    drawn = toys_geometry.dimensionalities(each, dark=dark())
    chart(drawn, key="dimensionalities", caption=toys_geometry.dimensionalities_caption(each))


def phase_body(tables: Tables) -> None:
    """The diagram with its agreement."""
    share = tables["toy_phase_agreement"].iloc[0]
    a, b, c = st.columns(3)
    a.metric("Cells that agree with theory", f"{share['agreeing']:.1%}")
    b.metric(
        "Off the boundary", f"{share['agreeing_off_boundary']:.1%}", help=f"{share['cells_off_boundary']:.0f} cells"
    )
    c.metric(
        "Single starts (control)", f"{share['single_fits_agreeing']:.0%}", help="Why the best of several is shown."
    )
    cells, boundary = tables["toy_phase"], tables["toy_phase_boundary"]
    chart(toys_phase.diagram(cells, boundary, dark=dark()), key="phase", caption=toys_phase.caption(cells))


VIEW: dict[str, tuple[Callable[[], lab.Experiment], Callable[[Tables], None]]] = {
    "model": (model_settings, model_body),
    "staircase": (staircase_settings, staircase_body),
    "phase": (phase_settings, phase_body),
}


def keep(asked: lab.Experiment, tables: Tables, view: str) -> None:
    """Store settings and tables as a run, so that every figure can be exported from it."""
    try:
        run = create(f"toy-{view}-{asked.digest()}", asked, kind=f"toy.{view}", seed=0)
        run.save_tables(tables)
        run.report("done", 1, 1)
    except (ValueError, OSError) as error:
        st.error(plain(sentence(error)))
    else:
        st.success(f"Kept as run {plain(run.name)}", icon=":material/folder:")


def parquet(frame: DataFrame) -> bytes:
    """The frame as a parquet file."""
    buffer = BytesIO()
    frame.to_parquet(buffer, compression="zstd", index=False)
    return buffer.getvalue()


def table_tabs(tables: Tables) -> None:
    """Every table, to look at and to take away."""
    st.subheader("Tables", anchor=False)
    for tab, (name, rows) in zip(st.tabs(list(tables)), tables.items(), strict=True):
        with tab:
            st.dataframe(rows.head(500), hide_index=True, width="stretch", key=f"table-{name}")
            left, right, _ = st.columns([1, 1, 4])
            left.download_button("CSV", rows.to_csv(index=False), f"{name}.csv", "text/csv", key=f"csv-{name}")
            right.download_button("Parquet", partial(parquet, rows), f"{name}.parquet", key=f"parquet-{name}")


def start(view: str, asked: lab.Experiment) -> None:
    """Set the work going beside the page."""
    st.session_state[f"work-{view}"] = (asked, lab.Background(partial(lab.measure, asked)))


def watch(view: str) -> None:
    """The bar and the cancel button while work is under way; a full rerun when it ends."""
    work: lab.Background = st.session_state[f"work-{view}"][1]
    if not work.running:
        st.rerun(scope="app")
    bar, button = st.columns([5, 1], vertical_alignment="center")
    bar.progress(min(max(work.done, 0.0), 1.0), text=plain(f"{work.done:.0%} {work.note}"))
    if button.button("Cancel", key=f"cancel-{view}", icon=":material/stop_circle:"):
        work.cancel()
        st.rerun(scope="app")


def outcome(view: str, asked: lab.Experiment | None) -> None:
    """What the last run of this view came to."""
    ran, work = st.session_state[f"work-{view}"]
    if work.cancelled:
        st.warning("Cancelled; nothing was kept. Run starts again from the beginning.", icon=":material/pause_circle:")
    elif work.error is not None:
        st.error(plain(sentence(work.error)))
    elif work.result is not None:
        if asked is not None and ran != asked:
            st.info("The settings above have changed since; what follows belongs to the settings before.")
        VIEW[view][1](work.result)
        table_tabs(work.result)
        st.caption(plain(f"Measured in {duration(work.seconds)}; settings {ran.digest()}"))
        if st.button("Keep as a run", key=f"keep-{view}", icon=":material/save:", help="Then export figures from it."):
            keep(ran, work.result, view)


title("Toy lab", "When does a model put more features into its space than it has dimensions, and in what shape?")
view = pick(
    "Experiment", list(VIEWS), "view", place=partial(st.segmented_control, required=True), words=VIEWS.__getitem__
)
asked: lab.Experiment | None = None
try:
    asked = VIEW[view][0]()
except ValueError as error:
    st.error(plain(sentence(error)))
held = st.session_state.get(f"work-{view}")
busy = held is not None and held[1].running
pressed = st.button(
    "Run", key=f"run-{view}", type="primary", icon=":material/play_arrow:", disabled=busy or asked is None
)
if pressed and asked is not None:
    start(view, asked)
    st.rerun()
if busy:
    st.fragment(partial(watch, view), run_every=EVERY)()
elif held is not None:
    outcome(view, asked)
else:
    st.caption("Nothing has run yet: choose settings and press Run.")
