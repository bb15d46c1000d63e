"""Rank collapse and key-value agreement of SmolLM2-135M: `pytest -m reproduction tests/reproductions/test_rank.py`.

Each test writes what it measured, with provenance, to `rank_*.json` beside this file, and then judges it.
"""

import numpy as np
import pytest
import torch
from pandas import DataFrame

from data.corpus import open_corpus
from probes import memory, open_model, rank
from probes.variants import edits
from tests.reproductions.record import record

pytestmark = [pytest.mark.reproduction, pytest.mark.model]
WINDOWS = 8


def last_layer(table: DataFrame, first: str) -> dict[str, dict[str, float]]:
    """`condition/variant` -> measure -> value at the last layer."""
    rows = table[(table["layer"] == table["layer"].max()) & (table["first"] == first)]
    cells = rows.set_index([rows["condition"] + "/" + rows["variant"], "measure"])
    return {
        str(name): {
            str(m): [float(r["value"]), float(r["low"]), float(r["high"])] for m, r in part.droplevel(0).iterrows()
        }
        for name, part in cells[["value", "low", "high"]].groupby(level=0)
    }


def test_attention_alone_collapses_and_the_model_does_not() -> None:
    """Eight windows of 256 from eight addresses, float32; one window again in float64, free of float32's rounding."""
    corpus, model = open_corpus(), open_model("smollm2-135m", dtype="float32")
    settings = {"model": "smollm2-135m", "corpus": corpus.name, "window": 256, "n_windows": WINDOWS, "dtype": "float32"}
    found = rank.measure(model, corpus, 255 * WINDOWS)
    table, patterns = found.rank_residuals, found.rank_patterns
    measured = {f"first position {first}": last_layer(table, first) for first in rank_first(table)}
    by_measure = patterns.groupby(["condition", "measure"])["value"].mean()
    measured["patterns, mean over heads"] = {f"{c}/{m}": float(v) for (c, m), v in by_measure.items()}
    measured["attention alone in float64, one window, residual by layer"] = in_float64()
    record("rank_collapse", settings, measured)
    assert (table["n_windows"] == WINDOWS).all()
    for first in ("in", "out"):
        at_end = measured[f"first position {first}"]
        for norm in ("residual_composite", "residual_frobenius"):
            assert at_end["real/attention"][norm][0] < 1e-5
            assert at_end["real/full"][norm][0] > 0.3
            assert at_end["real/attention"][norm][0] < at_end["real/attention_ffn"][norm][0] < 1e-3
            assert at_end["real/attention_ffn"][norm][0] < at_end["real/attention_skip"][norm][0] < 0.3


def rank_first(table: DataFrame) -> list[str]:
    return sorted(set(table["first"]))


def in_float64() -> list[float]:
    """Composite residual after each block of attention alone, where numbers have 16 digits."""
    corpus, model = open_corpus(), open_model("smollm2-135m", dtype=torch.float64)
    window = next(corpus.windows(model.tokenizer, begin_token_id=model.document_token, tokens_per_document=255))
    ids, found = torch.from_numpy(window.token_ids.astype(np.int64))[None], list[float]()
    with model.edited(edits(model, "attention")):
        model.observe(
            ids,
            ("block_output",),
            lambda _, sites: found.append(float(rank.window_measures(sites["block_output"][0])[0])),
        )
    assert np.log(found[-1] / found[0]) / (len(found) - 1) < -0.4, "each block takes at least a third off the residual"
    return found


def test_values_agree_with_triggers_more_than_chance() -> None:
    """Every third layer, 10,200 tokens: rates of some tenths of a per cent, several times the chance of a pairing."""
    corpus, model = open_corpus(), open_model("smollm2-135m", dtype="bfloat16")
    layers = list(range(0, 30, 3))
    found = memory.measure(model, corpus, 10_200, layers=layers, neurons=1)
    table = found.memory_agreement
    settings = {
        "model": "smollm2-135m",
        "corpus": corpus.name,
        "n_tokens": 10_200,
        "layers": layers,
        "dtype": "bfloat16",
    }
    record("rank_memory_agreement", settings, {"rows": table.to_dict("records")})
    sums = table.assign(expected=table["chance"] * table["n_neurons"]).groupby("condition")
    agree, expected, neurons = sums["n_agree"].sum(), sums["expected"].sum(), sums["n_neurons"].sum()
    assert 0.0007 <= agree["real"] / neurons["real"] <= 0.0065
    assert 0.0002 <= expected["real"] / neurons["real"] <= 0.0011
    assert agree["real"] > 2 * expected["real"]
    assert agree["random_init"] < agree["real"] / 4
