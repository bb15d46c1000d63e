"""Every page on a run, on an empty folder, and on what can go wrong with either."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import app
from data import Run
from data.runs import create

PAGES = sorted(path.stem for path in (Path(app.__file__).parent / "pages").glob("*.py") if path.stem != "__init__")
MINE = ("overview", "sparsity", "runs", "jobs")


def show(page: str, **query: str) -> AppTest:
    test = AppTest.from_file(str(Path(app.__file__).parent / "pages" / f"{page}.py"), default_timeout=60)
    for key, value in query.items():
        test.query_params[key] = value
    return test.run()


def words(test: AppTest) -> str:
    shown = [
        *test.title,
        *test.header,
        *test.subheader,
        *test.markdown,
        *test.caption,
        *test.error,
        *test.warning,
        *test.code,
    ]
    return "\n".join(str(element.value) for element in shown)


@pytest.mark.parametrize("page", MINE)
def test_page_shows_a_run(page: str, run: Run) -> None:
    test = show(page)
    assert not test.exception and not test.error
    assert test.title


@pytest.mark.parametrize("page", MINE)
def test_empty_folder_is_no_error_and_names_what_to_do(page: str, runs_folder: Path) -> None:
    test = show(page)
    assert not test.exception and not test.error
    assert "sparsescope" in words(test) or "Start" in words(test)


def test_sparsity_states_numbers_controls_intervals_and_sample_size(run: Run) -> None:
    text = words(show("sparsity"))
    assert "95\\% bootstrap intervals over documents" in text
    assert "2\\,000 tokens" in text
    metrics = {m.label: m for m in show("sparsity").metric}
    assert metrics["trained, real text"].value == "40.5%"
    assert metrics["random weights"].value == "52.5%"
    assert metrics["random weights"].delta == "+12.0 points"


def test_choosing_a_measure_changes_the_numbers(run: Run) -> None:
    test = show("sparsity")
    test.selectbox(key="measure").set_value("energy_top10").run()
    assert test.metric[0].value == "82.5%"
    assert not test.exception


def test_a_link_opens_what_it_names(run: Run) -> None:
    later = create("later", {"model": "x"}, kind="probe.sparsity", root_folder=run.path.parent)
    later.save_tables(run.tables())
    assert show("sparsity").selectbox(key="run").value == "later"
    linked = show("sparsity", run="first", measure="energy_top1", sinks="with", layer="2")
    assert linked.selectbox(key="run").value == "first"
    assert linked.selectbox(key="measure").value == "energy_top1"
    assert linked.selectbox(key="layer").value == "2"
    assert linked.metric[0].value == "32.5%"


def test_a_link_to_a_run_that_is_gone_says_so_and_shows_another(run: Run) -> None:
    test = show("sparsity", run="<b>gone</b>")
    assert "not in the folder" in test.warning[0].value
    assert "<b>" not in test.warning[0].value
    assert test.selectbox(key="run").value == "first"
    assert test.query_params["run"] in ("first", ["first"])


def test_half_a_run_shows_what_there_is(run: Run) -> None:
    (run.path / "neurons.parquet").unlink()
    (run.path / "sinks.parquet").unlink()
    run.report("running", 1, 4, "shard 1")
    test = show("sparsity")
    assert not test.exception
    assert test.metric[0].value == "40.5%"


def test_a_damaged_table_is_one_sentence(run: Run) -> None:
    (run.path / "sinks.parquet").write_bytes(b"broken")
    test = show("sparsity")
    assert not test.exception
    assert any("sinks" in error.value and "cannot be read" in error.value for error in test.error)


@pytest.mark.parametrize("page", MINE)
def test_markup_in_settings_and_errors_stays_text(page: str, run: Run) -> None:
    nasty = "<script>alert(1)</script> **bold** [x](http://evil) :material/home: $x^2$ :red[y]"
    made = create("nasty", {"model": nasty, "corpus": nasty}, kind="probe.sparsity", root_folder=run.path.parent)
    made.save_tables(run.tables())
    (made.path / "log.txt").write_text(nasty)
    made.report("failed", error=nasty, note=nasty)
    test = show(page)
    assert not test.exception
    for element in [*test.markdown, *test.error, *test.caption, *test.warning]:
        assert "<script>" not in element.value
        assert "[x](" not in element.value
        assert "$x" not in element.value.replace("\\$", "")


def test_overview_lists_parts_of_a_demo_as_they_stand(run: Run) -> None:
    from pandas import DataFrame

    rows = [("toy", "Toy", "done", 3.0, ""), ("sparsity", "Sparsity", "failed", None, "no <network>")]
    run.save_table("parts", DataFrame(rows, columns=["part", "title", "state", "seconds", "error"]))
    text = words(show("overview"))
    assert "Toy (done, 3 s)" in text
    assert "no \\<network\\>" in text


def test_runs_compares_settings(run: Run) -> None:
    create(
        "other",
        {"model": "smollm2-135m", "corpus": "sotu", "n_tokens": 5},
        kind="probe.sparsity",
        root_folder=run.path.parent,
    )
    test = show("runs", run="first", **{"with": "other"})
    differing = next(table.value for table in test.dataframe if "setting" in table.value.columns)
    assert differing.to_dict("records") == [{"setting": "n_tokens", "first": "2000", "other": "5"}]


def test_jobs_page_refuses_what_cannot_be_started(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from app import jobs
    from data import RunError

    def refuse(run: Run) -> int:
        raise RunError("already being worked on")

    monkeypatch.setattr(jobs, "start", refuse)
    test = show("jobs")
    test.button(key="FormSubmitter:sparsity-Start").click().run()
    assert test.error[0].value == "already being worked on"
    assert not test.exception


def test_jobs_page_starts_every_probe_with_settings_its_work_reads(
    runs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app import jobs
    from app.startable import PROBES

    begun: list[Run] = []
    monkeypatch.setattr(jobs, "start", lambda run: begun.append(run) or 1)
    for name, probe in PROBES.items():
        test = show("jobs")
        test.selectbox(key="probe").set_value(name).run()
        test.number_input[0].set_value(7)
        test.button(key=f"FormSubmitter:{name}-Start").click().run()
        assert not test.exception and not test.error
        run = begun[-1]
        assert run.kind == f"probe.{name}" and run.kind in jobs.WORK
        made = probe.config.model_validate(run.asked)
        assert 7 in (getattr(made, "n_tokens", 0), getattr(made, "n_windows", 0)) or made.sae.n_tokens == 7
    test = show("jobs")
    test.button(key="FormSubmitter:emergence-Start").click().run()
    assert begun[-1].kind == "emergence.two_layer" and len(begun) == len(PROBES) + 1


def test_a_dead_job_is_told_and_offered_again(run: Run) -> None:
    (run.path / "log.txt").write_text("last words")
    run.report("running", 1, 4, "counting", pid=2**22 + 1)
    test = show("jobs")
    assert "ended without saying why" in test.error[0].value
    assert test.button(key="again-first")
    assert "last words" in [code.value for code in test.code]
