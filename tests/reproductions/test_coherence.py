"""Coherence and recovery of SmolLM2-135M's matrices: `pytest -m reproduction tests/reproductions/test_coherence.py`.

The known numbers of recovery are kept beside the measured ones; where they differ the file shows both.
"""

import math
from typing import Any

import pytest

from probes import LanguageModel, coherence, dictionaries, frames, open_model, recovery
from tests.reproductions.record import record

pytestmark = [pytest.mark.reproduction, pytest.mark.model]
LAYERS = (0, 3, 8, 15, 20, 27)
TRIALS = 100
KNOWN = {"mu": 1, "babel": 1, "thresholding": [5, 7], "omp": [18, 33]}


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return open_model("smollm2-135m")


def test_no_matrix_of_the_dense_layers_certifies_two_features(model: LanguageModel) -> None:
    parts = [p for p in dictionaries.parts(model) if p.startswith("layer-") and p.endswith(("-gate", "-in", "-down"))]
    found = {part: coherence.measure(dictionaries.of_model(model, part).matrix) for part in parts}
    mu = {part: report.mu for part, report in found.items()}
    record("coherence_ffn", {"known_least_mu": 0.476}, {"matrices": len(mu), "least": min(mu.values()), "mu": mu})
    assert len(mu) == 90
    assert min(mu.values()) >= 0.47
    assert all(report.k_guaranteed <= 1 for report in found.values())


def test_tokens_of_the_embedding_that_are_one_vector(model: LanguageModel) -> None:
    tokens = dictionaries.of_model(model, "embedding")
    report = coherence.measure(tokens.matrix, neighbours=1)
    names = {int(i): tokens.label(int(i)) for i in report.clusters["feature"]}
    record(
        "coherence_embedding",
        {"known_mu": 1},
        {
            "mu": report.mu,
            "pair": [tokens.label(i) for i in report.pair or ()],
            "near_duplicates": list(names.values()),
        },
    )
    assert report.mu == pytest.approx(1, abs=1e-6) and report.k_guaranteed == 0
    assert {"token 12 '<jupyter_text>'", "token 14 '<jupyter_output>'"} <= set(names.values())


def test_bars_of_down_projections_beside_a_random_dictionary(model: LanguageModel) -> None:
    matrices = {f"layer {n}": dictionaries.of_model(model, f"layer-{n}-down").matrix for n in LAYERS}
    matrices["random"] = frames.random_directions(576, 1536, seed=0).float()
    found: dict[str, dict[str, Any]] = {}
    for name, V in matrices.items():
        report = coherence.measure(V)
        bars, _ = recovery.bars(V, report, methods=("thresholding", "omp"), trials=TRIALS)
        rows = bars.set_index("bar")
        found[name] = {
            "mu coherence": report.mu,
            **{bar: rows.loc[bar, ["k", "low", "high"]].tolist() for bar in rows.index},
        }
    # Tropp & Gilbert 2007: OMP finds m of d features from N measurements where N is about 1.5 m ln d + 4
    law = (576 - 4) / (1.5 * math.log(1536))
    record(
        "coherence_bars",
        {"trials": TRIALS, "target": 0.95, "known_of_down_projections": KNOWN, "columns": "k, low, high"},
        {"bars": found, "omp_law_of_tropp_and_gilbert_for_random": law},
    )
    for name, bars_of in found.items():
        k = {bar: value[0] for bar, value in bars_of.items() if bar != "mu coherence"}
        assert k["mu"] <= k["babel"] < k["thresholding"] < k["omp"] < 1.1 * law, name
        if name != "random":
            assert (k["mu"], k["babel"]) == (1, 1), name
            assert k["thresholding"] <= found["random"]["thresholding"][0] + 1, name
    assert found["random"]["omp"][0] == pytest.approx(law, rel=0.35)


GRID = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 27, 33, 41, 51, 63)
"""Steps of a quarter: the k that were reported elsewhere (5, 7, 15, 18, 33, 41, 121, 151) all lie on it."""


def test_readings_of_95_percent(model: LanguageModel) -> None:
    """The two readings of "95% of trials" side by side: the share itself, and the low end of its interval."""
    trials = 200
    found: dict[str, dict[str, Any]] = {}
    matrices = {f"layer {n}": dictionaries.of_model(model, f"layer-{n}-down").matrix for n in range(30)}
    matrices |= {f"random, seed {s}": frames.random_directions(576, 1536, seed=s).float() for s in range(3)}
    for name, V in matrices.items():
        for method, grid in (("thresholding", GRID[:12]), ("omp", GRID[8:])):
            rows = recovery.empirical(V, k=grid, methods=method, trials=trials)
            found.setdefault(name, {})[method] = {
                "share >= .95": int(rows.loc[rows["rate"] >= 0.95, "k"].max()),
                "interval >= .95": int(rows.loc[rows["low"] >= 0.95, "k"].max()),
                "successes": dict(zip(rows["k"].tolist(), rows["successes"].tolist(), strict=True)),
            }
    measured: dict[str, Any] = {"by_matrix": found}
    for reading in ("share >= .95", "interval >= .95"):
        for method in ("thresholding", "omp"):
            ks = sorted(v[method][reading] for name, v in found.items() if name.startswith("layer"))
            inside = sum(KNOWN[method][0] <= k <= KNOWN[method][1] for k in ks)  # type: ignore[index]
            measured[f"{method}, {reading}"] = {
                "least": ks[0], "median": ks[15], "greatest": ks[-1], "layers_inside_the_known_range": inside
            }  # fmt: skip
    record("coherence_readings", {"trials": trials, "grid": GRID, "known": KNOWN}, measured)
    for name, rows_of in found.items():
        for method in ("thresholding", "omp"):
            assert rows_of[method]["interval >= .95"] <= rows_of[method]["share >= .95"], name
