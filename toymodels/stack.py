"""A stack of instances in training: their weights, their optimiser's moments, and the plain-torch engine."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels import features
from toymodels.adamw import AdamW
from toymodels.config import ToyConfig
from toymodels.gradients import Activation, AutogradGradients, Gradients, Params

WORKING_SET = 8 << 20
"""Bytes of activations kept in flight; large enough to hide what a call costs, small enough for the L3 cache."""
LOSS_EVERY = 8
"""The torch engine measures the batch loss at every so many steps, since measuring costs a pass ..."""
ALWAYS = 64
"""... except among the first steps, where snapshots stand close together."""
Sums = tuple[Float[np.ndarray, " active"], int]


class Stack:
    """Instances of equal shape: flat (instances, size) tensors of parameters and moments, with views by name."""

    def __init__(self, configs: Sequence[ToyConfig], seeds: Sequence[int], dtype: torch.dtype = torch.float32):
        self.configs, self.seeds = tuple(configs), tuple(seeds)
        config = configs[0]
        self.shapes: dict[str, tuple[int, ...]] = {"W": (config.d_hidden, config.n_features)}
        if config.model == "untied":
            self.shapes["V"] = (config.d_hidden, config.n_features)
        self.shapes["b"] = (config.n_features,)
        size = sum(int(np.prod(shape)) for shape in self.shapes.values())
        self.params = torch.zeros(len(seeds), size, dtype=dtype)
        self.first, self.second = torch.zeros_like(self.params), torch.zeros_like(self.params)
        for views, config, seed in zip(self._rows(), configs, seeds, strict=True):
            for name, start in initial(config, seed).items():
                views[name].copy_(start)

    def views(self, flat: Tensor) -> Params:
        """Parameters by name, as views of a flat tensor."""
        sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
        parts = flat.split(sizes, dim=1)
        return {name: part.view(-1, *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def _rows(self) -> list[Params]:
        views = self.views(self.params)
        return [{name: value[i] for name, value in views.items()} for i in range(len(self.seeds))]


def initial(config: ToyConfig, seed: int) -> Params:
    """Weights before training: Xavier normal for one (d_hidden, n_features) matrix, b = 0.

    Drawn for each instance on its own; applied to a stacked 3-D tensor, torch's `xavier_normal_` would count the
    instances into the fan and start large stacks almost at zero.
    """
    m, n = config.d_hidden, config.n_features
    generator = torch.Generator().manual_seed(seed)
    scale = config.init_scale * (2 / (m + n)) ** 0.5
    start = {"W": torch.randn(m, n, generator=generator) * scale}
    if config.model == "untied":
        start["V"] = torch.randn(m, n, generator=generator) * scale
    return start


@runtime_checkable
class Engine(Protocol):
    """Moves a stack forward."""

    name: str

    def advance(self, active: Int[np.ndarray, " active"], start: int, stop: int) -> Sums:
        """Run steps `start` to `stop - 1` of the instances `active`; summed batch losses, and of how many."""
        ...


class TorchEngine:
    """Plain torch: chunks of instances through batched products, gradients by hand or by autograd."""

    name = "torch"

    def __init__(self, stack: Stack, activation: Activation | None = None):
        self._stack, self._activation = stack, activation
        config = stack.configs[0]
        self._by_hand = activation is None and (config.activation == "relu" or config.model == "linear")
        per_instance = 6 * 4 * config.n_features * config.samples
        self._chunk = max(1, WORKING_SET // per_instance)
        self._datasets: dict[int, Tensor] = {}

    def advance(self, active: Int[np.ndarray, " active"], start: int, stop: int) -> Sums:
        """Chunk after chunk, so that one chunk's activations stay in cache over all its steps."""
        parts = [active[i : i + self._chunk] for i in range(0, len(active), self._chunk)]
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)  # products this small lose more to waking threads than they gain
            with torch.no_grad():
                sums = [self._advance(part, start, stop) for part in parts]
            return np.concatenate([total for total, _ in sums]), sums[0][1]
        finally:
            torch.set_num_threads(threads)

    def _advance(self, part: Int[np.ndarray, " chunk"], start: int, stop: int) -> Sums:
        stack, config = self._stack, self._stack.configs[0]
        configs = [stack.configs[i] for i in part]
        rows = torch.as_tensor(part)
        params, first, second = stack.params[rows], stack.first[rows], stack.second[rows]
        views = stack.views(params)
        dtype = params.dtype
        importance = torch.as_tensor(np.stack([c.importances for c in configs]), dtype=dtype)
        gradients: Gradients | AutogradGradients
        if self._by_hand:
            gradients = Gradients(config, views, importance, config.samples)
        else:
            gradients = AutogradGradients(config, views, importance, self._activation)
        flat = torch.empty_like(params)
        gradients.grads = stack.views(flat)
        decay = torch.as_tensor([[c.weight_decay] for c in configs], dtype=dtype)
        rates = torch.as_tensor(np.stack([c.learning_rates(start, stop) for c in configs]), dtype=dtype)
        optimiser = AdamW(params, flat, first, second, decay)
        points = self._dataset(part) if config.n_points else None
        source = (
            None
            if points is not None
            else features.Source(configs, [stack.seeds[i] for i in part], config.samples, dtype=params.dtype)
        )
        total, count = torch.zeros(len(part), dtype=dtype), 0
        for step in range(start, stop):
            x = points if points is not None else source.batch(step)  # type: ignore[union-attr]
            wanted = step % LOSS_EVERY == 0 or step < ALWAYS
            loss = gradients(x, wanted)
            if wanted and loss is not None:
                total += loss
                count += 1
            optimiser.step(step + 1, rates[:, step - start, None])
        stack.params[rows], stack.first[rows], stack.second[rows] = params, first, second
        return total.double().numpy(), count

    def _dataset(self, part: Int[np.ndarray, " chunk"]) -> Tensor:
        for i in part:
            if i not in self._datasets:
                self._datasets[i] = features.dataset(self._stack.configs[i], self._stack.seeds[i]).T
        return torch.stack([self._datasets[i] for i in part]).to(self._stack.params.dtype)
