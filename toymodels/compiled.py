"""The engine that compiles: numba's kernel over the instances of a stack, on as many threads as asked."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from jaxtyping import Int

from toymodels import counter, features
from toymodels.config import ToyConfig
from toymodels.gradients import Activation
from toymodels.stack import Stack, Sums

LARGEST = 50_000
"""Weights (d_hidden x n_features) up to which the kernel was measured to be the faster."""


def refusal(config: ToyConfig, activation: Activation | None) -> str | None:
    """Why the kernel cannot do these settings, in one sentence, or None."""
    if activation is not None or (config.activation != "relu" and config.model != "linear"):
        return "the compiled engine knows ReLU and linear models only; use engine='torch' for other activations"
    try:
        import numba  # noqa: F401
    except ImportError:
        return "engine='numba' needs numba, which is not installed; use engine='torch'"
    return None


def pays(config: ToyConfig) -> bool:
    """Whether the kernel is the faster one for this shape."""
    return config.d_hidden * config.n_features <= LARGEST


def threads_by_default() -> int:
    """`OMP_NUM_THREADS` if set, else the cores this process may use."""
    return int(os.environ.get("OMP_NUM_THREADS", "0") or 0) or len(os.sched_getaffinity(0))


class NumbaEngine:
    """Instances one after another through `kernel.run`, which holds no lock, on `threads` threads."""

    name = "numba"

    def __init__(self, stack: Stack, threads: int | None = None):
        self._stack = stack
        self._pool = ThreadPoolExecutor(threads or threads_by_default())
        self._fixed: dict[int, tuple] = {}
        self._run(0, 0, 0)  # no steps: compiles once for this machine, later only loads, before anyone measures rates

    def advance(self, active: Int[np.ndarray, " active"], start: int, stop: int) -> Sums:
        """All instances on the pool; losses are measured at every step."""
        sums = list(self._pool.map(partial(self._run, start=start, stop=stop), [int(i) for i in active]))
        return np.array(sums), stop - start

    def _run(self, i: int, start: int, stop: int) -> float:
        from toymodels import kernel

        stack, config = self._stack, self._stack.configs[i]
        if i not in self._fixed:
            self._fixed[i] = _fixed(config, stack.seeds[i])
        shape, flags, scale, kind, law, group, table, points, width = self._fixed[i]
        seed = stack.seeds[i]
        keys = np.stack([counter.keys(seed, stream, start, stop) for stream in (counter.VALUES, counter.GATES)])
        state = (stack.params[i].numpy(), stack.first[i].numpy(), stack.second[i].numpy())
        rates = config.learning_rates(start, stop)
        return kernel.run(
            *state, shape, flags, scale, kind, law, group, keys, table, points, rates, config.weight_decay, start, width
        )


def _fixed(config: ToyConfig, seed: int) -> tuple:
    """What the kernel is told that does not change from step to step."""
    from toymodels import kernel

    m, n, samples = config.d_hidden, config.n_features, config.samples
    flags = {
        "linear": 0,
        "relu": kernel.RELU_OUT,
        "hidden_relu": kernel.RELU_OUT | kernel.RELU_HIDDEN,
        "untied": kernel.RELU_OUT | kernel.RELU_HIDDEN | kernel.UNTIED,
    }[config.model]
    flags |= kernel.ABSOLUTE if config.target == "absolute" else 0
    kind = {
        "independent": kernel.INDEPENDENT,
        "correlated": kernel.CORRELATED,
        "anticorrelated": kernel.EXCLUSIVE,
        "one_active": kernel.EXCLUSIVE,
        "hierarchical": kernel.HIERARCHICAL,
    }[config.features]
    points, table = np.zeros((n, 1), np.float32), counter.table(n * samples)
    if config.n_points:
        kind, points, table = kernel.FINITE, features.dataset(config, seed).T.contiguous().numpy(), counter.table(n)
    group = n if config.features == "one_active" else config.group_size
    p = np.maximum(config.probabilities, 1e-30)
    grouped = p.reshape(-1, group) if n % group == 0 else p.reshape(-1, 1)
    below = (np.cumsum(grouped, axis=1) - grouped).reshape(-1)
    law = (p.astype(np.float32), below.astype(np.float32), config.signed)
    scale = (config.importances * (2 / (samples * n))).astype(np.float32)
    return (m, n), flags, scale, kind, law, group, table, points, chunk(config)


def chunk(config: ToyConfig) -> int:
    """Samples in flight: activations of about 64 KB, in whole vectors of 16."""
    per_sample = 8 * (config.n_features + config.d_hidden)
    return int(np.clip((1 << 16) // per_sample // 16 * 16, 64, 256))
