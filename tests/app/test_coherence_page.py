"""The coherence page, its figures and its verbs, on a small frame's run."""

import contextlib
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from app import jobs
from app.coherence import CoherenceConfig, distinct, work
from app.commands.coherence import verbs
from app.figures import coherence as figures
from app.routers import SeparabilityConfig, separate
from data.progress import Cancelled, silent
from data.runs import Run, create
from tests.probes.conftest import tokenizer  # noqa: F401  a fixture

PAGE = Path(__file__).parents[2] / "app" / "pages" / "coherence.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    config = CoherenceConfig(
        dictionaries=("frame:dirac-hadamard:16", "frame:random:24x48"), methods=("thresholding",), trials=80
    )
    run = create("small", config, kind="probe.coherence", root_folder=folder, seed=0)
    work(run, silent)
    run.report("done", 1, 1)
    return folder


@pytest.fixture
def run(made: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(made))
    return Run(made / "small")


def test_tables_hold_both_dictionaries_and_their_controls(run: Run) -> None:
    rows = run.table("coherence").set_index(["dictionary", "condition"])
    assert rows.loc[("frame:dirac-hadamard:16", "real"), "mu"] == pytest.approx(0.25)
    assert rows.loc[("frame:dirac-hadamard:16", "real"), "k_guaranteed"] == 2
    assert set(rows.index.get_level_values("condition")) == {"real", "centred", "random"}
    bars = run.table("recovery_bars").query("condition == 'real'").set_index(["dictionary", "bar"])["k"]
    assert bars[("frame:dirac-hadamard:16", "thresholding")] >= 2


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("entry", figures.FIGURES[:4], ids=lambda e: e.name)
def test_figures_show_the_numbers_of_their_tables(run: Run, entry, dark: bool) -> None:
    tables = {name: run.table(name) for name in entry.needs}
    drawn = entry.draw(tables, dark=dark)
    assert isinstance(drawn, go.Figure) and drawn.data
    plotted = entry.plotted(tables)
    assert set(plotted["dictionary"]) == {"frame:dirac-hadamard:16"}
    column = {"coherence-bars": "k", "coherence-recovery": "rate", "coherence-nearest": "cosine"}.get(
        entry.name, "babel"
    )
    real = plotted.query("condition == 'real'")[column].abs()
    shown = [
        v for t in drawn.data for values in (t.x, t.y) if values is not None for v in values if not isinstance(v, str)
    ]
    for value in real:
        assert np.isclose(np.array(shown, dtype=float), max(value, 0.5) if column == "k" else value).any()
    assert "frame:dirac-hadamard:16" in entry.caption(tables)


def test_separability_is_drawn() -> None:
    frame = pd.DataFrame(
        [(0.2, 2, s, 1.0, 100, 0.8, 0.7, 0.9, 0.1, 0.1) for s in ("positive", "random")],
        columns=["mu", "k", "signs", "noise", "n_tokens", "accuracy", "low", "high", "null", "chance"],
    )
    assert [t.y[0] for t in figures.separable(frame).data] == [0.8, 0.8]
    with pytest.raises(ValueError, match="no dictionary 'x'"):
        figures.one(pd.DataFrame({"dictionary": ["a"]}), "x")


def test_page_shows_the_run_and_changes_dictionary(run: Run) -> None:
    page = AppTest.from_file(str(PAGE), default_timeout=60).run()
    assert not page.exception
    assert {m.label: m.value for m in page.metric}["Coherence mu"] == "0.250"
    page.selectbox(key="dictionary").set_value("frame:random:24x48").run()
    assert not page.exception and not page.error
    assert {m.label: m.value for m in page.metric}["Coherence mu"] != "0.250"
    page.text_input(key="feature").set_value("column 3").run()
    assert not page.exception


def test_page_without_runs_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path))
    page = AppTest.from_file(str(PAGE), default_timeout=60).run()
    assert not page.exception
    assert any("sparsescope coherence measure" in block.value for block in page.code)


def test_verbs_print_the_bars_or_one_sentence(tmp_path: Path) -> None:
    tell = CliRunner()
    out = tmp_path / "run"
    done = tell.invoke(verbs, ["measure", "frame:icosahedron", "--method", "omp", "--trials", "20", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "0.4472" in done.output and "guaranteed" in done.output
    assert Run(out).progress["state"] == "done"
    for wrong in (
        ["measure", "frame:nothing"],
        ["measure", str(tmp_path / "no.npy")],
        ["measure", "x#y", "--method", "z"],
    ):
        failed = tell.invoke(verbs, [*wrong, "--out", str(tmp_path / "other")])
        assert failed.exit_code == 2 and "Traceback" not in failed.output
    for option, value in (("dynamic-range", "0.5"), ("noise", "-1"), ("trials", "0")):
        place = tmp_path / "never"
        failed = tell.invoke(verbs, ["measure", "no-such-model#x", f"--{option}", value, "--out", str(place)])
        assert failed.exit_code == 2 and option.replace("-", "_") in failed.output and not place.exists()
    shown = tell.invoke(verbs, ["bounds", "576", "1536"])
    assert "0.0330" in shown.output


def test_separability_is_measured_and_drawn(tmp_path: Path) -> None:
    out = tmp_path / "run"
    small = ["separability", "--n-clusters", "4", "--k", "2", "--k", "4", "--shared", "0", "--n-tokens", "400"]
    done = CliRunner().invoke(verbs, [*small, "--out", str(out)])
    assert done.exit_code == 0, done.output
    table = Run(out).table("separability")
    assert len(table) == 4 and set(table["k"]) == {2, 4} and Run(out).progress["state"] == "done"
    (entry,) = [e for e in figures.FIGURES if e.name == "coherence-separability"]
    drawn = entry.draw({"separability": table})
    assert sorted(y for t in drawn.data for y in t.y) == sorted(table["accuracy"])
    assert jobs.WORK[Run(out).kind] == "app.routers:separate"
    for wrong, words in (
        (["--k", "200"], "n_features >= 400"),
        (["--shared", "2"], "shared"),
        (["--noise", "-1"], "noise"),
    ):
        failed = CliRunner().invoke(verbs, ["separability", *wrong, "--out", str(tmp_path / "never")])
        assert failed.exit_code == 2 and words in failed.output and not (tmp_path / "never").exists()


def test_a_killed_measurement_ends_with_the_same_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from probes import scan

    monkeypatch.setattr(scan, "EVERY", 0.0)
    rng = np.random.default_rng(0)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "V.npy", rng.standard_normal((12, 900)))
    texts = (str(tmp_path / "a" / "V.npy"), str(tmp_path / "b" / "V.npy"), "frame:icosahedron")
    config = CoherenceConfig(dictionaries=texts, methods=("thresholding",), trials=40)
    whole = create("whole", config, kind="probe.coherence", root_folder=tmp_path)
    work(whole, silent)
    killed = create("killed", config, kind="probe.coherence", root_folder=tmp_path)
    calls = []

    for last in (3, 40, 75, 110):  # within a scan, after it, in a control, in the last dictionary

        def stop(done: float, total: float, note: str = "", last: int = last) -> None:
            calls.append(done)
            if len(calls) >= last:
                raise Cancelled

        calls.clear()
        with contextlib.suppress(Cancelled):
            work(killed, stop)
    work(killed, silent)
    assert killed.table_names() == whole.table_names()
    for name in whole.table_names():
        pd.testing.assert_frame_equal(killed.table(name), whole.table(name))
    assert set(whole.table("coherence")["dictionary"]) == set(texts)
    assert not killed.tensor_names()


def test_names_are_short_until_they_clash(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "V.npy", np.eye(2))
    a, b = str(tmp_path / "a" / "V.npy"), str(tmp_path / "b" / "V.npy")
    assert list(distinct([a, "frame:icosahedron"]).values()) == ["V.npy", "frame:icosahedron"]
    assert list(distinct([a, b]).values()) == [a, b]
    with pytest.raises(ValueError, match="named twice"):
        CoherenceConfig(dictionaries=(a, a))


def test_supports_noise_and_one_support_reach_the_tables(tmp_path: Path) -> None:
    together = np.array([[0, 1, -1], [2, 3, 4], [5, 6, -1]])
    np.savetxt(tmp_path / "together.csv", together, delimiter=",", fmt="%d")
    config = CoherenceConfig(
        dictionaries=("frame:random:16x40",), methods=("thresholding",), trials=60, noise=0.3,
        supports=str(tmp_path / "together.csv"), support=(1, 4),
    )  # fmt: skip
    run = create("supports", config, kind="probe.coherence", root_folder=tmp_path)
    work(run, silent)
    rates = run.table("recovery")
    assert set(rates["supports"]) == {"given"} and set(rates["noise"]) == {0.3} and rates["k"].max() <= 3
    from probes import coherence, frames

    real = run.table("coherence").set_index("condition").loc["real", "erc"]
    assert real == pytest.approx(coherence.exact_recovery(frames.random_directions(16, 40, seed=0), [1, 4]))


def test_a_models_routers_are_read_drawn_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer) -> None:  # noqa: F811
    from app.figures.coherence_routers import FIGURES as ROUTERS
    from tests.probes.tiny import tiny_hf

    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path))
    folder = tmp_path / "moe"
    tiny_hf("olmoe", num_experts=8, num_experts_per_tok=2, num_hidden_layers=2).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    done = CliRunner().invoke(verbs, ["router", str(folder), "--tokens", "300", "--trials", "40"])
    assert done.exit_code == 0, done.output
    assert "random router" in done.output
    [run] = [Run(path.parent) for path in tmp_path.glob("router-*/settings.json")]
    held = {name: run.table(name) for name in run.table_names()}
    drawn = ROUTERS[0].draw(held)
    own = held["router_reading"].query("router == 'router'")
    assert list(drawn.data[0].y) == list(own["mu"])
    assert list(drawn.data[-1].y) == [1 / 3, 1 / 3]
    assert f"in {int(own['certified'].sum())} of them" in ROUTERS[0].caption(held)
    refused = CliRunner().invoke(verbs, ["router", str(folder), "--layer", "7"])
    assert refused.exit_code == 2

    page = AppTest.from_file(str(PAGE), default_timeout=240).run()
    page.segmented_control[0].set_value("Routers").run()
    assert not page.exception and any("Routers as dictionaries" in s.value for s in page.subheader)


def test_a_stopped_separability_goes_on(tmp_path: Path) -> None:
    config = SeparabilityConfig(ks=(1, 2), shared=(0.0, 0.5), n_clusters=4, n_tokens=200)
    whole, stopped = (create(n, config, kind="probe.separability", root_folder=tmp_path) for n in ("whole", "stopped"))
    separate(whole, silent)
    cells: list[float] = []

    def stop(done: float, total: float, note: str = "") -> None:
        cells.append(done)
        if done == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        separate(stopped, stop)
    assert len(stopped.table("separability")) == 5
    cells.clear()
    separate(stopped, lambda done, total, note="": cells.append(done))
    assert cells[0] == 5
    pd.testing.assert_frame_equal(stopped.table("separability"), whole.table("separability"))
