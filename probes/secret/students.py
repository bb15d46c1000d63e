"""What every student of a feed-forward layer is: a function of its input, its experts, and what it costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Cost:
    """Parameters, counted one multiply-add a token each where they are active."""

    shared: int
    """Active for every token."""
    expert: int
    """Of the experts used for a token."""
    bias: int
    """Constants added for a token."""
    router: int
    """What choosing the experts takes."""
    stored: int
    """All parameters kept, the router's too."""

    @property
    def active(self) -> int:
        """Active parameters without the router."""
        return self.shared + self.expert + self.bias

    @property
    def active_with_router(self) -> int:
        """Active parameters, the router's too."""
        return self.active + self.router


@runtime_checkable
class Student(Protocol):
    """A stand-in for a feed-forward layer."""

    @property
    def n_experts(self) -> int:
        """Experts to choose from, 0 without any."""
        ...

    @property
    def k(self) -> int:
        """Experts used for a token."""
        ...

    def __call__(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_out"]:
        """Its answer to each row."""
        ...

    def route(self, x: Float[Tensor, "n d_in"]) -> Int[Tensor, "n k"]:
        """Experts used for each row, the heaviest first; no column where there are none."""
        ...

    @property
    def cost(self) -> Cost:
        """What it costs."""
        ...

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Its parameters by name."""
        ...


@dataclass(frozen=True, eq=False)
class CellMixture:
    """y = (x W_s) V_s + sum over the k chosen experts e of p_e ((x W_e) V_e + b_e): regions with an affine map each.

    Scores s_e = x . c_e - |c_e|^2 / 2 choose the k nearest centroids; p = softmax of the chosen scores over the
    temperature, 1 for k = 1.  With rank 0 it is a table of constants.
    """

    centroids: Float[Tensor, "n_experts d_in"]
    read: Float[Tensor, "n_experts d_in rank"]
    write: Float[Tensor, "n_experts rank d_out"]
    bias: Float[Tensor, "n_experts d_out"]
    shared_read: Float[Tensor, "d_in shared"]
    shared_write: Float[Tensor, "shared d_out"]
    k: int = 1
    temperature: float = 1.0

    @property
    def n_experts(self) -> int:
        """Cells."""
        return len(self.centroids)

    def scores(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n n_experts"]:
        """Half the squared norm of x less half the squared distance to each centroid."""
        return x @ self.centroids.T - self.centroids.square().sum(dim=1) / 2

    def choose(self, x: Float[Tensor, "n d_in"]) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Experts used and their weights."""
        top = self.scores(x).topk(self.k, dim=1)
        return top.indices, (top.values / self.temperature).softmax(dim=1)

    def route(self, x: Float[Tensor, "n d_in"]) -> Int[Tensor, "n k"]:
        """Experts used, the nearest first."""
        return self.choose(x)[0]

    def __call__(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_out"]:
        """Its answer to each row."""
        index, weight = self.choose(x)
        if not self.read.shape[2] and not self.shared_read.shape[1]:
            return (weight[:, :, None] * self.bias[index]).sum(dim=1)
        y = x @ self.shared_read @ self.shared_write
        for slot in range(self.k):
            for e in index[:, slot].unique().tolist():
                here = index[:, slot] == e
                y[here] += weight[here, slot, None] * (x[here] @ self.read[e] @ self.write[e] + self.bias[e])
        return y

    @property
    def cost(self) -> Cost:
        """What it costs."""
        shared = self.shared_read.numel() + self.shared_write.numel()
        one = self.read[0].numel() + self.write[0].numel()
        router = self.centroids.numel() + self.n_experts if self.n_experts > 1 else 0
        stored = shared + self.n_experts * (one + self.bias.shape[1]) + router
        return Cost(shared, self.k * one, self.k * self.bias.shape[1], router, stored)

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Its parameters by name."""
        names = ("centroids", "read", "write", "bias", "shared_read", "shared_write")
        settings = {"k": np.array([self.k]), "temperature": np.array([self.temperature], dtype=np.float32)}
        return {name: getattr(self, name).numpy() for name in names} | settings

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> "CellMixture":
        """The mixture that gave `arrays`."""
        held = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
        k, temperature = int(held.pop("k")), float(held.pop("temperature"))
        return cls(**held, k=k, temperature=temperature)
