"""The toy lab's experiments: settings -> tables named as the figures want them; work beside a page that can stop it.

Tables: `toy_matrices, toy_features, toy_film` (up to three dimensions), `toy_parts, toy_interference, toy_dynamics,
toy_losses, toy_jumps, toy_seeds`, and `toy_neurons, toy_neuron_kinds` (hidden ReLU) of one model; `toy_room` and
`toy_dimensions` of a sweep over density; `toy_phase`, `toy_phase_boundary` and `toy_phase_agreement` of a diagram.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pandas import DataFrame
from pydantic import Field

from data.config import Config
from data.progress import Cancelled, Progress, silent
from data.tables import Tables
from toymodels import ToyConfig, geometry, phase, sweep, train
from toymodels.presets import find

Seeds = Annotated[int, Field(ge=1, le=200)]


class OneModel(Config):
    """Train one toy model from several seeds and look at the best."""

    toy: ToyConfig = ToyConfig()
    """The model, its features and its training."""
    seeds: Seeds = 10
    """Starts; the one of lowest loss on a large sample is shown."""


class Staircase(Config):
    """Sweep the density of equally important features."""

    n_features: Annotated[int, Field(ge=2, le=500)] = 60
    """Features, n."""
    d_hidden: Annotated[int, Field(ge=1, le=100)] = 8
    """Dimensions, m."""
    densities: Annotated[int, Field(ge=2, le=40)] = 12
    """Densities between 1 and the sparsest, evenly spaced in their logarithm."""
    sparsest: Annotated[float, Field(gt=1, le=1000)] = 20.0
    """1 / (1 - S) at the sparse end."""
    steps: Annotated[int, Field(ge=10, le=100_000)] = 3000
    """Optimiser steps."""
    seeds: Seeds = 2
    """Starts for each density."""


class Diagram(Config):
    """Phase diagram by exact loss."""

    n_features: Literal[2, 3] = 2
    """2 features in 1 dimension, or 3 in 2."""
    resolution: Annotated[int, Field(ge=2, le=64)] = 24
    """Cells along each side."""
    seeds: Seeds = 10
    """Starts for each cell."""


Experiment = OneModel | Staircase | Diagram


class Preset(NamedTuple):
    """A named setting of one model and what to look for."""

    lab: OneModel
    words: str


def _point(name: str, words: str, seeds: int | None = None, **point: Any) -> Preset:
    """The experiment called `name` in `toymodels.presets`, at one point of its grid."""
    preset = find(name)
    toy = ToyConfig.model_validate(preset.config.model_dump() | point)
    return Preset(OneModel(toy=toy, seeds=seeds or preset.seeds), words)


PRESETS: Mapping[str, Preset] = {
    "pentagon": _point(
        "pentagon", "Five equal, sparse features in a plane: a pentagon, each feature with 2/5 dimension."
    ),
    "dense": _point(
        "intro",
        "The same five, always on: two are kept, orthogonal, and three dropped. No superposition.",
        feature_probability=1.0,
    ),
    "importance": _point(
        "basic",
        "Twenty features of falling importance in five dimensions: the first few share them in antipodal pairs.",
        feature_probability=0.1,
    ),
    "square antiprism": Preset(
        OneModel(toy=ToyConfig(n_features=8, d_hidden=3, feature_probability=0.03)),
        "Eight equal features in space: a square antiprism, 3/8 dimension each.",
    ),
    "octahedron": _point(
        "octahedron",
        "Two groups of three that fire together: each is orthogonal inside, opposite to the other group.",
    ),
    "anticorrelated": _point("anticorrelated", "Pairs that never fire together lie opposite each other, at no cost."),
    "odd feature": _point(
        "odd-feature",
        "One feature four times rarer: the pentagon gives way to two digons.",
        seeds=10,
        feature_probability=(0.0125, 0.05, 0.05, 0.05, 0.05),
    ),
    "privileged basis": _point(
        "privileged-basis",
        "A ReLU on the hidden layer: some neurons answer to one feature, the others share.",
        seeds=50,
        feature_probability=0.15,
    ),
    "absolute value": _point(
        "absolute-value",
        "Computing |x| on more features than neurons allow one by one: computation in superposition.",
        seeds=5,
        n_features=20,
        d_hidden=8,
        feature_probability=0.05,
    ),
}
"""Presets of one model by name."""


def measure(experiment: Experiment, progress: Progress = silent) -> Tables:
    """The tables of any of the experiments."""
    if isinstance(experiment, Diagram):
        return phase_diagram(experiment, progress)
    return staircase(experiment, progress) if isinstance(experiment, Staircase) else one_model(experiment, progress)


def one_model(lab: OneModel, progress: Progress = silent) -> Tables:
    """Train, take the seed of lowest loss, and describe its geometry and how it came about."""
    toys = train(lab.toy, seeds=lab.seeds, snapshots=60, progress=progress)
    best = toys.best()
    place = toys.seeds.index(best.seed)
    film = toys.snapshots
    assert film is not None
    steps, history = [int(s) for s in film.steps], film.W[:, place]
    recognition = geometry.recognize(best.W)
    dynamics = geometry.dimensionality_over_time(steps, history)
    tables = {
        "toy_seeds": toys.table,
        "toy_matrices": geometry.matrices(best.W, best.b),
        "toy_features": geometry.features(best.W),
        "toy_parts": geometry.parts(recognition).assign(geometry=str(recognition)),
        "toy_interference": geometry.interference_graph(best.W),
        "toy_dynamics": dynamics,
        "toy_jumps": geometry.jumps(dynamics),
        "toy_losses": DataFrame({"step": steps, "loss": film.loss[:, place].double().numpy()}),
    }
    if lab.toy.d_hidden <= 3:
        tables["toy_film"] = geometry.film(steps, history)
    if lab.toy.model in ("hidden_relu", "untied"):
        tables["toy_neurons"] = geometry.neuron_weights(best.W)
        tables["toy_neuron_kinds"] = geometry.neurons(best.W)
    return Tables({name: frame.assign(best_of=lab.seeds) for name, frame in tables.items()})


def staircase(lab: Staircase, progress: Progress = silent) -> Tables:
    """D* and all D_i over density."""
    base = ToyConfig(n_features=lab.n_features, d_hidden=lab.d_hidden, batch_size=512)
    chances = [float(lab.sparsest**-e) for e in np.linspace(0, 1, lab.densities)]
    swept = sweep({"feature_probability": chances}, base=base, seeds=lab.seeds, steps=lab.steps, progress=progress)
    each = [
        geometry.features(toy.W).assign(feature_probability=p, best_of=lab.seeds)
        for p, toy in zip(chances, swept.best_toys(), strict=True)
    ]
    room = swept.table.assign(n_features=lab.n_features, d_hidden=lab.d_hidden)
    return Tables({"toy_room": room, "toy_dimensions": pd.concat(each, ignore_index=True)})


def phase_diagram(lab: Diagram, progress: Progress = silent) -> Tables:
    """Cells, boundary and agreement."""
    cells = phase.diagram(lab.resolution, n_features=lab.n_features, seeds=lab.seeds, progress=progress)
    return Tables(
        {
            "toy_phase": cells,
            "toy_phase_boundary": phase.boundary_curve(lab.n_features),
            "toy_phase_agreement": phase.agreement(cells),
        }
    )


def numbers(text: str, what: str) -> float | tuple[float, ...]:
    """One number, or one a feature separated by commas; ValueError says which word is not a number."""
    words = [word.strip() for word in text.replace(";", ",").split(",") if word.strip()]
    if not words:
        raise ValueError(f"{what} is empty; give one number, or one a feature separated by commas")
    values = []
    for word in words:
        try:
            values.append(float(word))
        except ValueError:
            raise ValueError(f"{what}: '{word}' is not a number; give one, or one a feature, such as 0.05") from None
    return values[0] if len(values) == 1 else tuple(values)


def written(value: float | tuple[float, ...]) -> str:
    """The inverse of `numbers`."""
    return ", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}"


class Background:
    """Work in a thread beside the page that asked for it: how far it is, what came of it, and a way to stop it."""

    def __init__(self, work: Callable[[Progress], Tables]):
        self.done, self.note = 0.0, "starting"
        self.result: Tables | None = None
        self.error: Exception | None = None
        self.started = time.monotonic()
        self.seconds = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._carry_out, args=(work,), daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the thread is still at work."""
        return self._thread.is_alive()

    @property
    def cancelled(self) -> bool:
        """Whether it was stopped before it ended."""
        return isinstance(self.error, Cancelled)

    def cancel(self, wait: float = 5.0) -> None:
        """Ask the work to stop at its next sign of progress, and wait up to `wait` seconds for it."""
        self._stop.set()
        self._thread.join(wait)

    def join(self, wait: float | None = None) -> None:
        """Wait for the end."""
        self._thread.join(wait)

    def _carry_out(self, work: Callable[[Progress], Tables]) -> None:
        try:
            self.result = work(self._tell)
        except Exception as error:  # shown on the page as its sentence
            self.error = error
        self.seconds = time.monotonic() - self.started

    def _tell(self, done: float, total: float, note: str = "") -> None:
        if self._stop.is_set():
            raise Cancelled("stopped")
        self.done, self.note = (done / total if total else 0.0), note
