"""The mixture of experts inside a dense feed-forward block, real activations beside Gaussian ones."""

import streamlit as st

from app.figures.catalogue import find
from app.panels import choose_run, entry_panel, frame, live, plain, table_panel, title, told
from data.runs import Run

HINT = "sparsescope probe secret --layer 15"
FIGURES = {
    "secret_ratios": "secret-ratios", "secret": "secret-fvu", "secret_losses": "secret-losses",
    "secret_cells": "secret-cells",
}  # fmt: skip


def numbers(run: Run) -> None:
    """Gaps of the ratio, each with its interval."""
    for row in frame(run, "secret_gaps").to_dict("records"):
        st.metric(
            f"Layer {row['layer']}: ratio on real activations less that on {plain(str(row['condition']))}",
            f"{row['gap']:+.2f}",
            help=f"95%: {row['low']:+.2f} to {row['high']:+.2f}; {row['n_documents']} documents, "
            f"{row['n_seeds']} seed(s).",
        )


def body(run: Run) -> None:
    """All panels whose tables are there."""
    held = run.table_names()
    if "inputs" in held:
        with told():
            inputs = frame(run, "inputs").set_index("role")["title"]
            st.markdown(" · ".join(plain(inputs[role]) for role in ("model", "corpus") if role in inputs))
    if "secret_gaps" in held:
        with told():
            numbers(run)
    for table, figure in FIGURES.items():
        if table in held:
            entry_panel(find(figure), run)
    if any(name.startswith("student_") for name in run.tensor_names()):
        st.markdown("The students are kept; the model with them in place is a mixture of experts:")
        st.code(f'open_model("smollm2-135m", secret_experts="{run.name}")', language="python")
    st.subheader("Tables", anchor=False)
    table_panel(run, ("secret", "secret_ratios", "secret_gaps", "secret_losses", "secret_cells", "secret_slopes",
                      "secret_tables", "secret_inputs"))  # fmt: skip


title("Secret experts", "Does a dense block hide a mixture of experts, and is that so only on real activations?")
chosen = choose_run(("secret",), hint=HINT)
if chosen is not None:
    live(chosen, body)
