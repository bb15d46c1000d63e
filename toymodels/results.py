"""What training gives back: single toys, stacks of them, and how they came about."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from pandas import DataFrame
from torch import Tensor

from toymodels.config import ToyConfig


@dataclass(frozen=True)
class Toy:
    """One trained toy model."""

    config: ToyConfig
    seed: int
    W: Float[Tensor, "d_hidden n_features"]
    b: Float[Tensor, " n_features"]
    loss: float
    """Mean over samples and features of I_i (x_i - x'_i)^2 on a large fresh sample (or on the whole finite dataset)."""
    V: Float[Tensor, "d_hidden n_features"] | None = None
    """Decoder of an untied model (x' = relu(V^T h + b)); None where W is used for both."""

    def module(self) -> torch.nn.Module:
        """The model as a `toymodels.model.ToyModel`, samples first."""
        from toymodels.model import ToyModel

        return ToyModel(self.config, self.W, self.b, self.V)

    def hooked(self) -> torch.nn.Module:
        """The model as a TransformerLens hooked module with `run_with_cache`."""
        from toymodels.model import hooked

        return hooked(self)


@dataclass(frozen=True)
class Snapshots:
    """Weights on a logarithmic schedule of steps, from the start (step 0) to the end."""

    steps: Int[np.ndarray, " snapshots"]
    W: Float[Tensor, "snapshots instances d_hidden n_features"]
    b: Float[Tensor, "snapshots instances n_features"]
    loss: Float[Tensor, "snapshots instances"]
    """Mean batch loss since the snapshot before (NaN at step 0)."""


@dataclass(frozen=True)
class Toys:
    """A stack of trained toy models of equal shape, one an instance."""

    configs: tuple[ToyConfig, ...]
    seeds: tuple[int, ...]
    W: Float[Tensor, "instances d_hidden n_features"]
    b: Float[Tensor, "instances n_features"]
    loss: Float[Tensor, " instances"]
    V: Float[Tensor, "instances d_hidden n_features"] | None = None
    snapshots: Snapshots | None = None
    steps: Int[np.ndarray, " instances"] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Steps each instance was trained for (fewer than asked where it stopped early)."""
    rate: float = float("nan")
    """Instance-steps a second of wall time."""
    engine: str = "torch"

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, instance: int) -> Toy:
        decoder = None if self.V is None else self.V[instance]
        config, seed, loss = self.configs[instance], self.seeds[instance], float(self.loss[instance])
        return Toy(config, seed, self.W[instance], self.b[instance], loss, decoder)

    def part(self, instances: slice) -> "Toys":
        """Some of the instances, as a stack of their own."""
        kept = self.snapshots
        if kept is not None:
            kept = Snapshots(kept.steps, kept.W[:, instances], kept.b[:, instances], kept.loss[:, instances])
        return Toys(
            configs=self.configs[instances],
            seeds=self.seeds[instances],
            W=self.W[instances],
            b=self.b[instances],
            loss=self.loss[instances],
            V=None if self.V is None else self.V[instances],
            snapshots=kept,
            steps=self.steps[instances],
            rate=self.rate,
            engine=self.engine,
        )

    @staticmethod
    def joined(parts: "Sequence[Toys]") -> "Toys":
        """Stacks of equal shape as one, in order."""
        kept = [part.snapshots for part in parts if part.snapshots is not None]
        snapshots = None
        if len(kept) == len(parts):
            snapshots = Snapshots(
                kept[0].steps,
                torch.cat([s.W for s in kept], 1),
                torch.cat([s.b for s in kept], 1),
                torch.cat([s.loss for s in kept], 1),
            )
        decoders = [part.V for part in parts if part.V is not None]
        return Toys(
            configs=tuple(config for part in parts for config in part.configs),
            seeds=tuple(seed for part in parts for seed in part.seeds),
            W=torch.cat([part.W for part in parts]),
            b=torch.cat([part.b for part in parts]),
            loss=torch.cat([part.loss for part in parts]),
            V=torch.cat(decoders) if decoders else None,
            snapshots=snapshots,
            steps=np.concatenate([part.steps for part in parts]),
            rate=sum(part.rate for part in parts),
            engine=parts[0].engine,
        )

    @property
    def config(self) -> ToyConfig:
        """Settings of the first instance (of all, unless the stack came from a sweep)."""
        return self.configs[0]

    def best(self) -> Toy:
        """The instance with the lowest loss on the large sample, never by its last batch."""
        return self[int(torch.nan_to_num(self.loss, nan=torch.inf).argmin())]

    @property
    def table(self) -> DataFrame:
        """One row an instance: `seed, loss, best, steps, frobenius_squared, dimensions_per_feature`."""
        size = self.W.square().sum((1, 2)).double()
        best = int(torch.nan_to_num(self.loss, nan=torch.inf).argmin())
        return DataFrame(
            {
                "seed": list(self.seeds),
                "loss": self.loss.double().numpy(),
                "best": np.arange(len(self)) == best,
                "steps": self.steps,
                "frobenius_squared": size.numpy(),
                "dimensions_per_feature": (self.W.shape[1] / size).numpy(),
            }
        )
