"""Synthetic features: how often each is active, together with which others, and with what value.

An independent feature takes one uniform draw u: x = relu(1 - u / p) is 0 with probability 1 - p and else uniform on
(0, 1], which is the law of the literature (its two draws, a coin and a value, cost twice as much).
Arrays here are feature-major, (instances, n_features, samples): the batch is the fast axis.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from toymodels import counter
from toymodels.config import ToyConfig

SCALE = 2.0**-32


class Law:
    """The joint law of the features of a stack of settings that share everything but their probabilities."""

    def __init__(self, configs: Sequence[ToyConfig], dtype: torch.dtype = torch.float32):
        self.config = configs[0]
        p = np.stack([config.probabilities for config in configs])
        self._p = torch.as_tensor(np.maximum(p, 1e-30)[:, :, None], dtype=dtype)
        self._dtype = dtype
        n = self.config.n_features
        size = {"one_active": n, "independent": 1}.get(self.config.features, self.config.group_size)
        self._group = torch.arange(n) // size
        self._parent = self._group * size
        below = np.cumsum(p.reshape(len(configs), -1, size), axis=2) - p.reshape(len(configs), -1, size)
        self._below = torch.as_tensor(below.reshape(len(configs), n, 1), dtype=dtype)

    @property
    def value_rows(self) -> int:
        """Uniform draws a sample for values."""
        return 0 if self.config.features in ("anticorrelated", "one_active") else self.config.n_features

    @property
    def gate_rows(self) -> int:
        """Uniform draws a sample for what a whole group shares."""
        grouped = self.config.features in ("correlated", "anticorrelated", "one_active")
        return int(self._group[-1]) + 1 if grouped else 0

    def __call__(
        self, values: Float[Tensor, "instances rows samples"], gates: Float[Tensor, "instances groups samples"]
    ) -> Float[Tensor, "instances n_features samples"]:
        """Features from uniform draws on [0, 1]: `value_rows` for values and `gate_rows` for groups."""
        kind, signed, p = self.config.features, self.config.signed, self._p
        if kind in ("anticorrelated", "one_active"):
            share = (gates[:, self._group] - self._below) / p
            value = 2 * share - 1 if signed else 1 - share
            return value * ((share >= 0) & (share < 1))
        if kind == "correlated":
            value = 2 * values - 1 if signed else 1 - values
            return value * (gates[:, self._group] < p)
        if signed:
            centred = 2 * values - 1
            x = centred.sign() * (1 - centred.abs() / p).clamp_(min=0)
        else:
            x = (1 - values / p).clamp_(min=0)
        if kind == "hierarchical":
            x = x * ((x[:, self._parent] != 0) | (self._parent == torch.arange(x.shape[1]))[:, None])
        return x


class Source:
    """Fresh batches for a stack of (settings, seed) pairs; batch `step` of an instance depends on nothing else."""

    def __init__(
        self,
        configs: Sequence[ToyConfig],
        seeds: Sequence[int],
        samples: int,
        *,
        streams: tuple[int, int] = (counter.VALUES, counter.GATES),
        dtype: torch.dtype = torch.float32,
    ):
        self._law = Law(configs, dtype)
        self._seeds, self._streams, self._dtype = list(seeds), streams, dtype
        k, rows, groups = len(seeds), self._law.value_rows, self._law.gate_rows
        self._values, self._gates = counter.Draws(k, rows, samples), counter.Draws(k, groups, samples)
        self._keys: list[np.ndarray] = []
        self._first = self._last = 0
        config = configs[0]
        self._fused = config.features == "independent" and not config.signed
        self._x = torch.empty(k, configs[0].n_features, samples if self._fused else 0, dtype=dtype)
        self._slope = -SCALE / self._law._p
        self._offset = 1 - 0.5 / self._law._p

    def batch(self, step: int) -> Float[Tensor, "instances n_features samples"]:
        """The batch of one step; the memory is used again by the next."""
        if not self._first <= step < self._last:
            self._first, self._last = step, step + 512
            self._keys = [
                np.stack([counter.keys(seed, stream, step, step + 512) for seed in self._seeds])
                for stream in self._streams
            ]
        at = step - self._first
        if self._fused:
            bits = torch.from_numpy(self._values.integers(self._keys[0][:, at]))
            # Four plain passes vectorise; a product of mixed types or an addcmul with broadcast factors does not.
            return self._x.copy_(bits).mul_(self._slope).add_(self._offset).clamp_(min=0)
        return self._law(self._uniform(self._values, 0, at), self._uniform(self._gates, 1, at))

    def _uniform(self, draws: counter.Draws, stream: int, at: int) -> Tensor:
        return torch.from_numpy(draws.integers(self._keys[stream][:, at])).to(self._dtype) * SCALE + 0.5


def sample(config: ToyConfig, samples: int, *, seed: int = 0, step: int = 0) -> Float[Tensor, "samples n_features"]:
    """`samples` fresh draws from the features' law, one a row."""
    return Source([config], [seed], samples).batch(step)[0].T.contiguous()


def dataset(config: ToyConfig, seed: int) -> Float[Tensor, "n_points n_features"]:
    """The finite dataset of an instance: `n_points` draws, of length 1 if `unit_norm` (zero points stay zero)."""
    if config.n_points is None:
        raise ValueError("these settings draw fresh samples for ever; set n_points for a finite dataset")
    seed = seed if config.data_seed is None else config.data_seed
    streams = (counter.DATASET_VALUES, counter.DATASET_GATES)
    points = Source([config], [seed], config.n_points, streams=streams).batch(0)[0].T.contiguous()
    if config.unit_norm:
        points = points / points.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return points


def stratified(
    config: ToyConfig, samples: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "n_features samples"]:
    """A Latin hypercube sample, feature-major: every draw has each of its `samples` equal slices hit exactly once.

    Means over it have the same expectation as over independent draws and, for sums of functions of single features
    (most of a toy's loss), a far smaller error.  McKay, Beckman, Conover 1979.
    """
    law = Law([config], dtype)
    rng = np.random.default_rng([seed, counter.EVALUATION])
    rows = law.value_rows + law.gate_rows
    slices = np.broadcast_to(np.arange(samples), (rows, samples))
    u = torch.as_tensor((rng.permuted(slices, axis=1) + rng.random((rows, samples))) / samples, dtype=dtype)[None]
    return law(u[:, : law.value_rows], u[:, law.value_rows :])[0]
