"""Long work: what runs, what ended how, and starting more."""

from typing import Any

import streamlit as st
from pydantic import ValidationError

from app import jobs
from app.address import pick
from app.panels import EVERY, go_on, log_panel, plain, status, title
from app.startable import PROBES, Probe
from app.telling import duration, sentence
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


def probe_form(probe: Probe) -> None:
    """Settings of one measurement that a person is likely to change; the command line has all of them."""
    with st.form(probe.name):
        st.caption(probe.what)
        defaults = probe.config()
        given: dict[str, Any] = {
            "model": st.text_input("Model", defaults.model, help="A name, a GGUF file, a folder or a hub name."),
            "corpus": st.text_input(
                "Text", defaults.corpus, help="A name or a path; `sparsescope corpora` lists names."
            ),
        }
        left, right = st.columns(2)
        size = left.number_input(probe.unit, 1, 10_000_000, probe.size, step=max(1, probe.size // 4))
        seed = int(right.number_input("Seed", 0, 2**31 - 1, 0))
        if st.form_submit_button("Start", type="primary", icon=":material/play_arrow:"):
            try:
                config = probe.config.model_validate(given | probe.settings(int(size), seed))
            except ValidationError as error:
                st.error(plain(sentence(error)))
            else:
                start(f"{probe.name}-{config.digest()}", config, f"probe.{probe.name}", seed)


def probe_forms() -> None:
    """Choose a measurement of a language model and start it."""
    with st.container(border=True):
        st.markdown("**Measure a language model**")
        name = pick("What", list(PROBES), "probe", words=lambda n: PROBES[n].title)
        probe_form(PROBES[name])


def emergence_form() -> None:
    """Does sparsity come by itself: two networks in four settings, or a small language model over its training."""
    from app.experiments import LITTLE, EmergenceRun, TwoLayerRun

    with st.form("emergence"):
        st.markdown("**Where sparsity emerges**")
        kind = st.radio(
            "Experiment",
            ["emergence.two_layer", "emergence.training"],
            format_func={
                "emergence.two_layer": "a two-layer network in four settings",
                "emergence.training": "a small language model from scratch, with a top-k and without",
            }.__getitem__,
        )
        left, right = st.columns(2)
        seeds = int(left.number_input("Seeds", 1, 20, 3))
        steps = int(right.number_input("Steps (language model)", 1, 100_000, LITTLE.steps))
        if st.form_submit_button("Start", type="primary", icon=":material/play_arrow:"):
            config: Config = TwoLayerRun(seeds=seeds)
            if kind == "emergence.training":
                config = EmergenceRun(seeds=seeds, model=LITTLE.model_copy(update={"steps": steps}))
            start(f"emergence-{config.digest()}", config, kind, 0)


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
    demo_form()
    probe_forms()
    emergence_form()
