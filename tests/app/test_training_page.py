from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas import DataFrame
from streamlit.testing.v1 import AppTest

from app.figures import series, snapshots
from app.figures.catalogue import find
from data.config import Config
from data.runs import create
from data.tables import Tables

PAGE = str(Path(__file__).parents[2] / "app" / "pages" / "training.py")


class Settings(Config):
    """Stands for those of a series."""


def a_series() -> DataFrame:
    rows = [
        (variant, seed, layer, measure, value + 0.01 * seed, 0.05, 1_000)
        for variant, value in (("8 of width 256", 0.1), ("32 of width 64", 0.2))
        for seed in range(3)
        for layer in range(2)
        for measure in ("beyond_type", "purest_PUNCT", "purest_VERB", "load_entropy", "busiest_share")
    ]
    return DataFrame(rows, columns=["variant", "seed", "layer", "measure", "value", "chance", "n_tokens"])


def some_snapshots() -> Tables:
    steps = np.array([0, 1, 10, 100])
    by_layer = [
        DataFrame({"step": steps, "layer": layer, "value": [0.2, 0.3, 0.6, 1.0], "chance": 0.2, "n_tokens": 900})
        for layer in range(2)
    ]
    saturation = pd.concat(by_layer)
    said = DataFrame({"step": steps, "labels": "word_class", "condition": "real", "layer": 0})
    said = said.assign(mi=[0.05, 0.1, 0.3, 0.4], null_type=[0.05, 0.06, 0.07, 0.08])
    index = DataFrame({"step": steps, "loss": [7.0, 6.9, 6.0, 4.0], "kneser_ney": 3.5})
    return Tables(saturation=saturation, specialization=said, snapshots=index)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path))
    return tmp_path


def test_an_empty_folder_is_told_how_to_begin(folder: Path) -> None:
    test = AppTest.from_file(PAGE, default_timeout=60).run()
    assert not test.exception
    assert "sparsescope probe snapshots" in test.code[0].value


def test_both_kinds_of_run_are_shown(folder: Path) -> None:
    create("kinds", Settings(), kind="series", seed=0).save_tables(Tables(series=a_series()))
    create("steps", Settings(), kind="probe.snapshots", seed=0).save_tables(some_snapshots())
    test = AppTest.from_file(PAGE, default_timeout=60).run()
    assert not test.exception and not test.error
    assert find("snapshots-routing").title in [s.value for s in test.subheader]


def test_a_variant_is_its_mean_over_layers_and_each_seed_a_point() -> None:
    rows = series.select(a_series(), "beyond_type")
    assert rows.groupby("variant", sort=False)["value"].mean().tolist() == pytest.approx([0.11, 0.21])
    figure = find("series-specialization").draw({"series": a_series()})
    assert len(figure.data[1].x) == 6 and "0.110 [0.100, 0.120] against 0.050" in figure.layout.meta["alt"]


def test_half_of_the_way_is_told_for_settling_and_for_meaning() -> None:
    words = snapshots.caption(some_snapshots())
    assert "half of the way from chance made by step 10" in words
    assert "half of the excess there by step 10" in words
    assert "chance 0.20" in words


def test_a_measure_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no measure 'depth'"):
        series.select(a_series(), "depth")
