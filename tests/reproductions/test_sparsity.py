"""Known sparsity of SmolLM2-135M on `sotu`: `python -m pytest -m reproduction tests/reproductions/test_sparsity.py`.

SPARSITY_TOKENS and KEEPING_TOKENS in the environment set how much is read (default 20,000 and 10,200).
Each test writes what it measured, with provenance, beside this file, and then judges it.
"""

import os
from typing import Any

import pytest
from pandas import DataFrame

from data.corpus import open_corpus
from data.tables import Tables
from data.wordclass import default_tagger
from probes import LanguageModel, keeping, kinds, open_model, sparsity
from probes.stream import StreamConfig
from tests.reproductions.record import record

pytestmark = [pytest.mark.reproduction, pytest.mark.model]
TOKENS = int(os.environ.get("SPARSITY_TOKENS", "20000"))
KEPT_TOKENS = int(os.environ.get("KEEPING_TOKENS", "10200"))

ENERGY = {"real": 0.79, "gaussian": 0.78, "random_init": 0.75, "shuffled": 0.84}
"""Share of energy in the top 10% of neurons, mean over the 30 layers."""
BANDS = {
    "real": {"generalized": 0.295, "specialised": 0.398, "below 5%": 0.069, "never": 0.002},
    "random_init": {"generalized": 0.501, "specialised": 0.201, "below 5%": 0.016, "never": 0.0},
}
"""Shares of neurons by firing frequency."""


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return open_model("smollm2-135m", dtype="bfloat16")


@pytest.fixture(scope="module")
def measured(model: LanguageModel) -> Tables:
    return sparsity.measure(model, open_corpus("sotu"), TOKENS)


def test_energy_in_the_top_tenth_beside_its_controls(measured: Tables) -> None:
    rows = measured.layers.query("sinks == 'without'")
    found = {measure: part.groupby("condition")["value"].mean().to_dict() for measure, part in rows.groupby("measure")}
    by_layer = rows.query("measure == 'energy_top10'").pivot_table(index="layer", columns="condition", values="value")
    excess = {
        f"over {control}": (by_layer["real"] - by_layer[control]).round(4).tolist()
        for control in ("gaussian", "random_init")
    }
    record(
        "sparsity",
        {"tokens": TOKENS, "corpus": "sotu", "known_energy_top10": ENERGY},
        {"means": found, "excess_by_layer": excess},
    )
    assert 0.33 <= found["firing_frequency"]["real"] <= 0.42
    assert found["firing_frequency"]["random_init"] == pytest.approx(0.5, abs=0.02)
    assert excess["over gaussian"][0] > 0.05
    for condition, known in ENERGY.items():
        assert found["energy_top10"][condition] == pytest.approx(known, abs=0.03), condition


def test_bands_of_neurons(measured: Tables) -> None:
    neurons = measured.neurons
    kinds_found = measured.kinds.groupby(["condition", "kind"])["share"].mean()
    found: dict[str, Any] = {}
    for condition, part in neurons.groupby("condition"):
        shares = kinds_found[condition]
        found[condition] = {**shares.to_dict(), "below 5%": shares["dead"] + shares["rare"]}
        found[condition]["never"] = float((part["frequency"] == 0).mean())
        found[condition]["mean_frequency"] = float(part["frequency"].mean())
    record("sparsity_bands", {"tokens": TOKENS, "corpus": "sotu", "known": BANDS}, found)
    for condition, known in BANDS.items():
        for band, share in known.items():
            assert found[condition][band] == pytest.approx(share, abs=0.04), (condition, band)


def test_perplexity_when_the_largest_neurons_are_kept(model: LanguageModel) -> None:
    """On all addresses since 1790, windows of 256 begun with the document token, bfloat16.

    Read twice: the openings of many documents, one window each, which is what `keeping.measure` does by itself, and
    eight windows each of few documents.
    """
    text = open_corpus("sotu")
    found = keeping.measure(model, text, KEPT_TOKENS, choices=("oracle", "static"), control=False)
    longer = keeping.measure(
        model,
        text,
        KEPT_TOKENS,
        shares=(0.5, 0.1),
        choices=("oracle",),
        control=False,
        config=StreamConfig(tokens_per_document=2_040),
    )
    rows = found.keeping.set_index(["choice", "share"])
    errors = found.keeping_errors.groupby(["choice", "share"])["error"].mean()
    points = found.keeping_points.set_index("choice")[["share", "low", "high"]].T.to_dict()
    record(
        "keeping",
        {"tokens": KEPT_TOKENS, "corpus": "sotu", "known_ratio": {"50%": [1.03, 1.12], "10%": "above 4"}},
        {
            "openings": _ratios(found.keeping),
            "eight windows a document": _ratios(longer.keeping),
            "one_percent_point": points,
            "output_error": {f"{c} {s:.0%}": e for (c, s), e in errors.items()},
        },
    )
    assert 1.03 <= rows.ppl_ratio["oracle", 0.5] <= 1.12
    assert rows.ppl_ratio["oracle", 0.1] > 4
    assert rows.ppl_ratio["static", 0.5] > rows.ppl_ratio["oracle", 0.5]


def _ratios(table: DataFrame) -> dict[str, dict[str, float]]:
    shown = ["loss", "ppl_ratio", "ratio_low", "ratio_high", "n_tokens", "n_documents"]
    return {f"{row['choice']} {row['share']:.0%}": {k: row[k] for k in shown} for row in table.to_dict("records")}


def test_word_classes_of_specialised_neurons(model: LanguageModel) -> None:
    found = kinds.measure(model, open_corpus(), TOKENS, tagger=default_tagger())
    summary = found.class_summary.groupby(["condition", "kind"])[
        ["n_neurons", "n_with_class", "n_claims", "n_tests"]
    ].sum()
    top = found.neuron_classes.query("condition == 'real'").sort_values("rate", ascending=False).head(10)
    record(
        "neuron_kinds",
        {"tokens": TOKENS},
        {
            "summary": {" ".join(key): row.to_dict() for key, row in summary.iterrows()},
            "surest": top[["layer", "neuron", "word_class", "frequency", "rate", "elsewhere", "q"]].to_dict("records"),
            "untestable": found.untestable.to_dict("records"),
        },
    )
    share = summary["n_with_class"] / summary["n_neurons"]
    assert share["real", "specialised"] > 0.2
    # where types' classes are exchanged every claim is false
    assert share["exchanged", "specialised"] < 0.02
