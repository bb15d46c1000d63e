"""Recipes for large mixtures: sizes against the published ones, each command on a tiny model of the same class."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import cli
from data.runs import open_run
from tests.probes.families import tiny_moe
from tests.probes.large import RECIPES, TABLE, command, parameters, written


@pytest.mark.parametrize("name", RECIPES)
def test_parameters_are_those_published(name: str) -> None:
    assert parameters(RECIPES[name]) / 1e9 == pytest.approx(RECIPES[name].published, rel=0.01)


def test_the_page_is_what_was_counted() -> None:
    assert TABLE.read_text(encoding="utf-8") == written()


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_runs_on_a_tiny_model_of_the_class(
    name: str, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("accelerate")
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path / "runs"))
    folder = tmp_path / "model"
    tiny_moe(RECIPES[name].kind).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    few = ["--tokens", "300", "--no-word-classes", "--control", "hash", "--permutations", "2", "--name", "large"]
    done = CliRunner().invoke(cli, [*command(str(folder)), *few])
    assert done.exit_code == 0, done.output
    run = open_run("large")
    assert (run.settings["dtype"], run.settings["device_map"]) == ("bfloat16", "auto")
    load = run.table("load").query("condition == 'real'")
    assert load.groupby("layer")["share"].sum().to_numpy() == pytest.approx(1)
