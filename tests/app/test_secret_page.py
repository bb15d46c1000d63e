"""Secret experts: figures against their frames, page on a run, verb on a tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest
from pandas import DataFrame, concat
from typer.testing import CliRunner

import data
from app.claims import NOT_YET, judge
from app.cli import cli
from app.figures import secret as figures
from app.figures.catalogue import find
from app.figures.secret_curves import curves as drawn
from app.figures.secret_curves import curves_caption
from data import runs
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
    # the ratio stands beside the level, and what sinks do to it
    assert "0.400, 4,700,000 parameters stored, dense over it 1.50" in levels.layout.meta["alt"]
    among = figures.levels_caption(students().assign(fvu_with_sinks=0.25))
    assert f"left out (where there are any: {students()['fvu'].mean():.3f}, and 0.250 with them)" in among
    with pytest.raises(ValueError, match="lacks the columns"):
        figures.losses(ratios())


def test_tables_of_cells_say_what_they_store_and_how_many_cells_are_used() -> None:
    rows = [
        ("real", 64, 60, 0.9),
        ("real", 4_096, 2_000, 0.7),
        ("gaussian", 64, 64, 0.95),
        ("gaussian", 4_096, 9, 0.94),
    ]
    frame = DataFrame(rows, columns=["condition", "n_cells", "used", "fvu"])
    frame = frame.assign(layer=3, what="constants", low=frame["fvu"], high=frame["fvu"], stored=10 * frame["n_cells"])
    caption = figures.cells_caption(frame.assign(n_train=1_000, n_tokens=200))
    assert "(real) 0.900 at 64 to 0.700 at 4096 cells, 640 to 40,960 parameters stored, 2,000 cells used" in caption
    assert "40,960 parameters stored, 9 cells used" in caption


def test_curves_have_a_panel_for_each_setting_that_varied() -> None:
    rows = [
        ("n_experts", value, "closed_form", condition, 0.5 - 0.02 * number + 0.1 * (condition == "gaussian"))
        for number, value in enumerate((16, 64, 256))
        for condition in ("real", "gaussian")
    ]
    rows += [("n_active", value, method, "real", 0.5) for value in (32, 64) for method in ("dense", "closed_form")]
    frame = DataFrame(rows, columns=["axis", "value", "method", "condition", "fvu"]).assign(
        layer=15, stored=4_700_000, n_tokens=9_000
    )
    frame = frame.assign(low=frame["fvu"] - 0.01, high=frame["fvu"] + 0.01)
    figure = drawn(frame)
    assert [axis.title.text for axis in (figure.layout.xaxis, figure.layout.xaxis2)] == ["Experts", "Active neurons"]
    first = next(t for t in figure.data if t.xaxis == "x" and "Gaussian" not in t.name)
    assert list(first.x) == [16, 64, 256] and list(first.y) == pytest.approx([0.5, 0.48, 0.46])
    # one entry in the legend for what is in both panels
    assert sum(trace.showlegend for trace in figure.data) == 3
    assert "experts 16 to 256, mixture, closed form, layer 15 (real): 0.500 to 0.460" in curves_caption(frame)


def test_the_point_asked_for_first_is_what_levels_and_ratios_show() -> None:
    more = ratios().assign(n_experts=16, ratio=9.0)
    both = concat([ratios(), more], ignore_index=True)
    assert figures.ratios_caption(both) == figures.ratios_caption(ratios())
    assert [trace.y[0] for trace in figures.ratios(both).data] == [1.5, 0.98]


def test_form_starts_a_job_with_what_it_asks(runs_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr("app.jobs.start", started.append)
    test = show("secret")
    by = {field.label: field for field in (*test.text_input, *test.number_input)}
    by["Layers"].set_value("3 5")
    by["Curve over experts"].set_value("16 x")
    test.button[0].click().run()
    assert not started and "16 x" in test.error[0].value and "like 16 256" in test.error[0].value
    by = {field.label: field for field in (*test.text_input, *test.number_input)}
    by["Curve over experts"].set_value("16 256")
    by["Seeds"].set_value(2)
    test.button[0].click().run()
    assert not test.exception
    settings = started[0].settings
    assert settings["layers"] == [3, 5] and settings["more_experts"] == [16, 256] and settings["seeds"] == [0, 1]
    assert settings["more_k"] == [] and settings["kind"] == "probe.secret"


def test_page_shows_a_run_and_helps_without_one(runs_folder: Path) -> None:
    empty = show("secret")
    assert not empty.exception and "sparsescope probe secret" in words(empty)
    run = create("found", {}, kind="probe.secret", root_folder=runs_folder)
    point = {"method": "closed_form", "n_experts": 64, "n_active": 64, "k": 1}
    gap = point | {
        "layer": 15,
        "condition": "gaussian",
        "gap": 0.52,
        "low": 0.4,
        "high": 0.6,
        "n_documents": 20,
        "n_seeds": 3,
    }
    run.save_tables({"secret": students(), "secret_ratios": ratios(), "secret_gaps": DataFrame([gap])})
    test = show("secret", run="found")
    assert not test.exception and not test.error
    assert find("secret-ratios").title in words(test)
    assert test.metric[0].value == "+0.52"


def test_the_run_that_ships_opens_and_decides_the_claims(
    runs_folder: Path, nothing_ships: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "SHIPPED", Path(data.__file__).parent / "bundled" / "runs")
    held = open_run("smollm2-secret")
    test = show("secret", run=held.name)
    assert not test.exception and not test.error and len(test.metric) == 3
    tables, found = held.tables(), judge(held.tables())
    gaps = tables["secret_gaps"]
    assert set(gaps["layer"]) == {3, 15, 27} and (gaps["n_seeds"] == 3).all()
    for name in ("mlps-are-secret-mixtures", "not-on-gaussian-data", "secret-mixtures-pay-for-their-router"):
        assert found[name].verdict != NOT_YET, found[name].measured
    assert sum(file.stat().st_size for file in held.path.iterdir()) < 1_000_000


def test_curves_ship_with_their_page(runs_folder: Path, nothing_ships: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SHIPPED", Path(data.__file__).parent / "bundled" / "runs")
    test = show("secret", run="smollm2-secret-curves")
    assert not test.exception and not test.error
    assert find("secret-curves").title in words(test)
    ratio = (
        open_run("smollm2-secret-curves").table("secret_ratios").query("n_experts == 64 and n_active == 64 and k == 1")
    )
    level = ratio.set_index("condition")["ratio"]
    assert [metric.value for metric in test.metric] == [
        f"{level['real'] - level['gaussian']:+.2f}"
    ]  # at the main point
    curves = open_run("smollm2-secret-curves").table("secret_curves").query("method == 'closed_form'")
    along = curves.query("axis == 'n_experts'").pivot_table(index="value", columns="condition", values="fvu")
    assert list(along.index) == [4, 16, 64, 256]
    # more experts explain more of real activations, and of Gaussian ones no more
    assert (along["real"].diff().dropna() < 0).all() and along["gaussian"].iloc[-1] > along["gaussian"].iloc[0]


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
    asked += ["--more-experts", "2", "--more-active", "12", "--more-k", "2"]
    done = CliRunner().invoke(cli, [*asked, "--name", "s", "--export", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    run = open_run("s", runs_folder)
    assert set(run.table("secret")["condition"]) == {"real", "gaussian"} and "student_1" in run.tensor_names()
    assert set(run.table("secret_losses")["replaced_by"]) == {"nothing", "teacher", "student", "mean", "zero"}
    assert not (run.path / "inputs").exists()
    # the mixture asked for is the one kept and exported, not one of a curve
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == "sparsescope_secret_mixture" and set(config["mixtures"]) == {"1"}
    assert (config["mixtures"]["1"]["n_experts"], config["mixtures"]["1"]["rank"]) == (4, 8)
    along = run.table("secret_curves").query("condition == 'real' and method == 'closed_form'")
    assert {axis: sorted(rows["value"]) for axis, rows in along.groupby("axis")} == {
        "n_experts": [2, 4], "n_active": [8, 12], "k": [1, 2],
    }  # fmt: skip
    # 4 experts cost 4 (d + 1) more to choose from: a dense block of 12 neurons is the smallest that costs as much
    verdicts = run.table("secret_counted").query("n_experts == 4 and k == 1 and n_active == 8")
    assert set(verdicts["n_active_dense"]) == {12}
    assert (verdicts["active_dense"] >= verdicts["active_with_router"]).all()
    again = CliRunner().invoke(cli, ["probe", "experts", *model[:4], "--secret-experts", "s", "--tokens", "1500",
                                     "--permutations", "5", "--no-word-classes", "--name", "read"])  # fmt: skip
    assert again.exit_code == 0, again.output
    load = open_run("read", runs_folder).table("load").query("condition == 'real'")
    assert set(load["layer"]) == {1} and len(load) == 4
    wrong = CliRunner().invoke(cli, [*asked[:-1], "2000", "--layer", "9", "--name", "t"])
    assert wrong.exit_code == 2 and "9" in wrong.stderr and "Traceback" not in wrong.output


def test_many_conditions_share_a_legend_of_students_and_shapes() -> None:
    held = figures.CONDITIONS
    few, many = (
        concat([students().query("condition == 'real'").assign(condition=c) for c in conditions])
        for conditions in (("real", "gaussian"), held)
    )
    methods = students()["method"].nunique()
    for table, entries in ((few, 2 * methods), (many, methods + len(held))):
        assert sum(trace.showlegend is not False for trace in figures.levels(table).data) == entries
    shapes = {t.marker.symbol for t in figures.levels(many).data}
    assert len(shapes) >= len(held)
