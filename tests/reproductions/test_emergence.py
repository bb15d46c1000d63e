"""Where sparsity emerges: `pytest -m reproduction tests/reproductions/test_emergence.py`."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas import DataFrame

from app.experiments import LITTLE, EmergenceRun
from app.experiments import emergence as emergence_over_training
from app.figures import emergence_snapshots as snapshots
from tests.reproductions.record import record
from toymodels import emergence
from toymodels.emergence import FINITE, FOUR_FINITE, EmergenceConfig

pytestmark = pytest.mark.reproduction

KNOWN = {
    "uniform inputs, random labels": [0.028, 0.036],
    "ReLU-Gaussian inputs, random labels": [0.27, 0.28],
    "Gaussian inputs, random labels": [0.44, 0.44],
    "uniform inputs, learnable labels": [0.69, 0.70],
}
"""Nonzero share after 300 Adam steps, as reported; widths, batch and learning rate are not recorded."""


def test_four_settings_and_what_they_depend_on() -> None:
    fresh = emergence.run(seeds=range(3))
    memorised = emergence.run(FOUR_FINITE, seeds=range(3))
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
    means = tables.emergence_snapshots.pivot_table(index=["variant", "step"], columns="measure", values="value")
    ends = tables.emergence_losses[tables.emergence_losses["step"] == config.model.steps]
    last = ends.groupby("variant")[["loss", "loss_all", "unigram"]].mean()
    record(
        "emergence_language",
        config.model_dump(mode="json"),
        {
            "snapshots": _over_seeds(tables.emergence_snapshots),
            "losses": ends[["variant", "seed", "loss", "loss_all", "unigram"]].to_dict("records"),
        },
    )
    step = config.model.steps
    energy, firing = means["energy_top10"], means["firing_frequency"]
    assert firing["all neurons", 0] == pytest.approx(0.5, abs=0.03)
    assert energy["all neurons", step] > energy["all neurons", 0]
    assert energy["top-k from the start", step] > energy["all neurons", step]
    assert (last["loss"] < last["unigram"]).all()
    assert last["loss"]["top-k late"] == pytest.approx(last["loss"]["all neurons"], abs=0.05)


def test_routing_of_a_small_mixture_settles(tmp_path: Path) -> None:
    """OLMoE's class, 8 experts of which 2 are used: load, saturation and repeats over training, three seeds."""
    model = LITTLE.model_copy(update={"family": "olmoe", "d_mlp": 64})
    config = EmergenceRun(model=model)
    table = emergence_over_training(config, tmp_path).emergence_routing
    record("emergence_routing", config.model_dump(mode="json"), {"snapshots": _over_seeds(table)})
    settled = table[table["measure"] == "saturation"].groupby("step")[["value", "chance"]].mean()
    # Nothing settles while the loads move (the first tenth of the training); then every snapshot has more.
    begun, later = settled["value"].loc[: model.steps // 10], settled["value"].loc[model.steps // 10 :]
    assert (begun - begun.iloc[0]).abs().max() < 0.05
    assert later.is_monotonic_increasing and later.iloc[-1] == 1
    assert later.iloc[0] > begun.iloc[-1]
    assert (table[table["measure"] == "load_entropy"]["value"] > 0.5).all()


def _over_seeds(table: DataFrame) -> list[dict[str, Any]]:
    """Means over layers and seeds with the least and greatest seed."""
    parts = [snapshots.select(table, m).assign(measure=m) for m in dict.fromkeys(table["measure"])]
    return pd.concat(parts)[["measure", "variant", "step", "value", "low", "high", "chance"]].to_dict("records")
