"""What makes a neuron fire, what it writes, and whether the two agree."""

import streamlit as st

from app.figures import memory as figures
from app.figures.catalogue import find
from app.memory import card
from app.panels import chart, choose_run, dark, entry_panel, frame, live, measured_on, plain, table_panel, title, told
from data.runs import Run

HINT = "sparsescope probe memory --model smollm2-135m --tokens 20000"
# sign of the activation: in the page and its address -> in the tables
SIGNS = {"positive": "+", "negative": "-"}


def choose_neuron(run: Run) -> tuple[int, int, str] | None:
    """The card to show: layer, neuron and sign of the activation."""
    cards = frame(run, "memory_neurons").query("card")
    if not len(cards):
        return None
    left, middle, right = st.columns([1, 2, 2])
    layers = [str(layer) for layer in sorted(cards["layer"].unique())]
    layer = int(left.selectbox("Layer", layers, key="layer", bind="query-params"))
    of_layer = cards[cards["layer"] == layer]
    agreeing = set(of_layer.loc[of_layer["agrees"], "neuron"])
    neurons = [str(n) for n in sorted(of_layer["neuron"].unique(), key=lambda n: (n not in agreeing, n))]
    if st.session_state.get("neuron") not in neurons:
        st.session_state.pop("neuron", None)  # another layer has other cards
    neuron = int(
        middle.selectbox(
            "Neuron",
            neurons,
            key="neuron",
            bind="query-params",
            help="Those whose value agrees with their strongest trigger come first; the others were drawn at random.",
        )
    )
    sign = right.segmented_control(
        "Activation", list(SIGNS), default="positive", required=True, key="sign", bind="query-params"
    )
    return layer, neuron, SIGNS[sign]


def facts(run: Run, layer: int, neuron: int, sign: str) -> None:
    """Frequency, strongest trigger and agreement of one neuron, with the layer's rate and chance."""
    rows = frame(run, "memory_neurons")
    found = rows[(rows["layer"] == layer) & (rows["neuron"] == neuron) & (rows["sign"] == sign)]
    if not len(found):
        st.info("This neuron was never of this sign.")
        return
    one = found.iloc[0]
    rates = frame(run, "memory_agreement")
    rate = rates[(rates["layer"] == layer) & (rates["sign"] == sign) & (rates["condition"] == "real")].iloc[0]
    first, second, third, fourth = st.columns(4)
    first.metric("Fires on", f"{one['frequency']:.1%}", help=f"Share of {one['n_tokens']:,} tokens with an open gate.")
    second.metric("Strongest activation", f"{one['activation']:+.3g}")
    third.metric(
        "Agrees",
        "yes" if one["agrees"] else "no",
        help="Whether the token its value raises most is the one that follows its strongest trigger.",
    )
    fourth.metric(
        f"Agree in layer {layer}",
        f"{rate['rate']:.2%}",
        delta=f"chance {rate['chance']:.2%}",
        delta_color="off",
        delta_arrow="off",
        help=f"{rate['n_agree']} of {rate['n_neurons']:,} neurons; 95% interval {rate['low']:.2%} to "
        f"{rate['high']:.2%}; p = {rate['p_value']:.3g} against random pairings.",
    )
    words = f"After its strongest trigger comes “{figures.shown(one['next_token'])}”; its value says "
    st.markdown(plain(words + f"“{figures.shown(one['value_token'])}” first."))


def cards(run: Run) -> None:
    """One neuron: triggers in their text on the left, what it writes on the right."""
    st.subheader("One neuron", anchor=False)
    chosen = choose_neuron(run)
    if chosen is None:
        return
    layer, neuron, sign = chosen
    facts(run, layer, neuron, sign)
    left, right = st.columns([3, 2], gap="large")
    with left, told():
        st.markdown("**Strongest triggers**")
        rows = frame(run, "memory_triggers")
        st.html(card(rows[(rows["layer"] == layer) & (rows["neuron"] == neuron) & (rows["sign"] == sign)]))
    with right, told():
        st.markdown("**What its value raises most**")
        if "memory_values" in run.table_names():
            drawn = figures.value_tokens(
                frame(run, "memory_values"), layer=layer, neuron=neuron, sign=sign, dark=dark()
            )
            chart(
                drawn,
                key="value",
                caption="Value vector times the unembedding, the final norm's gain folded in; scores are standard "
                "deviations above the mean of the vocabulary.",
            )
        else:
            st.caption("Values are written when the text has been read.")


def body(run: Run) -> None:
    """All panels whose tables are there."""
    held = run.table_names()
    measured_on(run)
    entry_panel(find("memory-agreement"), run)
    if {"memory_neurons", "memory_triggers"} <= set(held):
        with told():
            cards(run)
    st.subheader("Tables", anchor=False)
    table_panel(run, ("memory_agreement", "memory_neurons", "memory_triggers", "memory_values"))


title("Memories", "What makes a neuron fire, what does it write, and do the two agree more often than chance?")
chosen = choose_run(("memory_agreement",), hint=HINT)
if chosen is not None:
    live(chosen, body)
