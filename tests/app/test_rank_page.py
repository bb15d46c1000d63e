"""The rank page and its figures on frames of the shape the probe makes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas import DataFrame

from app.figures import rank as figures
from app.figures.catalogue import find
from data import Run, Tables
from data.runs import create
from tests.app.test_pages import show, words

END = {"attention": 5e-7, "attention_ffn": 1e-5, "attention_skip": 0.1, "full": 0.5}


def make_rank(n_layers: int = 4) -> Tables:
    rows, heads = [], []
    for condition, more in (("real", 1.0), ("random_init", 1.5)):
        for variant, end in END.items():
            for layer in range(-1, n_layers):
                for first in ("in", "out"):
                    residual = more * end ** ((layer + 1) / n_layers)
                    for measure, value in (
                        ("residual_composite", residual),
                        ("stable_rank", 2.0),
                        ("mean_cosine", 0.3),
                    ):
                        at = (layer, variant, condition, first, measure, value, value * 0.9, value * 1.1)
                        rows.append((*at, 8, 2048, 8, 1.2e-7))
        for layer in range(n_layers):
            for head in range(3):
                for measure, value in (("effective_rank", 40.0 + head), ("rank", 250.0), ("first_key", 0.4)):
                    heads.append((layer, head, condition, measure, value * more, value, value + 1, 8, 256))
    columns = ["layer", "variant", "condition", "first", "measure", "value", "low", "high", "n_windows"]
    pattern_columns = ["layer", "head", "condition", "measure", "value", "low", "high", "n_windows", "n_keys"]
    return Tables(
        rank_residuals=DataFrame(rows, columns=[*columns, "n_tokens", "n_blocks", "precision"]),
        rank_patterns=DataFrame(heads, columns=pattern_columns),
    )


@pytest.fixture
def measured(runs_folder: Path) -> Run:
    run = create("ranks", {"model": "smollm2-135m"}, kind="probe.rank", root_folder=runs_folder)
    run.save_tables(make_rank())
    run.report("done", 1, 1)
    return run


def test_page_states_numbers_controls_intervals_and_sample_size(measured: Run) -> None:
    test = show("rank")
    assert not test.exception and not test.error
    metrics = {m.label: m for m in test.metric}
    assert metrics["attention only"].value == "5e-07"
    assert metrics["attention only"].delta == "random weights 7.5e-07"
    assert metrics["full model"].value == "0.5"
    text = words(test).replace("\\", "")
    assert "attention only: trained 5e-07 [4.5e-07, 5.5e-07], random weights 7.5e-07" in text
    assert "8 windows of 256 positions" in text and "95% bootstrap intervals over documents" in text
    assert "Null space: on average 6.0 of 256 dimensions with trained weights" in text


def test_choosing_changes_what_is_shown_and_a_link_opens_it(measured: Run) -> None:
    test = show("rank")
    test.selectbox(key="measure").set_value("stable_rank").run()
    assert {m.value for m in test.metric} == {"2"} and not test.exception
    linked = show("rank", measure="mean_cosine", first="out")
    assert linked.selectbox(key="measure").value == "mean_cosine"
    assert "first position left out" in words(linked).replace("\\", "")
    test.selectbox(key="pattern").set_value("first_key").run()
    assert not test.exception


def test_half_a_run_shows_what_there_is(measured: Run) -> None:
    table = make_rank().rank_residuals
    measured.save_table("rank_residuals", table[(table["variant"] == "attention") & (table["condition"] == "real")])
    (measured.path / "rank_patterns.parquet").unlink()
    test = show("rank")
    assert not test.exception and not test.error
    assert [m.label for m in test.metric] == ["attention only"]


def test_an_empty_folder_names_the_command(runs_folder: Path) -> None:
    test = show("rank")
    assert not test.exception and "sparsescope probe rank" in words(test)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", ["screen", "column", "wide"])
def test_the_figure_draws_every_row_once(dark: bool, width: Any) -> None:
    tables = make_rank()
    figure = find("rank-residual").draw(tables, dark=dark, width=width)
    drawn = {t.name: t for t in figure.data if t.name and t.x[0] is not None}
    assert len(drawn) == 8
    np.testing.assert_allclose(drawn["attention only"].y[-1], 5e-7)
    assert figure.layout.yaxis.type == "log"
    assert 10 ** figure.layout.yaxis.range[0] < 1.2e-7 < 10 ** figure.layout.yaxis.range[1]
    assert len(find("rank-residual").plotted(tables)) == 4 * 2 * 5
    heads = find("rank-patterns").draw(tables, dark=dark, width=width).data[0]
    assert np.asarray(heads.z).shape == (3, 4) and heads.z[2][0] == 42


def test_one_document_gives_numbers_without_brackets() -> None:
    table = make_rank().rank_residuals.assign(low=np.nan, high=np.nan)
    caption = figures.collapse_caption(table)
    assert "trained 5e-07, random" in caption and "nan" not in caption
    assert figures.collapse(table).data


def test_unknown_measures_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="there are residual_composite, stable_rank"):
        figures.select(make_rank().rank_residuals, "entropy")
    with pytest.raises(ValueError, match="there are effective_rank"):
        figures.heads(make_rank().rank_patterns, "entropy")
    with pytest.raises(ValueError, match="lacks the columns variant"):
        figures.select(DataFrame({"layer": [0]}))
