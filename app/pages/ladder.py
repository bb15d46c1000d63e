"""The sparsity ladder: what blocks cost, and what a token uses of them."""

import streamlit as st
from pydantic import ValidationError

from app.figures.catalogue import find
from app.panels import choose_run, entry_panel, live, plain, table_panel, title
from app.telling import sentence
from data.runs import Run
from probes.budget import BITS, FeedForward, budget

HINT = "sparsescope probe ladder --model smollm2-135m --tokens 4000"


def calculator() -> None:
    """A block's parameters, bytes, multiply-adds and combinations, beside a dense block of the same width."""
    st.subheader("What a block costs", anchor=False)
    columns = st.columns(6)
    asked = {
        "d_model": columns[0].number_input("d_model", 1, 2**20, 4096, key="d_model", bind="query-params"),
        "d_mlp": columns[1].number_input("d_mlp", 1, 2**22, 11008, key="d_mlp", bind="query-params"),
        "matrices": columns[2].selectbox("Matrices", [2, 3], key="matrices", bind="query-params"),
        "n_experts": columns[3].number_input("Experts", 0, 2**16, 0, key="experts", bind="query-params"),
        "k": columns[4].number_input("Used for a token", 0, 2**16, 0, key="k", bind="query-params"),
        "n_shared": columns[5].number_input("Shared experts", 0, 2**10, 0, key="shared", bind="query-params"),
    }
    bias = st.toggle("Biases", key="bias", bind="query-params")
    try:
        block = FeedForward.model_validate({name: int(value or 0) for name, value in asked.items()} | {"bias": bias})
    except ValidationError as error:
        st.error(plain(sentence(error)))
        return
    row = budget(block).iloc[0]
    one, two, three, four = st.columns(4)
    one.metric("Parameters", f"{row['parameters']:,}")
    share = f"{row['active_share']:.1%} of all"
    two.metric("Active", f"{row['active_parameters']:,}", share, delta_color="off", delta_arrow="off")
    three.metric("Multiply-adds a token", f"{row['multiply_adds']:,}")
    four.metric("Expert combinations", row["combinations"])
    sizes = {"bits": BITS, "total (MiB)": [row[f"mib_{b}"] for b in BITS]}
    sizes |= {"active (MiB)": [row[f"active_mib_{b}"] for b in BITS]}
    st.dataframe(sizes, hide_index=True, width="stretch", key="sizes")


def body(run: Run) -> None:
    """The measured ladder."""
    entry_panel(find("ladder"), run)
    table_panel(run, ("ladder",))


title("Sparsity ladder", "How large a share of its parts does a block use for a token, and in how many combinations?")
calculator()
st.subheader("Measured", anchor=False)
chosen = choose_run(("ladder",), hint=HINT)
if chosen is not None:
    live(chosen, body)
