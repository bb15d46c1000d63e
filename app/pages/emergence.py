"""Does activation sparsity come by itself, when, and when not?"""

import streamlit as st

from app.panels import Experiment, experiments, title

TRAINING = ("firing", "energy", "load", "saturation", "repeats", "losses", "coherence", "crowding")
EXPERIMENTS = {
    "training": Experiment(
        "A small language model, from random weights on",
        "emergence_losses",
        tuple(f"emergence-{name}" for name in TRAINING),
        "sparsescope emergence training --steps 400",
    ),
    "two-layer": Experiment(
        "A two-layer network in four settings",
        "emergence_summary",
        ("emergence-settings", "emergence-dependence"),
        "sparsescope emergence two-layer --seeds 3",
    ),
}
TABLES = (
    "emergence_summary",
    "emergence",
    "emergence_dependence",
    "emergence_losses",
    "emergence_snapshots",
    "emergence_routing",
)

title("Emergence", "Sparsity sets in during training: with which data and labels, and what does it cost to ask for it?")
experiments(EXPERIMENTS, TABLES)
st.caption(
    "Samples of the two-layer network are fresh at every step unless the run was made with `--finite`: with 4,096 of "
    "them, read more than twice, random labels begin to be memorised, and ReLU-Gaussian inputs keep 27-28% of the "
    "units on."
)
