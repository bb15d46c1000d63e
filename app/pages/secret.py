"""The mixture of experts inside a dense feed-forward block, real activations beside Gaussian ones."""

import streamlit as st
from pydantic import ValidationError

from app import jobs
from app.figures.catalogue import find
from app.figures.secret import CONDITIONS
from app.panels import (
    choose_run,
    entry_panel,
    frame,
    live,
    log_panel,
    measured_on,
    plain,
    runs,
    table_panel,
    title,
    told,
)
from app.secret import KIND, SecretRun
from app.telling import sentence
from data.runs import Run, create

HINT = "sparsescope probe secret --layer 15"
FIGURES = {
    "secret_ratios": "secret-ratios", "secret": "secret-fvu", "secret_curves": "secret-curves",
    "secret_losses": "secret-losses", "secret_cells": "secret-cells",
}  # fmt: skip
TABLES = (
    "secret", "secret_ratios", "secret_counted", "secret_gaps", "secret_curves", "secret_losses", "secret_cells",
    "secret_slopes", "secret_tables", "secret_inputs",
)  # fmt: skip
SIZES = "Numbers, with spaces between them; none for no curve."


def form() -> None:
    """Ask for students of a layer, and curves of them, and start that in its own process."""
    with st.expander("Look for experts in another layer"), st.form("secret"):
        left, middle, right = st.columns(3)
        layers = left.text_input("Layers", "15", help="Numbers, with spaces between them; none for the middle one.")
        experts = middle.number_input("Experts", 1, None, 64)
        active = right.number_input("Active neurons", 1, None, 64, help="In every student, the dense one too.")
        more_experts = left.text_input("Curve over experts", placeholder="16 256", help=SIZES)
        more_active = middle.text_input("Curve over active neurons", placeholder="32 96 128", help=SIZES)
        more_k = right.text_input("Curve over experts a token", placeholder="2 4", help=SIZES)
        tokens = left.number_input("Tokens", 1_000, None, 50_000, 1_000)
        steps = middle.number_input("Adam steps", 1, None, 1_500, help="Of the dense student, at each of three rates.")
        seeds = right.number_input("Seeds", 1, 10, 1)
        model = left.text_input("Model", "smollm2-135m")
        corpus = middle.text_input("Text", "sotu-modern")
        if st.form_submit_button("Measure", type="primary", icon=":material/play_arrow:"):
            sizes = {"layers": layers, "more_experts": more_experts, "more_active": more_active, "more_k": more_k}
            start(sizes, {
                "model": model, "corpus": corpus, "n_experts": int(experts), "n_active": int(active),
                "n_tokens": int(tokens), "steps": int(steps), "seeds": range(int(seeds)),
            })  # fmt: skip


def start(sizes: dict[str, str], asked: dict[str, object]) -> None:
    """Start the job; a refusal is a sentence."""
    try:
        for name, words in sizes.items():
            if not all(word.isdecimal() for word in words.split()):
                raise ValueError(f"'{words}' is no list of whole numbers; write them with spaces between, like 16 256")
            asked[name] = tuple(map(int, words.split()))
        asked["layers"] = asked["layers"] or None
        config = SecretRun.model_validate(asked)
        run = create(f"secret-{config.digest()}", config, kind=KIND, seed=config.seed)
        if run.progress["state"] != "done":
            jobs.start(run)
    except (ValidationError, ValueError, OSError) as error:
        st.error(plain(sentence(error)))
    else:
        st.session_state["secret asked"] = run.name
        st.rerun()


def steer(run: Run) -> None:
    """A button that stops a run while it is measured, and what it printed."""
    if jobs.state(run) == "running" and st.button("Cancel", key=f"cancel-{run.name}", icon=":material/stop:"):
        jobs.cancel(run)
        st.rerun(scope="app")
    log_panel(run)


def begun() -> Run | None:
    """A run asked for here, or one being measured, that has no table yet."""
    asked = st.session_state.get("secret asked")
    fresh = [run for run in runs() if run.kind == KIND and "secret" not in run.table_names()]
    return next((run for run in fresh if run.name == asked or jobs.state(run) == "running"), None)


def watch(run: Run) -> None:
    """How far a run is that has no table yet; the page goes on to it with its first student."""
    steer(run)
    if "secret" in run.table_names():
        st.query_params["run"] = run.name
        st.session_state.pop("run", None)
        st.rerun(scope="app")


def numbers(run: Run) -> None:
    """Gaps of the ratio, each with its interval."""
    rows = frame(run, "secret_gaps")
    rows = rows[rows["method"].isin(["closed_form", "paper"])]
    for column in ("n_experts", "n_active", "k"):
        rows = rows[rows[column] == rows[column].iloc[0]] if column in rows and len(rows) else rows
    places = st.columns(max(1, min(3, len(rows))))
    for number, row in enumerate(rows.to_dict("records")):
        places[number % len(places)].metric(
            f"Layer {row['layer']}: gap to {CONDITIONS.get(str(row['condition']), plain(str(row['condition'])))}",
            f"{row['gap']:+.2f}",
            f"{row['low']:+.2f} to {row['high']:+.2f}",
            delta_color="off",
            delta_arrow="off",
            help="FVU of the dense student over FVU of the mixture, on real activations less the same on "
            f"{plain(str(row['condition']))} ones. 95%: {row['n_documents']} documents resampled; seeds: "
            f"{row['n_seeds']}.",
        )


def counted(run: Run) -> None:
    """What becomes of the mixture when its router is counted, a line a layer and condition."""
    st.subheader("With the router counted", anchor=False)
    st.caption(
        "The mixture with its router beside the smallest dense block of no fewer active parameters; ratio of FVU, 95% "
        "over documents in pairs."
    )
    shown = [
        "layer", "condition", "seed", "n_experts", "n_active", "active_with_router", "active_dense", "ratio", "low",
        "high", "fvu", "fvu_dense", "verdict", "stored",
    ]  # fmt: skip
    st.dataframe(frame(run, "secret_counted")[shown].round(3), hide_index=True, width="stretch", key="counted")


def body(run: Run) -> None:
    """All panels whose tables are there."""
    steer(run)
    held = run.table_names()
    measured_on(run)
    model = "smollm2-135m"
    if "inputs" in held:
        with told():
            inputs = frame(run, "inputs").set_index("role")
            model = str(inputs.loc["model", "name"]) if "model" in inputs.index else model
    if "secret_gaps" in held:
        with told():
            numbers(run)
    for table, figure in FIGURES.items():
        if table in held:
            entry_panel(find(figure), run)
    if "secret_counted" in held:
        with told():
            counted(run)
    if any(name.startswith("student_") for name in run.tensor_names()):
        st.markdown("The students are kept; the model with them in place is a mixture of experts, read as any other:")
        st.code(
            f'open_model("{model}", secret_experts="{run.name}")\n'
            f"# sparsescope probe experts --model {model} --secret-experts {run.name}",
            language="python",
        )
    st.subheader("Tables", anchor=False)
    table_panel(run, TABLES)


title("Secret experts", "Does a dense block hide a mixture of experts, and is that so only on real activations?")
form()
if (new := begun()) is not None:
    with st.container(border=True):
        st.markdown(f"**{plain(new.name)}**")
        live(new, watch)
chosen = choose_run(("secret",), hint=HINT)
if chosen is not None:
    live(chosen, body)
