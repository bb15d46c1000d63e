"""A small autoencoder on SmolLM2-135M: `pytest -m "reproduction and model" tests/reproductions/test_saes.py`."""

import pytest

from data import open_corpus
from probes import coherence, open_model, saes
from probes.saes import SaeConfig
from tests.reproductions.record import record

pytestmark = [pytest.mark.reproduction, pytest.mark.model]


def test_an_autoencoder_beats_principal_components_of_equal_number() -> None:
    config = SaeConfig(layer=15, d_sae=2_304, k=32, n_tokens=8_000, steps=400)
    tables, made = saes.measure(open_model(dtype="bfloat16"), open_corpus(), config)
    rows = tables.sae.set_index("condition")
    report = coherence.measure(made["real"].decoder)
    record(
        "saes",
        config.model_dump(mode="json"),
        {"report": tables.sae.to_dict("records"), "decoder_mutual_coherence": report.mu},
    )
    assert rows["l0"]["real"] == 32
    assert rows["loss"]["real"] < rows["loss_sae"]["real"] < rows["loss_mean"]["real"]
    assert rows["recovered_mean"]["real"] > 0.5
