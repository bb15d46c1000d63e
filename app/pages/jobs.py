"""Long work: what runs, what ended how, and starting more."""

import streamlit as st
from pydantic import ValidationError

from app import jobs
from app.commands._run import duration, sentence
from app.measurements import SparsityConfig
from app.panels import EVERY, go_on, log_panel, plain, status, title
from data.config import Config
from data.runs import Run, RunError, create, root


def start(name: str, config: Config, kind: str, seed: int) -> None:
    """Make (or reopen) the run and start its process; a refusal is a sentence."""
    try:
        jobs.start(create(name, config, kind=kind, seed=seed))
    except ValueError as error:
        st.error(plain(sentence(error)))
    else:
        st.rerun()


def job_panel(run: Run) -> None:
    """One job: state, how long it took, cancel or start again, log."""
    with st.container(border=True):
        words, button = st.columns([3, 1], vertical_alignment="center")
        with words:
            try:
                took = run.progress.get("seconds")
                ended = f" · finished in {duration(took)}" if took is not None else ""
                st.markdown(f"**{plain(run.name)}** · {plain(run.kind)}{ended}")
            except RunError:
                st.markdown(f"**{plain(run.name)}**")
            now = status(run, offer=False)
        if now == "running":
            if button.button("Cancel", key=f"cancel-{run.name}", icon=":material/stop_circle:"):
                with st.spinner("Stopping"):
                    jobs.cancel(run)
                st.rerun()
        elif now in (*jobs.STOPPED, "new") and run.kind in jobs.WORK:
            with button:
                go_on(run)
        log_panel(run)


def job_list() -> None:
    """All jobs, newest first."""
    listed = jobs.jobs(root())
    if not listed:
        st.markdown("No job has been started yet.")
    for run in listed:
        job_panel(run)


def sparsity_form() -> None:
    """Settings of a sparsity measurement."""
    with st.form("sparsity"):
        st.markdown("**Sparsity of a language model**")
        model = st.text_input("Model", "smollm2-135m", help="A name, a GGUF file, a folder or a hub name.")
        corpus = st.text_input("Text", "sotu-modern", help="A name or a path; `sparsescope corpora` lists names.")
        left, right = st.columns(2)
        tokens = left.number_input("Tokens", 1_000, 10_000_000, 20_000, step=1_000)
        seed = right.number_input("Seed", 0, 2**31 - 1, 0)
        if st.form_submit_button("Start", type="primary", icon=":material/play_arrow:"):
            try:
                config = SparsityConfig(model=model, corpus=corpus, n_tokens=int(tokens), seed=int(seed))
            except ValidationError as error:
                st.error(plain(sentence(error)))
            else:
                start(f"sparsity-{config.digest()}", config, "probe.sparsity", config.seed)


def demo_form() -> None:
    """The demo, which needs no settings."""
    with st.container(border=True):
        st.markdown("**Demo**")
        st.caption("A toy model, then SmolLM2-135M on 20,000 tokens: a few minutes.")
        if st.button("Start the demo", icon=":material/play_arrow:"):
            from app.demo import DemoConfig

            start("demo", DemoConfig(), "demo", 0)


title("Jobs", "Long work runs in a process of its own: it outlives this page and this server, and it can be cancelled.")
left, right = st.columns([3, 2], gap="large")
with left:
    st.subheader("Jobs", anchor=False)
    st.fragment(job_list, run_every=EVERY)()
with right:
    st.subheader("Start", anchor=False)
    sparsity_form()
    demo_form()
