"""Inputs and outputs of one feed-forward layer, and the conditions under which its structure is tested.

    real               what the layer reads in text, what it answers
    gaussian           inputs drawn from a Gaussian of the training inputs' mean and covariance
    shuffled           every input coordinate with its tokens in random order: marginals, no covariance
    shuffled_axes      the same along principal axes: covariance and the axes' marginals
    random_teacher     real inputs, a layer as its class initialises it
    shuffled_teacher   real inputs, the layer's matrices with their entries in random order

In the conditions that draw inputs each row keeps its row's document, so that all have equal n and equal parts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.files import scratch
from probes.activations import held_out
from probes.controls import gaussian_like

Condition = Literal["real", "gaussian", "shuffled", "shuffled_axes", "random_teacher", "shuffled_teacher"]
CONDITIONS: tuple[Condition, ...] = (
    "real", "gaussian", "shuffled", "shuffled_axes", "random_teacher", "shuffled_teacher",
)  # fmt: skip
Teacher = Callable[[Tensor], Tensor]
"""Rows of inputs to rows of outputs."""
CHUNK = 4_096


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows x and y = teacher(x), in memory or memory-mapped."""

    x: Float[np.ndarray, "n d_in"]
    y: Float[np.ndarray, "n d_out"]
    document: Int[np.ndarray, " n"]
    measured: Bool[np.ndarray, " n"]
    """Rows of held-out documents."""
    sink: Bool[np.ndarray, " n"]
    """Attention sinks: never trained on, measured apart."""

    @classmethod
    def of(cls, x: Float[Tensor, "n d_in"], y: Float[Tensor, "n d_out"], n_documents: int = 50) -> "Pairs":
        """Pairs in hand, their rows cut into equal documents, every fifth of them held out."""
        document = np.arange(len(x)) * n_documents // len(x)
        return cls(x.float().numpy(), y.float().numpy(), document, held_out(document), np.zeros(len(x), dtype=bool))

    @property
    def d_in(self) -> int:
        """Width of an input."""
        return self.x.shape[1]

    @property
    def d_out(self) -> int:
        """Width of an output."""
        return self.y.shape[1]

    @cached_property
    def train(self) -> Int[np.ndarray, " n_train"]:
        """Rows to fit on: ordinary tokens of documents not held out."""
        return np.flatnonzero(~self.measured & ~self.sink)

    @cached_property
    def test(self) -> Int[np.ndarray, " n_test"]:
        """Rows to measure on: ordinary tokens of held-out documents."""
        return np.flatnonzero(self.measured & ~self.sink)

    @cached_property
    def test_sinks(self) -> Int[np.ndarray, " n_sinks"]:
        """Attention sinks of held-out documents."""
        return np.flatnonzero(self.measured & self.sink)

    def take(self, index: Int[np.ndarray, " m"]) -> tuple[Float[Tensor, "m d_in"], Float[Tensor, "m d_out"]]:
        """Copies of these rows, in this order."""
        return rows_of(self.x, index), rows_of(self.y, index)

    def chunks(self, index: Int[np.ndarray, " m"]) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """`index` in pieces, each with its rows."""
        for begin in range(0, len(index), CHUNK):
            part = index[begin : begin + CHUNK]
            yield part, *self.take(part)


def rows_of(rows: np.ndarray, index: np.ndarray) -> Tensor:
    """Copies of these rows, in this order."""
    return torch.from_numpy(np.ascontiguousarray(rows[index]))


def under(condition: Condition, real: Pairs, teacher: Teacher, seed: int = 0) -> Pairs:
    """The pairs under a condition; `teacher` is the layer of that condition.  ValueError for an unknown one."""
    if condition not in CONDITIONS:
        raise ValueError(f"'{condition}' is no condition; there are {', '.join(CONDITIONS)}")
    if condition == "real":
        return real
    if condition in ("random_teacher", "shuffled_teacher"):
        return Pairs(real.x, answers(teacher, real.x), real.document, real.measured, real.sink)
    x = _drawn(real, seed) if condition == "gaussian" else _shuffled(real, condition == "shuffled_axes", seed)
    nothing = np.zeros(len(real.sink), dtype=bool)
    return Pairs(x, answers(teacher, x), real.document, real.measured, real.sink & nothing)


def answers(teacher: Teacher, x: Float[np.ndarray, "n d_in"]) -> Float[np.ndarray, "n d_out"]:
    """The teacher's outputs, kept in a temporary file that goes with the array."""
    y: np.ndarray | None = None
    for begin in range(0, len(x), CHUNK):
        part = teacher(torch.from_numpy(np.array(x[begin : begin + CHUNK]))).numpy()
        if y is None:
            y = scratch((len(x), part.shape[1]), np.float32)
        y[begin : begin + CHUNK] = part
    if y is None:
        raise ValueError("there is no row to give the teacher; read more text")
    return y


def moments(rows: np.ndarray, index: np.ndarray) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Mean and covariance of these rows, in float64."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    square = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for begin in range(0, len(index), CHUNK):
        total += rows_of(rows, index[begin : begin + CHUNK]).double().sum(dim=0)
    mean = total / len(index)
    for begin in range(0, len(index), CHUNK):
        about = rows_of(rows, index[begin : begin + CHUNK]) - mean.float()
        square += (about.T @ about).double()
    return mean, square / len(index)


def participation(covariance: Float[Tensor, "d d"]) -> float:
    """(sum of eigenvalues)^2 / sum of their squares: how many directions share the variance, from 1 to d."""
    return float(covariance.trace() ** 2 / covariance.square().sum())


def _drawn(real: Pairs, seed: int) -> np.ndarray:
    mean, covariance = moments(real.x, real.train)
    generator, x = torch.Generator().manual_seed(seed), scratch(real.x.shape, np.float32)
    for begin in range(0, len(x), 8 * CHUNK):
        n = min(8 * CHUNK, len(x) - begin)
        x[begin : begin + n] = gaussian_like(mean, covariance, n, generator).numpy()
    return x


def _shuffled(real: Pairs, axes: bool, seed: int) -> np.ndarray:
    """Training rows change places among themselves, held-out rows among themselves; sinks are drawn from neither."""
    rng, x = np.random.default_rng(seed), scratch(real.x.shape, np.float32)
    basis = torch.linalg.eigh(moments(real.x, real.train)[1])[1].float().numpy() if axes else None
    for part in (~real.measured, real.measured):
        source, goal = np.flatnonzero(part & ~real.sink), np.flatnonzero(part)
        rows = np.asarray(real.x[source]) if basis is None else real.x[source] @ basis
        mixed = np.empty((len(goal), rows.shape[1]), dtype=np.float32)
        for j in range(rows.shape[1]):
            order = rng.permutation(len(source))
            extra = rng.integers(len(source), size=len(goal) - len(source))
            mixed[:, j] = rows[np.concatenate([order, extra]), j]
        x[goal] = mixed if basis is None else mixed @ basis.T
    return x
