"""Secret experts: figures against their frames, page on a run, verb on a tiny model."""

from pathlib import Path
from typing import Any

import pytest
from pandas import DataFrame
from typer.testing import CliRunner

from app.cli import cli
from app.figures import secret as figures
from app.figures.catalogue import find
from data.runs import create, open_run
from tests.app.test_pages import show, words


def students() -> DataFrame:
    rows = [
        ("real", "dense", 0.60, 70_000),
        ("real", "closed_form", 0.40, 4_700_000),
        ("gaussian", "dense", 0.55, 70_000),
        ("gaussian", "closed_form", 0.56, 4_700_000),
    ]
    frame = DataFrame(rows, columns=["condition", "method", "fvu", "stored"])
    return frame.assign(
        layer=15, seed=0, n_active=64, low=frame["fvu"] - 0.01, high=frame["fvu"] + 0.02, n_tokens=9_000, n_sinks=3
    )


def ratios() -> DataFrame:
    rows = [("real", 1.5, 0.60, 0.40), ("gaussian", 0.98, 0.55, 0.56)]
    frame = DataFrame(rows, columns=["condition", "ratio", "fvu_dense", "fvu"])
    return frame.assign(
        layer=15, method="closed_form", n_experts=64, n_active=64, seed=0, low=frame["ratio"] - 0.1,
        high=frame["ratio"] + 0.1, stored=4_700_000, n_tokens=9_000, n_documents=20,
    )  # fmt: skip


def test_figures_show_ratio_beside_level_and_real_beside_gaussian() -> None:
    caption = figures.ratios_caption(ratios())
    assert "(real) 1.50 = 0.600 / 0.400, 4,700,000 parameters stored" in caption and "(Gaussian) 0.98" in caption
    figure = figures.ratios(ratios())
    assert [trace.y[0] for trace in figure.data] == [1.5, 0.98]
    levels = figures.levels(students())
    assert [trace.y[0] for trace in levels.data] == [0.60, 0.55, 0.40, 0.56]
    assert levels.data[1].marker.symbol.endswith("-open")
    assert "9,000 tokens" in figures.levels_caption(students()) and "3 attention sinks" in figures.levels_caption(
        students()
    )
    with pytest.raises(ValueError, match="lacks the columns"):
        figures.losses(ratios())


def test_page_shows_a_run_and_helps_without_one(runs_folder: Path) -> None:
    empty = show("secret")
    assert not empty.exception and "sparsescope probe secret" in words(empty)
    run = create("found", {}, kind="probe.secret", root_folder=runs_folder)
    gap = {"layer": 15, "condition": "gaussian", "gap": 0.52, "low": 0.4, "high": 0.6, "n_documents": 20, "n_seeds": 3}
    run.save_tables({"secret": students(), "secret_ratios": ratios(), "secret_gaps": DataFrame([gap])})
    test = show("secret", run="found")
    assert not test.exception and not test.error
    assert find("secret-ratios").title in words(test)
    assert test.metric[0].value == "+0.52"


def test_verb_fits_keeps_and_exports(runs_folder: Path, tmp_path: Path) -> None:
    from tests.probes.tiny import SENTENCES, tiny_hf
    from toymodels.language_models import save, train_tokenizer

    tokenizer: Any = train_tokenizer(SENTENCES, 300, tmp_path / "tokenizer")
    save(tiny_hf(seed=5), tokenizer, tmp_path / "model")
    text = tmp_path / "text"
    text.mkdir()
    for number in range(12):
        (text / f"{number}.txt").write_text(" ".join(SENTENCES[(number + i) % 4] for i in range(6)))
    model = ["--model", str(tmp_path / "model"), "--corpus", str(text), "--layer", "1"]
    asked = ["probe", "secret", *model, "--n-experts", "4", "--n-active", "8", "--steps", "20", "--tokens", "2000"]
    done = CliRunner().invoke(cli, [*asked, "--name", "s", "--export", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    run = open_run("s", runs_folder)
    assert set(run.table("secret")["condition"]) == {"real", "gaussian"} and "student_1" in run.tensor_names()
    assert set(run.table("secret_losses")["replaced_by"]) == {"nothing", "teacher", "student", "mean", "zero"}
    assert (tmp_path / "out" / "config.json").exists() and not (run.path / "inputs").exists()
    wrong = CliRunner().invoke(cli, [*asked[:-1], "2000", "--layer", "9", "--name", "t"])
    assert wrong.exit_code == 2 and "9" in wrong.stderr and "Traceback" not in wrong.output
