"""Experiments that need both rooms: models trained from scratch, measured with the probes of language models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pandas import DataFrame
from pydantic import Field, PositiveInt

from data.config import Config
from data.progress import Progress, silent, within
from data.runs import Run
from data.tables import Tables
from toymodels.language_config import ROUTED, LanguageConfig

MEASURED = ["layer", "measure", "value", "low", "high", "n_tokens"]
LITTLE = LanguageConfig(d_model=32, d_mlp=128, batch_size=8, vocab_size=512, steps=400)
"""A two-layer ReLU model that trains in seconds."""


class TwoLayerRun(Config):
    """Settings of `emergence.two_layer`."""

    seeds: PositiveInt = 3
    """Networks trained in each setting."""
    finite: bool = False
    """Whether samples come from a training set of 4,096, read more than twice, instead of being fresh: noise begins to
    be memorised, and ReLU-Gaussian inputs with random labels keep 27-28% of the units on."""
    dependence: bool = False
    """Whether widths, classes, training set and step length are moved as well (about three minutes)."""


class EmergenceRun(Config):
    """Settings of `emergence.training`."""

    model: LanguageConfig = LITTLE
    """The language model and its training; `keep` and `keep_from` are set by the experiment."""
    keep: float = Field(default=0.1, gt=0, le=1)
    """Share of neurons kept for each token where a top-k is on."""
    late: float = Field(default=0.5, gt=0, lt=1)
    """Share of the training after which the late top-k is switched on."""
    n_tokens: PositiveInt = 2_000
    """Held-out tokens on which each snapshot is measured."""
    seeds: PositiveInt = 3
    """Trainings of each variant, from the model's seed on; each has its own weights, batches and held-out documents."""


def two_layer(run: Run, progress: Progress) -> None:
    """The two-layer experiment in its four settings: tables `emergence, emergence_summary[, emergence_dependence]`."""
    from toymodels import emergence

    asked = TwoLayerRun.model_validate(run.asked)
    whole = 10 if asked.dependence else 1
    settings = emergence.FOUR_FINITE if asked.finite else emergence.FOUR
    run.save_tables(emergence.run(settings, seeds=asked.seeds, progress=within(progress, 0, whole)))
    if asked.dependence:
        told = within(progress, 1, whole, share=whole - 1)
        moved = emergence.dependence(seeds=asked.seeds, progress=told)
        run.save_table("emergence_dependence", moved)


def demo(run: Run, config: Any, progress: Progress) -> None:
    """The demo's part: the two-layer experiment with three seeds."""
    from toymodels import emergence

    seeds = range(config.seed, config.seed + 3)
    run.save_tables(emergence.run(seeds=seeds, progress=progress))


def training(run: Run, progress: Progress) -> None:
    """`emergence` into the run; models stay in its folder `models`, and a stopped run goes on at its last snapshot."""
    asked = EmergenceRun.model_validate(run.asked)
    run.save_tables(emergence(asked, run.path / "models", progress=progress))


def emergence(config: EmergenceRun, folder: Path, *, corpus: Any = None, progress: Progress = silent) -> Tables:
    """Train small language models from several seeds and measure how sparse, or how settled, every snapshot is.

    Variants: `all neurons`; `top-k from the start` and `top-k late`, where from step 0 or from the share `late` of the
    training on only the share `keep` of neurons with the largest |z| is kept for each token, and learned with.  A
    mixture of experts is trained with all neurons only.  Measured without the top-k, so that the numbers say what the
    weights have become; the first snapshot, random weights, is the control of all others.

    Tables
        emergence_snapshots  variant, seed, step, tokens, layer, measure, value, low, high (95% over documents; missing
                             for weights), chance (missing where the first snapshot is the control), n_tokens
        emergence_routing    the same columns, for a mixture of experts
        emergence_losses     variant, seed and the columns of `toymodels.language.snapshots`

    Measures: firing_frequency (share of tokens on which a neuron's gate is positive), energy_top10, mutual_coherence
    and features_per_dimension of the down-projection's columns; for mixtures load_entropy, repeat_rate and saturation.
    """
    import pandas as pd

    from data import open_corpus
    from toymodels import language

    text = open_corpus(config.model.corpus) if corpus is None else corpus
    trainings = over_seeds(_variants(config), config.seeds)
    measured, losses = [], []
    for number, (name, settings) in enumerate(trainings):
        step = within(progress, number, len(trainings))
        place = folder / f"seed-{settings.seed}" / name.replace(" ", "-")
        index = language.train(settings, place, corpus=text, progress=within(step, 0, 2))
        losses.append(index.assign(variant=name, seed=settings.seed))
        unseen = language.held_out_documents(text, settings.seed)
        found = _snapshots(place, index, unseen, config, within(step, 1, 2))
        measured.append(found.assign(variant=name, seed=settings.seed))
    kind = "emergence_routing" if config.model.family in ROUTED else "emergence_snapshots"
    frames = {kind: measured, "emergence_losses": losses}
    return Tables({key: pd.concat(parts, ignore_index=True) for key, parts in frames.items()})


def over_seeds(variants: Mapping[str, LanguageConfig], seeds: int) -> list[tuple[str, LanguageConfig]]:
    """Every variant from its own seed and the next ones, seed by seed, so that a stopped run holds whole seeds."""
    return [
        (name, settings.model_copy(update={"seed": settings.seed + i}))
        for i in range(seeds)
        for name, settings in variants.items()
    ]


def _variants(config: EmergenceRun) -> Mapping[str, LanguageConfig]:
    if config.model.family in ROUTED:
        return {"all neurons": config.model}
    late = max(1, round(config.late * config.model.steps))
    changes: dict[str, dict[str, Any]] = {
        "all neurons": {"keep": None, "keep_from": 0},
        "top-k from the start": {"keep": config.keep, "keep_from": 0},
        "top-k late": {"keep": config.keep, "keep_from": late},
    }
    return {name: LanguageConfig.model_validate(config.model.model_dump() | c) for name, c in changes.items()}


def _snapshots(place: Path, index: DataFrame, corpus: Any, config: EmergenceRun, progress: Progress) -> DataFrame:
    """All snapshots of one training on text that it never read, the last one first: routing is compared with it."""
    import pandas as pd

    from probes import open_model
    from probes.saturation import routes
    from probes.stream import StreamConfig

    read = StreamConfig(n_tokens=config.n_tokens, window=config.model.window)
    end, parts = None, []
    for number, row in enumerate(reversed(index.to_dict("records"))):
        model = open_model(place / row["folder"])
        if model.n_experts:
            now = routes(model, corpus, read)
            end = end or now
            found = _routing(model, corpus, read, now, end)
        else:
            found = _laziness(model, corpus, read)
        parts.append(found.assign(step=row["step"], tokens=row["tokens"]))
        progress(number + 1, len(index), f"measuring step {row['step']}")
    return pd.concat(parts[::-1], ignore_index=True)


def _laziness(model: Any, corpus: Any, read: Any) -> DataFrame:
    import pandas as pd

    from probes import stream
    from probes.dictionaries import of_model
    from probes.firing import Concentration, Firing

    firing, concentration = Firing(model), Concentration(model, stride=1)
    stream.run(model, corpus, {"firing": firing, "concentration": concentration}, read)
    layers = pd.concat([firing.tables().layers, concentration.tables().layers], ignore_index=True)
    wanted = layers["measure"].isin(["firing_frequency", "energy_top10"]) & (layers["sinks"] == "without")
    rows = [
        {"layer": layer, "measure": measure, "value": value, "chance": chance}
        for layer in range(model.n_layers)
        for measure, value, chance in _superposition(of_model(model, f"layer-{layer}-down").matrix)
    ]
    return pd.concat([layers.loc[wanted, MEASURED], DataFrame(rows)], ignore_index=True)


def _superposition(columns: Any) -> list[tuple[str, float, float]]:
    """(measure, value, value of random directions) of a down-projection's columns."""
    from probes import coherence
    from probes.crowding import features_per_dimension, of_random_directions

    report = coherence.measure(columns)
    return [
        ("mutual_coherence", report.mu, report.mu_random),
        ("features_per_dimension", features_per_dimension(columns), of_random_directions(*columns.shape)),
    ]


def _routing(model: Any, corpus: Any, read: Any, now: Any, end: Any) -> DataFrame:
    import pandas as pd

    from probes import stream
    from probes.routing_counts import RoutingCounts
    from probes.saturation import saturation

    counts = RoutingCounts(model)
    stream.run(model, corpus, {"counts": counts}, read)
    routing = counts.tables().routing
    routing = routing[routing["measure"].isin(["load_entropy", "repeat_rate"])]
    return pd.concat([routing, saturation(now, end)], ignore_index=True)[[*MEASURED, "chance"]]
