"""Where sparsity emerges: `pytest -m reproduction tests/reproductions/test_emergence.py`."""

from pathlib import Path

import pytest

from app.experiments import EmergenceRun
from app.experiments import emergence as emergence_over_training
from tests.reproductions.record import record
from toymodels import emergence
from toymodels.emergence import FINITE, FOUR, EmergenceConfig

pytestmark = pytest.mark.reproduction

KNOWN = {
    "uniform inputs, random labels": [0.028, 0.036],
    "ReLU-Gaussian inputs, random labels": [0.27, 0.28],
    "Gaussian inputs, random labels": [0.44, 0.44],
    "uniform inputs, learnable labels": [0.69, 0.70],
}
"""Nonzero share after 300 Adam steps, as reported; widths, batch and learning rate are not recorded."""


def test_four_settings_and_what_they_depend_on() -> None:
    finite = {
        name: FINITE.model_copy(update={"inputs": config.inputs, "labels": config.labels})
        for name, config in FOUR.items()
    }
    fresh = emergence.run(seeds=range(3))
    memorised = emergence.run(finite, seeds=range(3))
    moved = emergence.dependence(seeds=3)
    record(
        "emergence",
        {"fresh": EmergenceConfig().model_dump(mode="json"), "finite": FINITE.model_dump(mode="json")},
        {
            "known": KNOWN,
            "fresh": fresh.emergence_summary.to_dict("records"),
            "finite": memorised.emergence_summary.to_dict("records"),
            "dependence": moved.to_dict("records"),
        },
    )
    ends = fresh.emergence_summary.set_index("setting")
    assert ends["high"]["uniform inputs, random labels"] < 0.06
    assert ends["low"]["uniform inputs, learnable labels"] > 0.40
    assert ends["end"]["Gaussian inputs, random labels"] == pytest.approx(0.44, abs=0.02)
    relu = memorised.emergence_summary.set_index("setting").loc["ReLU-Gaussian inputs, random labels"]
    assert relu["end"] == pytest.approx(0.275, abs=0.04)


def test_snapshots_of_a_small_language_model(tmp_path: Path) -> None:
    """All neurons, a top-k of 10% from the start, and late: what each makes of loss, firing and energy."""
    config = EmergenceRun()
    tables = emergence_over_training(config, tmp_path)
    means = tables.emergence_snapshots.groupby(["variant", "step", "measure"])["value"].mean().unstack()
    last = tables.emergence_losses.groupby("variant").tail(1).set_index("variant")
    record(
        "emergence_language",
        config.model_dump(mode="json"),
        {
            "snapshots": means.reset_index().to_dict("records"),
            "losses": last.reset_index().to_dict("records"),
        },
    )
    step = config.model.steps
    energy, firing = means["energy_top10"], means["firing_frequency"]
    assert firing["all neurons", 0] == pytest.approx(0.5, abs=0.03)
    assert energy["all neurons", step] > energy["all neurons", 0]
    assert energy["top-k from the start", step] > energy["all neurons", step]
    assert (last["loss"] < last["unigram"]).all()
    assert last["loss"]["top-k late"] == pytest.approx(last["loss"]["all neurons"], abs=0.05)
