"""Frames of the shape that the probes make, for tests of drawing and of pages; nothing here is a measurement."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas import DataFrame

from data import Run, Tables, runs
from data.runs import create


@pytest.fixture(autouse=True)
def nothing_ships(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Pages and verbs see only the runs that a test makes; `test_shipped_runs` looks at those that ship."""
    monkeypatch.setattr(runs, "SHIPPED", tmp_path_factory.mktemp("nothing"))


CONDITIONS = {"real": 0.38, "gaussian": 0.39, "random_init": 0.50, "shuffled": 0.45}


def make_sparsity(n_layers: int = 6, n_neurons: int = 64, n_tokens: int = 2_000) -> Tables:
    rng = np.random.default_rng(0)
    layers, neurons = [], []
    for condition, centre in CONDITIONS.items():
        for layer in range(n_layers):
            for sinks in ("with", "without"):
                for measure, value in (("firing_frequency", centre), ("energy_top1", 0.3), ("energy_top10", 0.8)):
                    value = value + 0.01 * layer
                    layers.append((layer, condition, sinks, measure, value, value - 0.02, value + 0.03, n_tokens))
            frequency = rng.beta(2, 2 / centre - 2, n_neurons)
            neurons += [(layer, i, condition, f, n_tokens) for i, f in enumerate(frequency)]
    sinks = [
        (layer, condition, n_tokens, 7, 0.1 + 0.1 * layer / n_layers, 9, 0.5 if condition == "real" else 0.0)
        for condition in ("real", "random_init")
        for layer in range(n_layers)
    ]
    columns = ["layer", "condition", "n_tokens", "n_sinks", "energy_share", "n_first", "energy_share_first"]
    return Tables(
        layers=DataFrame(
            layers, columns=["layer", "condition", "sinks", "measure", "value", "low", "high", "n_tokens"]
        ),
        neurons=DataFrame(neurons, columns=["layer", "neuron", "condition", "frequency", "n_tokens"]),
        sinks=DataFrame(sinks, columns=columns),
    )


@pytest.fixture(scope="session")
def tables() -> Tables:
    return make_sparsity()


@pytest.fixture
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of runs, which is the one in force."""
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def run(runs_folder: Path, tables: Tables) -> Run:
    """A finished run of the sparsity probe."""
    settings = {"model": "smollm2-135m", "corpus": "sotu", "n_tokens": 2_000}
    made = create("first", settings, kind="probe.sparsity", root_folder=runs_folder, seed=0)
    made.save_tables({name: pd.DataFrame(frame) for name, frame in tables.items()})
    made.report("done", 1, 1)
    return made
