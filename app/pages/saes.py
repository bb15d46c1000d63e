"""What a sparse autoencoder keeps of a model's activations, beside principal components and random weights."""

import streamlit as st

from app.figures.catalogue import find
from app.figures.saes import LABELS
from app.panels import choose_run, entry_panel, frame, live, measured_on, table_panel, title, told
from data.runs import Run

HINT = "sparsescope probe sae --model smollm2-135m --layer 15"


def numbers(run: Run) -> None:
    """The autoencoder's figures; each with what the controls reach."""
    by_condition = {row["condition"]: row for row in frame(run, "sae").to_dict("records")}
    real = by_condition.pop("real")

    def beside(column: str, form: str) -> str:
        found = [f"{LABELS.get(name, name)} {format(row[column], form)}" for name, row in by_condition.items()]
        return "; ".join(found) or "no control measured"

    left, middle, right, last = st.columns(4)
    left.metric("Active latents (L0)", f"{real['l0']:.1f}", help=f"Of {int(real['d_sae']):,}.")
    middle.metric("Variance unexplained", f"{real['fvu']:.3f}", help=beside("fvu", ".3f"))
    right.metric("Loss recovered", f"{real['recovered_mean']:.1%}", help=beside("recovered_mean", ".1%"))
    last.metric("Dead latents", f"{int(real['dead_latents']):,}", help=f"On {int(real['n_tokens']):,} tokens.")


def body(run: Run) -> None:
    """All panels whose tables are there."""
    held = run.table_names()
    measured_on(run)
    with told():
        numbers(run)
    entry_panel(find("sae-fvu"), run)
    entry_panel(find("sae-loss"), run)
    if "sae_latents" in held:
        entry_panel(find("sae-latents"), run)
    if "sae" in run.tensor_names():
        st.markdown("The decoder is a dictionary of the coherence page:")
        st.code(f"sparsescope coherence measure {run.path}/sae.safetensors#W_dec --transpose", language="bash")
    st.subheader("Tables", anchor=False)
    table_panel(run, ("sae", "sae_latents", "sae_training"))


title("Sparse autoencoders", "How much of a layer can a few active directions rebuild, and is that more than chance?")
chosen = choose_run(("sae",), hint=HINT)
if chosen is not None:
    live(chosen, body)
