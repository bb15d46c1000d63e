"""Toy runs: a preset, a training or a sweep goes into a run folder as the tables that the figures are drawn from.

Kinds of run: `toy.sweep` (a training is a sweep without a grid) and `toy.experiment` (a preset done by a function of
its own).  Both are resumed by doing them again in the same folder.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import pandas as pd
from pandas import DataFrame
from pydantic import Field, NonNegativeInt, PositiveInt

from data import Config, Progress, Run
from toymodels import ToyConfig, geometry, sweep
from toymodels.checkpoint import save_toys
from toymodels.presets import Preset, find
from toymodels.results import Toy, Toys
from toymodels.sweeps import Sweep

_DRAWN = 100
"""Features up to which W^T W is written entry by entry."""


class ToyRun(Config):
    """Settings of a toy sweep."""

    base: ToyConfig = ToyConfig()
    """Settings that all share."""
    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Values by name of setting."""
    seeds: PositiveInt = 5
    """Seeds of each combination; the best by the loss on a large sample is drawn."""
    snapshots: NonNegativeInt = 0
    """Snapshots of the training."""
    engine: str = "local"
    """Where it runs: local or ray."""


class ToyExperiment(Config):
    """Settings of an experiment with a function of its own."""

    preset: str
    """Name in `toymodels.presets`."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments that replace the preset's; those that are settings themselves as `{name: value}`, what they leave out
    being the experiment's own."""


def settings_of(preset: Preset, name: str) -> ToyRun | ToyExperiment:
    """The run that does this preset."""
    if preset.experiment:
        return ToyExperiment(preset=name, arguments=preset.arguments)
    return ToyRun(base=preset.config, grid=preset.grid, seeds=preset.seeds, snapshots=preset.snapshots)


def do_sweep(run: Run, progress: Progress) -> None:
    """Train what the run's settings say; tables `toy_*` and one tensor file a setting."""
    asked = ToyRun.model_validate(run.asked)
    done = sweep(
        asked.grid,
        base=asked.base,
        seeds=asked.seeds,
        engine=asked.engine,  # type: ignore[arg-type]
        snapshots=asked.snapshots,
        progress=progress,
        run=run,
    )
    for i, toys in enumerate(done.toys):
        save_toys(run, toys, name=f"toys-{i:03d}")
    run.save_tables(tables(done, asked))


def do_experiment(run: Run, progress: Progress) -> None:
    """Do a preset that has a function of its own; its tables, named for the figures."""
    asked = ToyExperiment.model_validate(run.asked)
    preset = find(asked.preset)
    function, arguments = prepared(preset, asked.arguments)
    if "folder" in inspect.signature(function).parameters:
        arguments["folder"] = run
    found = function(progress=progress, **arguments)
    if isinstance(found, DataFrame):
        from toymodels import phase

        run.save_table("toy_phase", found)
        run.save_table("toy_phase_boundary", phase.boundary_curve(arguments.get("n_features", 2)))
        return
    run.save_tables({f"{preset.prefix}{table}": frame for table, frame in found.items()})


def prepared(preset: Preset, given: dict[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The experiment's function and its arguments, the preset's replaced by those `given`.

    `{"config": {"steps": 50}}` changes one value of the function's own settings.  ValueError names an argument that
    does not exist, or a setting that does not fit.
    """
    module, name = preset.experiment.split(":")
    function = getattr(importlib.import_module(f"toymodels.{module}"), name)
    known = inspect.signature(function).parameters
    own = [argument for argument in known if argument not in ("progress", "folder")]
    types, arguments = get_type_hints(function), preset.arguments | given
    for argument, value in arguments.items():
        if argument not in own:
            raise ValueError(f"this experiment has no setting '{argument}'; it has {', '.join(own)}")
        for kind in (types[argument], *get_args(types[argument])):
            if isinstance(kind, type) and issubclass(kind, Config):
                base = known[argument].default or kind()
                if not isinstance(value, dict):
                    text = f"{argument}={{'{next(iter(kind.model_fields))}': ...}}"
                    raise ValueError(f"'{argument}' takes settings by name, e.g. {text}, not {value!r}")
                arguments[argument] = kind.model_validate(_merged(base.model_dump(), value))
    return function, arguments


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the changes, also inside settings within settings."""
    out = dict(base)
    for name, value in changes.items():
        inner = base.get(name)
        out[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return out


def tables(done: Sweep, asked: ToyRun) -> dict[str, DataFrame]:
    """What the figures need: `toy_room`, `toy_matrices`, `toy_features`, `toy_dimensions`, and where they apply
    `toy_neurons` (hidden ReLU); of a single setting also `toy_seeds, toy_parts, toy_interference, toy_dynamics,
    toy_jumps, toy_losses`, `toy_film` (up to three dimensions) and `toy_neuron_kinds` (hidden ReLU).
    """
    best, names = done.best_toys(), [_panel(config, asked) for config in done.settings]
    room = done.table.copy()
    for column in ("feature_probability", "d_hidden", "n_features"):
        room[column] = [_scalar(getattr(done.settings[i], column)) for i in room["setting"]]
    room["polytope"] = [
        geometry.recognize(best[i].W).name if best[i].W.shape[0] <= 3 else None for i in room["setting"]
    ]
    made = {"toy_room": room}
    features = [_features(toy, name, asked.seeds) for toy, name in zip(best, names, strict=True)]
    made["toy_features"] = made["toy_dimensions"] = pd.concat(features, ignore_index=True)
    pairs = list(zip(best, names, strict=True))
    drawn = [geometry.matrices(t.W, t.b).assign(panel=n) for t, n in pairs if t.W.shape[1] <= _DRAWN]
    if drawn:
        made["toy_matrices"] = pd.concat(drawn, ignore_index=True).assign(best_of=asked.seeds)
    if asked.base.model in ("hidden_relu", "untied"):
        neurons = [geometry.neuron_weights(toy.W).assign(panel=name) for toy, name in pairs]
        made["toy_neurons"] = pd.concat(neurons, ignore_index=True).assign(best_of=asked.seeds)
    if len(best) == 1:
        made |= _course(done.toys[0], asked.seeds)
    return made


def _course(toys: Toys, seeds: int) -> dict[str, DataFrame]:
    """The best instance's geometry, and how it came about."""
    best = toys.best()
    found = geometry.recognize(best.W)
    made = {
        "toy_seeds": toys.table,
        "toy_parts": geometry.parts(found).assign(geometry=str(found)),
        "toy_interference": geometry.interference_graph(best.W),
    }
    if best.config.model in ("hidden_relu", "untied"):
        made["toy_neuron_kinds"] = geometry.neurons(best.W)
    kept = toys.snapshots
    if kept is not None and len(kept.steps) >= 3:
        i, steps = toys.seeds.index(best.seed), [int(step) for step in kept.steps]
        made["toy_dynamics"] = dynamics = geometry.dimensionality_over_time(steps, kept.W[:, i])
        made["toy_jumps"] = geometry.jumps(dynamics)
        made["toy_losses"] = DataFrame({"step": steps, "loss": kept.loss[:, i].double().numpy()}).dropna()
        if toys.W.shape[1] <= 3:
            made["toy_film"] = geometry.film(steps, kept.W[:, i])
    return {name: frame.assign(best_of=seeds) for name, frame in made.items()}


def _features(toy: Toy, name: str, seeds: int) -> DataFrame:
    frame = geometry.features(toy.W).assign(panel=name, best_of=seeds)
    p = toy.config.probabilities
    return frame.assign(feature_probability=p, importance=toy.config.importances)


def _panel(config: ToyConfig, asked: ToyRun) -> str:
    short = {"feature_probability": "p", "n_features": "n", "d_hidden": "m"}
    parts = []
    for name in asked.grid or ("feature_probability",):
        value = getattr(config, name)
        text = ", ".join(f"{v:.3g}" for v in value) if isinstance(value, tuple) else _text(value)
        parts.append(f"{short.get(name, name)} = {text}")
    return ", ".join(parts)


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _scalar(value: Any) -> Any:
    """One number for a column: a tuple's mean."""
    return sum(value) / len(value) if isinstance(value, tuple) else value
