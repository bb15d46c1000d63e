"""The toy lab on real small runs: each experiment, its settings in the address, cancelling, and bad input."""

import time
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import app
from app import toy_lab
from data.progress import Cancelled
from data.runs import list_runs
from data.tables import Tables
from toymodels import ToyConfig

PAGE = Path(app.__file__).parent / "pages" / "toy_lab.py"


def show(**query: str) -> AppTest:
    test = AppTest.from_file(str(PAGE), default_timeout=60)
    for key, value in query.items():
        test.query_params[key] = value
    return test.run()


def finish(test: AppTest, view: str) -> AppTest:
    test.button(key=f"run-{view}").click().run()
    work = test.session_state[f"work-{view}"][1]
    work.join(60)
    return test.run()


def words(test: AppTest) -> str:
    shown = [*test.caption, *test.markdown, *test.error, *test.warning, *test.info, *test.success]
    return "\n".join(str(element.value) for element in shown).replace("\\", "")


def test_the_page_opens_alone_and_says_what_to_do() -> None:
    test = show()
    assert not test.exception and not test.error
    assert "press Run" in words(test)


def test_one_model_is_trained_named_and_shown() -> None:
    test = finish(show(steps="2000", seeds="4"), "model")
    assert not test.exception and not test.error
    metrics = {m.label: m.value for m in test.metric}
    assert metrics["Geometry"] == "pentagon"
    assert float(metrics["Dimensions per feature, D*"]) == pytest.approx(0.31, abs=0.05)
    assert "lowest loss of 4 seeds" in words(test)
    tables = test.session_state["work-model"][1].result
    assert {"toy_film", "toy_features", "toy_matrices", "toy_dynamics", "toy_losses"} <= set(tables)
    np.testing.assert_allclose(tables["toy_features"]["dimensionality"], 0.4, atol=0.03)


def test_settings_come_from_the_address() -> None:
    test = show(n="7", m="4", p="0.5", importance="0.9", together="one_active", steps="200", seeds="1", kind="linear")
    finish(test, "model")
    asked = test.session_state["work-model"][0]
    assert asked == toy_lab.OneModel(
        toy=ToyConfig(
            n_features=7,
            d_hidden=4,
            feature_probability=0.5,
            importance=0.9,
            features="one_active",
            model="linear",
            steps=200,
        ),
        seeds=1,
    )
    assert not test.exception and not test.error
    assert "toy_film" not in test.session_state["work-model"][1].result


@pytest.mark.parametrize("name", toy_lab.PRESETS)
def test_every_preset_fills_the_widgets(name: str) -> None:
    test = show()
    test.selectbox(key="preset").select(name).run()
    assert not test.exception and not test.error
    test.select_slider(key="steps").set_value(200).run()
    test.slider(key="seeds").set_value(1).run()
    finish(test, "model")
    assert not test.exception and not test.error
    wanted = toy_lab.PRESETS[name].lab.toy
    assert test.session_state["work-model"][0].toy == wanted.model_copy(update={"steps": 200})


def test_a_changed_setting_is_told_apart_from_what_was_measured() -> None:
    test = finish(show(steps="200", seeds="1"), "model")
    test.slider(key="n").set_value(6).run()
    assert "settings before" in words(test)


def test_the_staircase_and_its_tables() -> None:
    test = finish(show(view="staircase", sn="12", sm="3", sd="3", ss="500", sk="1"), "staircase")
    assert not test.exception and not test.error
    assert len(test.session_state["work-staircase"][1].result["toy_room"]) == 3


def test_the_phase_diagram_and_its_agreement() -> None:
    test = finish(show(view="phase", pr="8"), "phase")
    assert not test.exception and not test.error
    metrics = {m.label: m.value for m in test.metric}
    assert metrics["Off the boundary"] == "100.0%"
    assert 40 <= float(metrics["Single starts (control)"].rstrip("%")) <= 95


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"p": "often"}, "'often' is not a number"),
        ({"p": "1.5"}, "give a number from 0 to 1"),
        ({"p": "0.1, 0.2"}, "2 values for 5 features"),
        ({"together": "correlated", "n": "5"}, "do not divide 5"),
        ({"importance": "-1"}, "give a ratio above 0"),
    ],
)
def test_bad_input_gets_a_sentence_and_no_run(query: dict[str, str], sentence: str) -> None:
    test = show(**query)
    assert not test.exception
    assert sentence in words(test)
    assert test.button(key="run-model").disabled


def test_a_run_can_be_cancelled() -> None:
    test = show(n="100", m="20", steps="20000", seeds="50")
    test.button(key="run-model").click().run()
    work = test.session_state["work-model"][1]
    assert work.running
    test.button(key="cancel-model").click().run()
    work.join(30)
    test.run()
    assert work.cancelled
    assert "Cancelled" in words(test)
    assert not test.exception


def test_what_was_measured_can_be_kept_as_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path))
    test = finish(show(steps="200", seeds="1"), "model")
    test.button(key="keep-model").click().run()
    assert not test.exception and not test.error
    (run,) = list_runs(tmp_path)
    assert run.kind == "toy.model"
    assert set(run.table_names()) == set(test.session_state["work-model"][1].result)


def test_background_work_tells_how_far_it_is_and_stops_when_asked() -> None:
    def slow(progress) -> Tables:
        for i in range(1000):
            progress(i, 1000, "step")
            time.sleep(0.005)
        return Tables()

    work = toy_lab.Background(slow)
    time.sleep(0.1)
    assert work.running and 0 < work.done < 1
    work.cancel()
    assert not work.running and work.cancelled and work.result is None


def test_background_work_keeps_its_error() -> None:
    def wrong(progress) -> Tables:
        raise ValueError("no such model")

    work = toy_lab.Background(wrong)
    work.join()
    assert str(work.error) == "no such model" and not work.cancelled
    assert not isinstance(work.error, Cancelled)


@pytest.mark.parametrize(("text", "value"), [("0.05", 0.05), ("1, .5 ,0.1", (1.0, 0.5, 0.1)), ("1e-2;2", (0.01, 2.0))])
def test_numbers_are_read_and_written(text: str, value: float | tuple[float, ...]) -> None:
    assert toy_lab.numbers(text, "p") == value
    assert toy_lab.numbers(toy_lab.written(value), "p") == value
