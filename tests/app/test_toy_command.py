from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.figures.catalogue import catalogue
from app.toys import ToyRun, settings_of
from data.runs import open_run
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


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "bogus"], "no preset 'bogus'"),
        (["sweep", "--grid", "d_hiden=1"], "no setting 'd_hiden'"),
        (["sweep", "--grid", "d_hidden"], "not name=value"),
        (["sweep", "--grid", "d_hidden=1", "--engine", "slurm"], "no engine 'slurm'"),
        (["train", "-n", "0"], "n_features"),
        (["train", "--seeds", "0"], "seed"),
        (["run", "phase", "--steps", "5"], "schedule of its own"),
    ],
)
def test_bad_requests_are_one_sentence_and_exit_code_2(words: list[str], sentence: str, runs: Path) -> None:
    code, said = call(*words)
    assert code == 2
    assert sentence in said and "Traceback" not in said


def test_every_setting_is_explained() -> None:
    said = call("settings")[1]
    assert "feature_probability = 0.05" in said and "sparsity is S = 1" in said
