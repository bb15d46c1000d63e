"""The experiment on snapshots, its figures, pages and verbs."""

from pathlib import Path

import numpy as np
import pytest
from pandas import DataFrame
from typer.testing import CliRunner

from app.cli import cli
from app.experiments import LITTLE, EmergenceRun, emergence
from app.figures import catalogue
from app.figures import emergence as figures
from app.figures import emergence_snapshots as snapshots
from data import Tables
from data.corpus import Corpus, Document
from data.runs import create, open_run
from tests.app.test_pages import show, words
from toymodels.language_config import LanguageConfig

PHRASE = "the river bends slowly past old stone mills while seven grey herons wait among tall green reeds"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    rng = np.random.default_rng(0)
    text = [" ".join(rng.choice(PHRASE.split(), 200)) for _ in range(20)]
    return Corpus.of("herons", [Document(f"d{i}", t, "x", {}) for i, t in enumerate(text)])


@pytest.fixture(scope="module")
def measured(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    little = {"d_model": 16, "d_mlp": 32, "n_heads": 2, "vocab_size": 320, "window": 32, "steps": 20, "snapshots": 2}
    model = LanguageConfig.model_validate(LITTLE.model_dump() | little)
    config = EmergenceRun(model=model, keep=0.25, late=0.5, n_tokens=300, seeds=2)
    return emergence(config, tmp_path_factory.mktemp("models"), corpus=corpus)


def two_layer() -> DataFrame:
    rows = [
        (name, "uniform", "random", seed, step, 0.5 - end * step + 0.01 * seed, 0.1, 1.0)
        for name, end in (("a", 0.004), ("b", 0.001))
        for seed in (0, 1)
        for step in (0, 50, 100)
    ]
    return DataFrame(rows, columns=["setting", "inputs", "labels", "seed", "step", "nonzero", "dead", "loss"])


def test_every_snapshot_is_measured_and_all_trainings_begin_alike(measured: Tables) -> None:
    table, losses = measured.emergence_snapshots, measured.emergence_losses
    assert set(table["variant"]) == {"all neurons", "top-k from the start", "top-k late"}
    assert set(table["measure"]) == {"firing_frequency", "energy_top10", "mutual_coherence", "features_per_dimension"}
    assert len(table) == 3 * 2 * 3 * 2 * 4  # variants, seeds, snapshots, layers, measures
    start = table[table["step"] == 0].pivot_table(index=["layer", "seed", "measure"], columns="variant", values="value")
    np.testing.assert_array_equal(start["all neurons"], start["top-k late"])
    np.testing.assert_array_equal(start["all neurons"], start["top-k from the start"])
    firing = table[(table["measure"] == "firing_frequency") & (table["step"] == 0)]["value"]
    assert firing.between(0.4, 0.6).all()  # random weights: half of the gates
    crowding = table[(table["measure"] == "features_per_dimension") & (table["step"] == 0)]
    # 32 random directions in 16 dimensions
    np.testing.assert_allclose(crowding["value"], crowding["chance"], rtol=0.1)
    keep = losses[losses["seed"] == 0].set_index(["variant", "step"])["keep"]
    assert keep["top-k late"].tolist() == [1.0, 1.0, 0.25] and set(keep["top-k from the start"]) == {0.25}


def test_of_a_mixture_the_routing_is_measured(corpus: Corpus, tmp_path: Path, runs_folder: Path) -> None:
    little = {"d_model": 16, "d_mlp": 16, "n_heads": 2, "vocab_size": 320, "window": 32, "steps": 4, "snapshots": 1}
    mixture = {"family": "olmoe", "n_experts": 4}
    model = LanguageConfig.model_validate(LITTLE.model_dump() | little | mixture)
    tables = emergence(EmergenceRun(model=model, n_tokens=300, seeds=2), tmp_path, corpus=corpus)
    table = tables.emergence_routing
    assert set(table["measure"]) == {"load_entropy", "saturation", "repeat_rate"} and len(table) == 2 * 3 * 2 * 2
    assert table["value"].between(0, 1).all() and table["chance"].between(0, 1).all()
    settled = table[table["measure"] == "saturation"].set_index(["step", "seed", "layer"])["value"]
    assert (settled[4] == 1).all() and (settled[0] < 1).any()
    run = create("mixture", {}, kind="emergence.training", root_folder=runs_folder)
    run.save_tables(tables)
    test = show("emergence", run="mixture")
    assert not test.exception and not test.error and "How evenly experts are used" in words(test)


def test_before_it_is_switched_on_the_late_top_k_changes_nothing(measured: Tables) -> None:
    losses = measured.emergence_losses.query("seed == 0").set_index(["variant", "step"])["loss"]
    assert losses["all neurons", 1] == losses["top-k late", 1] != losses["top-k from the start", 1]
    assert losses["all neurons", 20] != losses["top-k late", 20]


def test_figures_state_what_they_draw(measured: Tables) -> None:
    figure = figures.course(two_layer())
    line = next(t for t in figure.data if t.name == "a")
    np.testing.assert_allclose(line.y, [50.5, 30.5, 10.5])
    assert "a 50.5% to 10.5% [10.0%, 11.0%]" in figures.course_caption(two_layer())
    assert "2 seeds" in figures.course_caption(two_layer())
    rows = snapshots.select(measured.emergence_snapshots, "energy_top10")
    raw = measured.emergence_snapshots.query("variant == 'top-k late' and step == 20 and measure == 'energy_top10'")
    row = rows.query("variant == 'top-k late' and step == 20").iloc[0]
    assert row["value"] == pytest.approx(raw["value"].mean())
    by_seed = raw.groupby("seed")["value"].mean()
    assert row["n_seeds"] == 2 and (row["low"], row["high"]) == pytest.approx((by_seed.min(), by_seed.max()))
    drawn = snapshots.over_training(measured.emergence_snapshots, "energy_top10")
    late = next(t for t in drawn.data if t.name == "top-k late")
    assert late.y[-1] == pytest.approx(100 * row["value"]) and list(late.customdata) == [0, 1, 20]
    with pytest.raises(ValueError, match="no measure 'hoyer'"):
        snapshots.over_training(measured.emergence_snapshots, "hoyer")
    moved = DataFrame({"varied": "d", "value": ["1", "2"], "setting": "a", "end": [0.1, 0.3], "low": 0.1, "high": 0.3})
    assert "a between 10.0% and 30.0%" in figures.depends_caption(moved.assign(n_seeds=3))
    assert len(figures.depends(moved.assign(n_seeds=3)).data) == 1


def test_every_figure_has_a_caption_with_its_size(measured: Tables) -> None:
    for name, entry in catalogue.catalogue().items():
        if name.startswith("emergence-") and entry.drawable(measured):
            figure = entry.draw(measured, width="column")
            assert figure.layout.meta["alt"] == entry.caption(measured) and len(entry.plotted(measured))
    assert "held-out tokens a snapshot" in snapshots.caption(measured.emergence_snapshots)


def test_page_shows_either_experiment_and_helps_without_one(runs_folder: Path, measured: Tables) -> None:
    empty = show("emergence")
    assert not empty.exception and "sparsescope emergence training" in words(empty)
    first = create("trained", {}, kind="emergence.training", root_folder=runs_folder)
    first.save_tables(measured)
    second = create("layers", {}, kind="emergence.two_layer", root_folder=runs_folder)
    summary = DataFrame({"setting": ["a"], "start": [0.5], "end": [0.1]})
    second.save_tables({"emergence": two_layer(), "emergence_summary": summary})
    for name, heading in (("trained", "How many neurons fire, over training"), ("layers", "Where sparsity emerges")):
        test = show("emergence", run=name)
        assert not test.exception and not test.error and not test.warning
        assert heading in words(test)


def test_the_demos_part_leaves_the_tables_of_the_four_settings(runs_folder: Path) -> None:
    from app.demo import DemoConfig
    from app.experiments import demo

    run = create("demo", {}, kind="demo", root_folder=runs_folder)
    demo(run, DemoConfig(seed=4), lambda done, total, note="": None)
    assert sorted(run.table("emergence")["seed"].unique()) == [4, 5, 6]
    assert len(run.table("emergence_summary")) == 4


def test_verbs_measure_and_refuse_in_a_sentence(runs_folder: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(cli, ["emergence", "two-layer", "--seeds", "1", "--name", "four"])
    assert done.exit_code == 0 and "uniform inputs, random labels" in done.output
    assert {"emergence", "emergence_summary"} <= set(open_run("four").table_names())
    bad = runner.invoke(cli, ["emergence", "training", "--keep", "2"])
    assert bad.exit_code == 2 and "keep" in bad.output and "Traceback" not in bad.output
    bad = runner.invoke(cli, ["train", str(tmp_path / "m"), "--family", "mamba"])
    assert bad.exit_code == 2 and "family" in bad.output
    text = tmp_path / "text"
    text.mkdir()
    for i in range(4):
        (text / f"{i}.txt").write_text(f"{PHRASE} {i} " * 30)
    small = ["--d-model", "16", "--d-mlp", "32", "--steps", "2", "--snapshots", "1"]
    done = runner.invoke(cli, ["train", str(tmp_path / "m"), "--corpus", str(text), *small])
    assert done.exit_code == 0 and "step-000002" in done.output
    assert (tmp_path / "m" / "step-000002" / "model.safetensors").exists()
