"""Exact polytopes by name, what they hide behind in a trained W, and the fraction of a dimension of a vertex."""

import itertools
import math

import numpy as np
import torch

GOLDEN = (1 + math.sqrt(5)) / 2


def polygon(k: int, turn: float = 0.3) -> torch.Tensor:
    angle = turn + 2 * math.pi * torch.arange(k, dtype=torch.float64) / k
    return torch.stack([angle.cos(), angle.sin()])


def simplex(k: int) -> torch.Tensor:
    centred = torch.eye(k, dtype=torch.float64) - 1 / k
    basis = torch.linalg.svd(centred)[0][:, : k - 1]
    points = basis.T @ centred
    return points / points.norm(dim=0)


def antiprism(height_squared: float) -> torch.Tensor:
    h, r = math.sqrt(height_squared), math.sqrt(1 - height_squared)
    low = [(r * math.cos(a), r * math.sin(a), -h) for a in np.arange(4) * math.pi / 2]
    high = [(r * math.cos(a), r * math.sin(a), h) for a in np.arange(4) * math.pi / 2 + math.pi / 4]
    return torch.tensor(low + high, dtype=torch.float64).T


def icosahedron() -> torch.Tensor:
    points = [np.roll((0, s, t * GOLDEN), i) for s, t in itertools.product((-1, 1), repeat=2) for i in range(3)]
    return torch.tensor(np.array(points).T) / math.sqrt(1 + GOLDEN**2)


def cube() -> torch.Tensor:
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64).T / math.sqrt(3)


def cross_polytope(d: int) -> torch.Tensor:
    eye = torch.eye(d, dtype=torch.float64)
    return torch.cat([eye, -eye], dim=1)


def direct_sum(*blocks: torch.Tensor) -> torch.Tensor:
    return torch.block_diag(*blocks)


def random_rotation(d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]


def hidden(W: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """The same geometry, rotated and with its features in another order."""
    order = torch.randperm(W.shape[1], generator=torch.Generator().manual_seed(seed))
    return random_rotation(W.shape[0], seed) @ W[:, order]


KNOWN = {  # name -> its vertices as columns of W, each vertex's D_i
    "dedicated dimension": (torch.ones(1, 1, dtype=torch.float64), 1.0),
    "orthogonal": (torch.eye(4, dtype=torch.float64), 1.0),
    "antipodal digon": (cross_polytope(1), 1 / 2),
    "triangle": (polygon(3), 2 / 3),
    "tetrahedron": (simplex(4), 3 / 4),
    "5-cell": (simplex(5), 4 / 5),
    "simplex of 7": (simplex(7), 6 / 7),
    "square": (cross_polytope(2), 1 / 2),
    "pentagon": (polygon(5), 2 / 5),
    "hexagon": (polygon(6), 1 / 3),
    "octagon": (polygon(8), 1 / 4),
    "13-gon": (polygon(13), 2 / 13),
    "octahedron": (cross_polytope(3), 1 / 2),
    "16-cell": (cross_polytope(4), 1 / 2),
    "6-dimensional cross-polytope": (cross_polytope(6), 1 / 2),
    "square antiprism": (antiprism(1 / 3), 3 / 8),
    "cube": (cube(), 3 / 8),
    "icosahedron": (icosahedron(), 1 / 4),
}
