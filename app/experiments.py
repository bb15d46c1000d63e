"""Experiments that need both rooms: models trained from scratch, measured with the probes of language models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from data.config import Config
from data.progress import Progress, silent, within
from data.runs import Run
from data.tables import Tables
from toymodels.language import LanguageConfig
from toymodels.language_models import ROUTED

LITTLE = LanguageConfig(d_model=32, d_mlp=128, batch_size=8, vocab_size=512, steps=400)
"""A two-layer ReLU model that trains in seconds."""


class TwoLayerRun(Config):
    """Settings of `emergence.two_layer`."""

    seeds: PositiveInt = 3
    """Networks trained in each setting."""
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


def two_layer(run: Run, progress: Progress) -> None:
    """The two-layer experiment in its four settings: tables `emergence, emergence_summary[, emergence_dependence]`."""
    from toymodels import emergence

    asked = TwoLayerRun.model_validate({k: v for k, v in run.settings.items() if k != "kind"})
    whole = 10 if asked.dependence else 1
    run.save_tables(emergence.run(seeds=asked.seeds, progress=within(progress, 0, whole)))
    if asked.dependence:
        moved = emergence.dependence(
            seeds=asked.seeds,
            progress=lambda done, total, note="": progress(1 + (whole - 1) * done / total, whole, note),
        )
        run.save_table("emergence_dependence", moved)


def demo(run: Run, config: Any, progress: Progress) -> None:
    """The demo's part: the two-layer experiment with three seeds, about 10 s on two cores."""
    from toymodels import emergence

    seeds = range(config.seed, config.seed + 3)
    run.save_tables(emergence.run(seeds=seeds, progress=progress))


def training(run: Run, progress: Progress) -> None:
    """`emergence` into the run; models stay in its folder `models`, and a stopped run goes on at its last snapshot."""
    asked = EmergenceRun.model_validate({k: v for k, v in run.settings.items() if k != "kind"})
    run.save_tables(emergence(asked, run.path / "models", progress=progress))


def emergence(config: EmergenceRun, folder: Path, *, corpus: Any = None, progress: Progress = silent) -> Tables:
    """Train a small ReLU language model three times and measure how sparse every snapshot is.

    Variants: `all neurons`; `top-k from the start` and `top-k late`, where from step 0 or from the share `late` of the
    training on only the share `keep` of neurons with the largest |z| is kept for each token, and learned with.  A
    mixture of experts is trained once, with all neurons.  Measured without the top-k, so that the numbers say what the
    weights have become; the first snapshot, random weights, is the control of all others.

    Tables
        emergence_snapshots  variant, step, tokens, layer, measure (firing_frequency: share of tokens on which a
                             neuron's gate is positive; energy_top10; mutual_coherence of the down-projection's
                             columns; for mixtures load_entropy alone), value, low, high (95% over documents; missing
                             for the coherence of weights), n_tokens
        emergence_losses     variant and the columns of `toymodels.language.snapshots`
    """
    import pandas as pd

    from data import open_corpus
    from toymodels import language

    text = open_corpus(config.model.corpus) if corpus is None else corpus
    unseen = language.held_out_documents(text, config.model.seed)
    variants = _variants(config)
    measured, losses = [], []
    for number, (name, settings) in enumerate(variants.items()):
        step = within(progress, number, len(variants))
        place = folder / name.replace(" ", "-")
        index = language.train(settings, place, corpus=text, progress=within(step, 0, 2))
        losses.append(index.assign(variant=name))
        for row, snapshot in enumerate(index.to_dict("records")):
            found = _snapshot(place / snapshot["folder"], unseen, config)
            measured.append(found.assign(variant=name, step=snapshot["step"], tokens=snapshot["tokens"]))
            step(1 + (row + 1) / len(index), 2, f"{name}: measuring step {snapshot['step']}")
    frames = {"emergence_snapshots": measured, "emergence_losses": losses}
    return Tables({key: pd.concat(parts, ignore_index=True) for key, parts in frames.items()})


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


def _snapshot(folder: Path, corpus: Any, config: EmergenceRun) -> Any:
    """Sparsity, or routing, of every layer of one snapshot on text that its training never read."""
    import pandas as pd

    from probes import coherence, open_model, stream
    from probes.dictionaries import of_model
    from probes.firing import Concentration, Firing
    from probes.routing_counts import RoutingCounts

    model = open_model(folder)
    read = stream.StreamConfig(n_tokens=config.n_tokens, window=config.model.window)
    columns = ["layer", "measure", "value", "low", "high", "n_tokens"]
    if model.n_experts:
        counts = RoutingCounts(model)
        stream.run(model, corpus, {"counts": counts}, read)
        routing = counts.tables().routing
        return routing.loc[routing["measure"] == "load_entropy", columns]
    firing, concentration = Firing(model), Concentration(model, stride=1)
    stream.run(model, corpus, {"firing": firing, "concentration": concentration}, read)
    layers = pd.concat([firing.tables().layers, concentration.tables().layers], ignore_index=True)
    wanted = layers["measure"].isin(["firing_frequency", "energy_top10"]) & (layers["sinks"] == "without")
    rows = [
        {"layer": layer, "measure": "mutual_coherence", "value": coherence.measure(of_model(model, part).matrix).mu}
        for layer, part in ((i, f"layer-{i}-down") for i in range(model.n_layers))
    ]
    return pd.concat([layers.loc[wanted, columns], pd.DataFrame(rows, columns=columns[:3])], ignore_index=True)
