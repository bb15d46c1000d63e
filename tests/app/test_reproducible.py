"""Every kind of run, done again from its folder alone, gives the same tables on the same machine."""

from pathlib import Path
from typing import Any

import pytest

from app import demo, jobs, redo
from data.runs import create
from tests.faults.conftest import inputs  # noqa: F401  a fixture
from tests.probes.conftest import tokenizer  # noqa: F401  a fixture
from toymodels import language
from toymodels.language_config import LanguageConfig

LITTLE = {"d_model": 16, "d_mlp": 32, "n_heads": 2, "vocab_size": 300, "window": 16, "batch_size": 4, "steps": 12}
SWEEP = {
    "base": {"n_features": 4, "d_hidden": 2, "steps": 60, "batch_size": 32},
    "grid": {"feature_probability": (1.0, 0.1)},
    "seeds": 2,
}
SAE = {"n_tokens": 1_200, "d_sae": 32, "steps": 30}
ON_DENSE: dict[str, dict[str, Any]] = {
    "probe.sparsity": {"n_tokens": 1_100, "controls": ("gaussian", "random_init")},
    "probe.keep": {"n_tokens": 400, "shares": (0.1,)},
    "probe.kinds": {"n_tokens": 1_500},
    "probe.ladder": {"n_tokens": 600},
    "probe.rank": {"n_windows": 2, "window": 24, "pattern_windows": 1},
    "probe.memory": {"n_tokens": 1_100},
    "probe.sae": {"sae": SAE},
    "probe.secret": {"n_tokens": 1_500, "n_experts": 4, "n_active": 8, "steps": 20, "loss_tokens": 200},
}
ON_MIXTURE: dict[str, dict[str, Any]] = {
    "probe.experts": {"n_tokens": 2_100, "control_tokens": 1_000, "permutations": 3},
    "probe.worth": {"n_tokens": 600, "fit_tokens": 600, "curves": False},
    "probe.router": {"n_tokens": 600, "trials": 10},
}
ALONE: dict[str, dict[str, Any]] = {
    "toy.sweep": SWEEP,
    "toy.experiment": {"preset": "phase", "arguments": {"resolution": 3, "seeds": 2}},
    "probe.coherence": {"dictionaries": ("frame:random:12x40",), "trials": 20},
    "probe.separability": {"d_model": 8, "n_features": 24, "n_clusters": 4, "ks": (1, 2), "n_tokens": 60},
}
LONG: dict[str, dict[str, Any]] = {
    "probe.snapshots": {"n_tokens": 1_100, "permutations": 3},
    "emergence.two_layer": {"seeds": 1},
    "emergence.training": {"model": LITTLE | {"snapshots": 2}, "n_tokens": 300, "seeds": 1},
    "series": {
        "model": LITTLE | {"family": "olmoe", "snapshots": 1},
        "seeds": 1,
        "n_tokens": 600,
        "expert_tokens": 600,
    },
    "demo": {"n_tokens": 1_100},
}


def settings_of(kind: str, place: Path) -> dict[str, Any]:
    texts = {"corpus": str(place / "texts")}
    if kind in ON_DENSE:
        return {"model": str(place / "dense"), **texts, **ON_DENSE[kind]}
    if kind in ON_MIXTURE:
        return {"model": str(place / "mixture"), **texts, **ON_MIXTURE[kind]}
    if kind in ALONE:
        return ALONE[kind]
    if kind == "probe.snapshots":
        training = LanguageConfig.model_validate(LITTLE | {"family": "olmoe", "snapshots": 2, **texts})
        language.train(training, place / "training")
        return LONG[kind] | {"folder": str(place / "training")}
    return LONG[kind]


def check(kind: str, place: Path, runs_folder: Path) -> None:
    run = create("first", settings_of(kind, place), kind=kind, root_folder=runs_folder, seed=0)
    jobs.carry_out(run, jobs.work_of(kind))
    table = redo.tables(run, redo.again(run))
    assert len(table) and set(table["verdict"]) == {redo.EQUAL}, table.to_string()


@pytest.mark.parametrize("kind", [*ON_DENSE, *ON_MIXTURE, *ALONE])
def test_the_same_settings_give_the_same_tables(kind: str, inputs: Path, runs_folder: Path) -> None:  # noqa: F811
    check(kind, inputs, runs_folder)


@pytest.mark.reproduction
@pytest.mark.parametrize("kind", list(LONG))
def test_long_work_gives_the_same_tables(kind: str, inputs: Path, runs_folder: Path) -> None:  # noqa: F811
    check(kind, inputs, runs_folder)


def test_a_demo_gives_the_same_tables(
    inputs: Path,  # noqa: F811
    runs_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Side by side or one after another; each part alone stands above as a run of its own kind."""
    some = ("sparsity", "controls", "keeping", "coherence", "rank")
    monkeypatch.setattr(demo, "PARTS", tuple(part for part in demo.PARTS if part.name in some))
    monkeypatch.setattr(demo, "at_once", lambda: 2)
    settings = {"model": str(inputs / "dense"), "corpus": str(inputs / "texts"), "n_tokens": 1_100}
    run = create("demo", settings, kind="demo", root_folder=runs_folder, seed=0)
    jobs.carry_out(run, jobs.work_of("demo"))
    monkeypatch.setattr(demo, "at_once", lambda: 1)
    table = redo.tables(run, redo.again(run))
    assert set(table["verdict"]) == {redo.EQUAL}, table.to_string()
    assert set(table["table"]) == {*run.table_names()} >= {made for part in demo.PARTS for made in part.makes}
    assert list(run.table("inputs")["role"]) == ["corpus", "model"]


def test_every_kind_of_run_is_done_again_here() -> None:
    assert {*ON_DENSE, *ON_MIXTURE, *ALONE, *LONG} == set(jobs.WORK)
