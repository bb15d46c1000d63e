from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.figures.catalogue import catalogue
from app.toys import ToyExperiment, ToyRun, do_experiment, settings_of
from data.runs import create, open_run
from toymodels.presets import PRESETS
from toymodels.sweeps import combinations

QUICK = ["--set", "batch_size=64", "--steps", "60", "--seeds", "2"]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path))
    return tmp_path


def call(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["toy", *words])
    return done.exit_code, done.output


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_settings_that_exist(name: str) -> None:
    preset = PRESETS[name]
    asked = settings_of(preset, name)
    if isinstance(asked, ToyRun):
        read = ToyRun.model_validate_json(asked.model_dump_json())
        assert combinations(read.grid, read.base) == combinations(asked.grid, asked.base)
    else:
        module, function = preset.experiment.split(":")
        found = __import__(f"toymodels.{module}", fromlist=[function])
        assert callable(getattr(found, function))
    assert name in call("presets")[1]


def test_a_preset_leaves_tables_that_the_figures_can_draw(runs: Path) -> None:
    code, said = call("run", "pentagon", *QUICK, "--name", "p")
    assert code == 0, said
    run = open_run("p", runs)
    drawable = {name for name, entry in catalogue().items() if entry.drawable(run.table_names())}
    assert {"toy-matrices", "toy-features", "toy-dynamics", "toy-polytope", "toy-dimensionality"} <= drawable
    for name in drawable & {"toy-matrices", "toy-features", "toy-dynamics", "toy-polytope", "toy-dimensionality"}:
        entry = catalogue()[name]
        assert entry.draw(run.tables()).data
        assert len(entry.caption(run.tables())) > 40
    assert "2 seeds" in catalogue()["toy-matrices"].caption(run.tables())
    kept = run.tensors("toys-000")
    assert kept["W"].shape == (2, 2, 5)
    assert run.progress["state"] == "done"


def test_a_sweep_takes_a_grid_and_is_the_same_when_done_again(runs: Path) -> None:
    words = ["sweep", "--grid", "feature_probability=1,0.1", "--grid", "d_hidden=1,2", *QUICK, "--name", "s"]
    assert call(*words)[0] == 0
    first = open_run("s", runs).table("toy_room")
    assert len(first) == 2 * 2 * 2 and first.groupby("setting")["best"].sum().eq(1).all()
    assert call(*words)[0] == 0
    assert open_run("s", runs).table("toy_room").equals(first)
    code, said = call(*words[:-4], "--seeds", "3", "--name", "s")
    assert code == 2 and "other settings" in said


def test_tuples_in_a_grid_are_one_value_each(runs: Path) -> None:
    words = ["sweep", "--grid", "importance=(1,0.5),(1,1)", "--set", "n_features=2", *QUICK, "--name", "t"]
    assert call(*words)[0] == 0
    assert open_run("t", runs).table("toy_room")["importance"].unique().tolist() == ["(1.0, 0.5)", "(1.0, 1.0)"]


def test_neurons_are_tabled_where_the_hidden_basis_means_something(runs: Path) -> None:
    assert call("train", "--set", "model=hidden_relu", *QUICK, "--name", "h")[0] == 0
    run = open_run("h", runs)
    assert len(run.table("toy_neurons")) == 2 * 5
    assert set(run.table("toy_neuron_kinds")["kind"]) <= {"monosemantic", "polysemantic", "dead"}


def test_an_experiment_with_a_function_of_its_own(runs: Path) -> None:
    assert call("run", "phase", "--set", "resolution=4", "--name", "ph")[0] == 0
    run = open_run("ph", runs)
    assert len(run.table("toy_phase")) == 16
    assert catalogue()["toy-phase"].draw(run.tables()).data


TINY: dict[str, dict[str, Any]] = {
    "adversarial": {
        "base": {"n_features": 8, "d_hidden": 3, "steps": 40, "batch_size": 64},
        "feature_probabilities": [1.0, 0.3, 0.1],
        "seeds": 2,
        "samples": 64,
    },
    "few-points": {"config": {"n_features": 200, "steps": 60, "feature_probability": 0.05}, "n_points": [4, 5]},
    "double-descent": {
        "config": {"n_features": 20, "d_hidden": 3, "steps": 40},
        "n_points": [5, 20, 80],
        "seeds": 2,
        "n_test": 256,
    },
    "experts": {
        "base": {"toy": {"n_features": 8, "d_hidden": 2, "steps": 40, "batch_size": 64}},
        "n_experts": [1, 2],
        "seeds": 2,
    },
    "process": {
        "config": {"steps": 6, "tasks_per_step": 4, "test_tasks": 32, "queries_per_step": 8},
        "n_context": [4, 16],
        "seeds": [0, 1],
    },
    "sparse-autoencoder": {
        "config": {"steps": 40, "batch_size": 64},
        "toy": {"n_features": 6, "d_hidden": 3, "steps": 600, "batch_size": 128},
        "toy_seeds": 2,
        "seeds": 2,
        "samples": 512,
    },
}
"""The experiments with a function of their own, too small to mean anything but whole."""
DRAWN = {
    "adversarial": {"toy-adversarial"},
    "few-points": {"toy-points"},
    "double-descent": {"toy-double-descent"},
    "experts": {"toy-experts"},
    "process": {"toy-process"},
    "sparse-autoencoder": {"toy-recovery"},
}


def test_no_experiment_is_left_out_of_the_trial() -> None:
    assert {name for name, preset in PRESETS.items() if preset.experiment} == set(TINY) | {"phase", "phase-3"}


@pytest.mark.parametrize("name", TINY)
def test_every_experiment_runs_and_its_figures_are_drawn(name: str, runs: Path) -> None:
    run = create("tiny", ToyExperiment(preset=name, arguments=TINY[name]), kind="toy.experiment", seed=0)
    told: list[float] = []
    do_experiment(run, lambda done, total, note="": told.append(done / total))
    assert told and told == sorted(told) and told[-1] == pytest.approx(1)
    drawable = {key for key, entry in catalogue().items() if entry.drawable(run.table_names())}
    assert drawable >= DRAWN[name], drawable
    for key in drawable:
        entry = catalogue()[key]
        for dark in (False, True):
            assert entry.draw(run.tables(), dark=dark).data
        assert len(entry.caption(run.tables())) > 40
        assert "nan" not in entry.caption(run.tables()).lower().split()


def test_an_experiment_done_again_gives_the_same_tables(runs: Path) -> None:
    words = ["run", "sparse-autoencoder", "--name", "again"]
    words += [word for key, value in TINY["sparse-autoencoder"].items() for word in ("--set", f"{key}={value!r}")]
    assert call(*words)[0] == 0
    first = open_run("again", runs).table("toy_recovery_runs")
    assert first["n_represented"].min() >= 1 and first["best"].sum() == 1
    assert call(*words)[0] == 0
    assert open_run("again", runs).table("toy_recovery_runs").equals(first)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "bogus"], "no preset 'bogus'"),
        (["sweep", "--grid", "d_hiden=1"], "no setting 'd_hiden'"),
        (["sweep", "--grid", "d_hidden"], "not name=value"),
        (["sweep", "--grid", "d_hidden=1", "--engine", "slurm"], "no engine 'slurm'"),
        (["train", "-n", "0"], "n_features"),
        (["train", "--seeds", "0"], "seed"),
        (["train", "-p", "2"], "sparsescope: feature_probability: give a number from 0 to 1, or a tuple with one such"),
        (["train", "--set", "feature_probability=often"], "for each feature, not 'often'\n"),
        (["sweep", "--grid", "feature_probability=0.1,7"], "for each feature, not 7\n"),
        (["run", "phase", "--steps", "5"], "schedule of its own"),
        (["run", "experts", "--set", "bogus=1"], "no setting 'bogus'; it has base, n_experts, seeds, control"),
        (["run", "experts", "--set", "base=1"], "takes settings by name"),
        (["run", "experts", "--set", "base={'n_experts': 0}"], "n_experts"),
    ],
)
def test_bad_requests_are_one_sentence_and_exit_code_2(words: list[str], sentence: str, runs: Path) -> None:
    code, said = call(*words)
    assert code == 2
    assert sentence in said and "Traceback" not in said and "constrained" not in said


def test_every_setting_is_explained() -> None:
    said = call("settings")[1]
    assert "feature_probability = 0.05" in said and "sparsity is S = 1" in said
