"""Sparse autoencoders: figures against their frames, page on a run, verb on a tiny model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas import DataFrame
from typer.testing import CliRunner

from app.cli import cli
from app.figures import saes as figures
from app.figures.catalogue import find
from data.runs import create, open_run
from tests.app.test_pages import show, words


def report() -> DataFrame:
    rows = [
        ("real", 32.0, 0.20, 2304, 12, 3.4, 0.95),
        ("pca", 32.0, 0.35, 32, 0, 3.9, 0.85),
        ("random_init", 32.0, 0.60, 2304, 900, 9.0, float("nan")),
    ]
    frame = DataFrame(rows, columns=["condition", "l0", "fvu", "d_sae", "dead_latents", "loss_sae", "recovered_mean"])
    return frame.assign(
        site="block_output", layer=15, fvu_low=frame["fvu"] - 0.02, fvu_high=frame["fvu"] + 0.03, n_tokens=4_000,
        loss=3.2, loss_mean=8.0, loss_zero=9.0, recovered_zero=0.9, n_loss_tokens=2_000,
    )  # fmt: skip


def latents() -> DataFrame:
    frequency = [0.0, 0.0, 0.001, 0.01, 0.5, 1.0]
    return DataFrame({"condition": "real", "latent": range(6), "frequency": frequency, "mean_active": 1.0, "norm": 1.0})


def test_figures_draw_the_rows_they_are_given() -> None:
    figure = figures.kept(report())
    assert [bar.y[0] for bar in figure.data] == [0.20, 0.35, 0.60]
    np.testing.assert_allclose(figure.data[0].error_y.array, [0.03])
    caption = figures.kept_caption(report())
    assert "autoencoder 0.200 [0.180, 0.230] with 32.0 of 2,304 active" in caption and "4,000 tokens" in caption
    assert "principal components 0.350" in caption
    alone = figures.kept_caption(report().assign(fvu_low=np.nan, fvu_high=np.nan))
    assert "nan" not in alone and "Too few documents for an interval" in alone
    loss = figures.losses(report()).data[1]
    assert list(loss.y) == [3.2, 3.9, 8.0, 9.0] and loss.name == "principal components"
    assert "95.0%" in figures.losses_caption(report()) and "unmeasurably" in figures.losses_caption(report())
    with pytest.raises(ValueError, match="lacks the columns"):
        figures.kept(latents())


def test_every_latent_is_counted_once() -> None:
    rows = figures.spectrum_data(latents())
    assert rows["share"].sum() == pytest.approx(1)
    assert rows["share"].iloc[0] == pytest.approx(2 / 6) and rows["share"].iloc[-1] == pytest.approx(1 / 6)
    assert "2 of 6 never active" in figures.latent_caption(latents())


def test_page_shows_a_run_and_helps_without_one(runs_folder: Path) -> None:
    empty = show("saes")
    assert not empty.exception and "sparsescope probe sae" in words(empty)
    run = create("latents", {}, kind="probe.sae", root_folder=runs_folder)
    run.save_tables({"sae": report(), "sae_latents": latents()})
    run.save_tensors("sae", {"W_dec": np.eye(3, dtype=np.float32)})
    test = show("saes", run="latents")
    assert not test.exception and not test.error
    assert find("sae-fvu").title in words(test) and "sae.safetensors#W_dec --transpose" in words(test)
    metrics = {m.label: m for m in test.metric}
    assert metrics["Loss recovered"].value == "95.0%" and "0.350" in metrics["Variance unexplained"].help


def test_verb_trains_saves_and_loads_again(runs_folder: Path, tmp_path: Path) -> None:
    from tests.probes.tiny import SENTENCES, tiny_hf
    from toymodels.language_models import save, train_tokenizer

    tokenizer: Any = train_tokenizer(SENTENCES, 300, tmp_path / "tokenizer")
    save(tiny_hf(seed=5), tokenizer, tmp_path / "model")
    text = tmp_path / "text"
    text.mkdir()
    for number in range(12):
        (text / f"{number}.txt").write_text(" ".join(SENTENCES[(number + i) % 4] for i in range(6)))
    shared = ["probe", "sae", "--model", str(tmp_path / "model"), "--corpus", str(text), "--layer", "1"]
    small = ["--d-sae", "48", "--k", "4", "--steps", "30", "--tokens", "2000"]
    runner = CliRunner()
    done = runner.invoke(cli, [*shared, *small, "--name", "one", "--save", str(tmp_path / "kept")])
    assert done.exit_code == 0, done.output
    first = open_run("one").table("sae").set_index("condition")
    assert list(first.index) == ["real", "pca", "random_init"] and "random_init" in done.output
    again = runner.invoke(cli, [*shared, "--tokens", "2000", "--load", str(tmp_path / "kept"), "--name", "two"])
    assert again.exit_code == 0, again.output
    second = open_run("two").table("sae").set_index("condition")
    assert second["fvu"]["real"] == pytest.approx(first["fvu"]["real"], rel=1e-4)
    assert list(second.index) == ["real", "pca"]
    bad = runner.invoke(cli, [*shared, *small, "--k", "400", "--name", "three"])
    assert bad.exit_code == 2 and "k=400 active latents exceed d_sae=48" in bad.output
