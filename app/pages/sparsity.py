"""Which neurons fire and how the energy is spread, beside the controls."""

from functools import partial

import streamlit as st

from app.address import pick
from app.figures import neurons as spectra
from app.figures import sparsity as figures
from app.figures import theme
from app.figures.catalogue import find
from app.panels import (
    chart,
    choose_run,
    dark,
    downloads,
    entry_panel,
    frame,
    live,
    measured_on,
    plain,
    table_panel,
    title,
    told,
)
from data.runs import Run

HINT = "sparsescope probe sparsity --model smollm2-135m --corpus sotu --tokens 20000"


def numbers(run: Run, measure: str, sinks: str) -> None:
    """Mean over the layers, for the measurement and each control, with what it is compared to."""
    rows = figures.select_layers(frame(run, "layers"), measure, sinks=sinks)
    means = rows.groupby("condition")["value"].mean()
    held = theme.conditions(rows["condition"])
    for column, name in zip(st.columns(len(held)), held, strict=True):
        delta = "" if name == "real" or "real" not in means else f"{100 * (means[name] - means['real']):+.1f} points"
        column.metric(
            theme.condition(name).label,
            f"{means[name]:.1%}",
            delta=delta or None,
            delta_color="off",
            help="Mean over the layers; the difference is to the trained model on real text.",
        )


def by_layer(run: Run) -> None:
    """The measure over the layers, each condition with its interval."""
    rows = frame(run, "layers")
    left, right = st.columns([3, 2])
    names = figures.measures(rows)
    measure = pick("Measure", names, "measure", place=left.selectbox, words=theme.words)
    sinks = pick(
        "Attention sinks and first positions",
        ["without", "with"],
        "sinks",
        place=partial(right.segmented_control, required=True),
        help="A few tokens hold most of the energy of some layers; without them the others can be seen.",
    )
    numbers(run, measure, sinks)
    drawn = figures.by_layer(rows, measure, sinks=sinks, dark=dark())
    chart(drawn, key="by-layer", caption=figures.by_layer_caption(rows, measure, sinks=sinks))
    name = {"firing_frequency": "sparsity-firing", "energy_top10": "sparsity-energy"}.get(measure)
    if name and sinks == "without":
        downloads(find(name), run)


def by_neuron(run: Run) -> None:
    """How often each neuron fires: all layers or one, and layer by layer."""
    rows = frame(run, "neurons")
    layers = ["all", *map(str, sorted(rows["layer"].unique()))]
    layer = pick("Layer", layers, "layer")
    part = rows if layer == "all" else rows[rows["layer"] == int(layer)]
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader(f"How often each neuron fires{'' if layer == 'all' else f', layer {plain(layer)}'}", anchor=False)
        chart(spectra.spectrum(part, dark=dark()), key="spectrum", caption=spectra.spectrum_caption(part))
        if layer == "all":
            downloads(find("sparsity-spectrum"), run)
    with right:
        entry_panel(find("sparsity-spectrum-by-layer"), run)


def body(run: Run) -> None:
    """All panels whose tables are there."""
    held = run.table_names()
    measured_on(run)
    st.subheader("By layer", anchor=False)
    with told():
        by_layer(run)
    if "neurons" in held:
        with told():
            by_neuron(run)
    if "sinks" in held:
        entry_panel(find("sparsity-sinks"), run)
    st.subheader("Tables", anchor=False)
    table_panel(run, ("layers", "neurons", "sinks"))


title("Sparsity", "How few neurons does the model use for a token, and is that more than an untrained network does?")
chosen = choose_run(("layers",), hint=HINT)
if chosen is not None:
    live(chosen, body)
