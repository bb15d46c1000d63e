"""Kinds of neurons, what the specialised ones fire on, and what is lost when few are kept."""

from functools import partial

import streamlit as st

from app.address import pick
from app.figures import keeping as kept
from app.figures import kinds as figures
from app.figures import theme, thresholds
from app.figures.catalogue import find
from app.panels import chart, choose_run, dark, downloads, entry_panel, frame, live, table_panel, title, told
from data.runs import Run

MODEL = "--model smollm2-135m"


def kinds(run: Run) -> None:
    """Bands, layer by layer, by position and word class."""
    left, right = st.columns(2, gap="large")
    with left:
        entry_panel(find("kinds-bands"), run)
    with right, told():
        rows = frame(run, "kinds")
        st.subheader("By layer", anchor=False)
        names = theme.conditions(rows["condition"])
        name = pick("Condition", names, "condition", words=lambda c: theme.condition(c).label)
        drawn = figures.by_layer(rows, condition=name, dark=dark())
        chart(drawn, key="kinds-by-layer", caption=figures.by_layer_caption(rows, condition=name))
        if name == "real":
            downloads(find("kinds-by-layer"), run)
    for table, entry in (("word_classes", "kinds-word-classes"), ("positions", "kinds-positions")):
        if table in run.table_names():
            entry_panel(find(entry), run)


def limits(run: Run) -> None:
    """How many neurons pass a threshold, by layer, at one of the settings measured."""
    rows = frame(run, "thresholds")
    st.subheader("Thresholds", anchor=False)
    left, right = st.columns(2)
    held = [m for m in thresholds.MEASURES if m in set(rows["measure"])]
    measure = pick("Measure", held, "measure", place=left.selectbox, words=theme.words)
    settings = sorted(rows.loc[rows["measure"] == measure, "setting"].unique())
    setting = right.selectbox("At", settings, index=min(2, len(settings) - 1), key=f"setting-{measure}")
    drawn = thresholds.by_layer(rows, measure, setting, dark=dark())
    chart(drawn, key="thresholds", caption=thresholds.caption(rows, measure, setting))
    downloads(find("thresholds-cett"), run)


def neurons(run: Run) -> None:
    """One neuron: its word classes with both p-values, and the tokens it fires on most surely."""
    classes, tokens = frame(run, "neuron_classes"), frame(run, "neuron_tokens")
    real = classes[classes["condition"] == "real"]
    left, right = st.columns(2)
    layer = left.selectbox("Layer", sorted(tokens["layer"].unique()), key="layer", bind="query-params")
    held = real[real["layer"] == layer].sort_values("rate", ascending=False)
    known = list(dict.fromkeys(held["neuron"])) or sorted(tokens.loc[tokens["layer"] == layer, "neuron"].unique())
    neuron = right.selectbox("Neuron, the surest first", known, key="neuron")
    mine = held[held["neuron"] == neuron]
    about = tokens[(tokens["layer"] == layer) & (tokens["neuron"] == neuron)]
    for row in about.head(1).itertuples():
        st.markdown(f"Neuron {neuron} of layer {layer} is **{row.kind}**: it fires on {row.frequency:.1%} of tokens.")
    shown = ["word_class", "rate", "low", "high", "elsewhere", "n_fired", "n_tokens", "p_label", "p_type", "q"]
    st.dataframe(mine[shown], hide_index=True, width="stretch", key="classes")
    st.caption(
        "rate: share of the class's tokens on which it fires, with Wilson's 95% interval; elsewhere: of all other "
        "tokens. p_label and p_type: labels exchanged over tokens, and over token types of like frequency."
    )
    st.dataframe(
        about[["token", "n_fired", "n_seen", "rate", "low", "high"]], hide_index=True, width="stretch", key="tokens"
    )


def layer_errors(run: Run) -> None:
    """Output error by layer at one of the shares."""
    rows = frame(run, "keeping_errors")
    shares = sorted(rows["share"].unique())
    st.subheader("Output error by layer", anchor=False)
    share = st.select_slider("Neurons kept", shares, format_func=lambda s: f"{s:.0%}", key="share")
    chart(kept.errors(rows, share, dark=dark()), key="errors", caption=kept.errors_caption(rows, share))
    downloads(find("keeping-errors"), run)


def of_kinds(run: Run) -> None:
    """How many neurons are dead, rare, specialised, intermediate, generalized."""
    kinds(run)
    if "thresholds" in run.table_names():
        with told():
            limits(run)
    table_panel(run, ("kinds", "positions", "word_classes", "thresholds"))


def of_classes(run: Run) -> None:
    """How many neurons have a word class; one neuron in detail."""
    entry_panel(find("kinds-claimed"), run)
    with told():
        neurons(run)
    table_panel(run, ("class_summary", "neuron_classes", "neuron_tokens", "untestable"))


def of_keeping(run: Run) -> None:
    """Perplexity and output errors when few neurons are kept."""
    entry_panel(find("keeping-curve"), run)
    if "keeping_errors" in run.table_names():
        with told():
            layer_errors(run)
    table_panel(run, ("keeping", "keeping_points", "keeping_errors"))


VIEWS = {
    "kinds": ("Kinds of neurons", ("kinds",), of_kinds, f"sparsescope probe sparsity {MODEL} --tokens 20000"),
    "classes": ("Word classes", ("class_summary",), of_classes, f"sparsescope probe kinds {MODEL} --tokens 20000"),
    "keeping": ("Keeping few", ("keeping", "keeping_points"), of_keeping, f"sparsescope probe keep {MODEL}"),
}
"""View -> its name, the tables it needs, what draws it, the command that makes them."""

title(
    "Lazy neurons",
    "Which neurons are specialised, on what do they fire, and how few does the model need for a token?",
)
view = pick(
    "View",
    list(VIEWS),
    "view",
    place=partial(st.segmented_control, required=True, label_visibility="collapsed"),
    words=lambda name: VIEWS[name][0],
)
_, needs, draw, hint = VIEWS[view]
chosen = choose_run(needs, hint=hint)
if chosen is not None:
    live(chosen, draw)
