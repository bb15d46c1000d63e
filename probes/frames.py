"""Dictionaries whose coherence is known in closed form, and random ones: what a measured matrix is held against.

Every function returns unit columns, (d_model, n_features), in double precision.
"""

import itertools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Num
from torch import Tensor

MOST = 1 << 28
"""Entries of the largest frame that is made: 2 GiB."""


def orthonormal(d_model: int) -> Float[Tensor, "d_model d_model"]:
    """The standard basis: mu = 0."""
    _entries(d_model, d_model)
    return torch.eye(d_model, dtype=torch.float64)


def simplex(d_model: int) -> Float[Tensor, "d_model n_features"]:
    """d + 1 vertices of a regular simplex: mu = 1/d, the Welch bound.

    In R^(2k - 1) one vector has two k-sparse codes on it, so mu (2k - 1) < 1 cannot be relaxed to <=.
    """
    _entries(d_model, d_model + 1)
    n = d_model + 1
    centred = torch.eye(n, dtype=torch.float64) - 1 / n
    basis = torch.linalg.eigh(centred).eigenvectors[:, 1:]
    return _unit(basis.t() @ centred)


def mercedes_benz() -> Float[Tensor, "2 3"]:
    """Three lines in the plane at 120 degrees: mu = 1/2, the Welch bound."""
    angles = torch.arange(3, dtype=torch.float64) * (2 * math.pi / 3) + math.pi / 2
    return torch.stack([angles.cos(), angles.sin()])


def icosahedron() -> Float[Tensor, "3 6"]:
    """The six diagonals of the icosahedron: mu = 1/sqrt 5, the Welch bound."""
    golden = (1 + math.sqrt(5)) / 2
    rows = [(0, 1, golden), (0, 1, -golden), (1, golden, 0), (1, -golden, 0), (golden, 0, 1), (golden, 0, -1)]
    return _unit(torch.tensor(rows, dtype=torch.float64).t())


def lines_28() -> Float[Tensor, "7 28"]:
    """28 equiangular lines in R^7: mu = 1/3; the permutations of (3, 3, -1, -1, -1, -1, -1, -1), which sum to zero."""
    vectors = torch.full((28, 8), -1, dtype=torch.float64)
    for row, pair in enumerate(itertools.combinations(range(8), 2)):
        vectors[row, list(pair)] = 3
    across = torch.linalg.qr(torch.cat([torch.ones(8, 1, dtype=torch.float64), torch.eye(8, dtype=torch.float64)], 1))
    return _unit(across.Q[:, 1:].t() @ vectors.t())


def dirac_hadamard(d_model: int) -> Float[Tensor, "d_model n_features"]:
    """The standard basis beside a Hadamard basis (d a power of two): mu = 1/sqrt d."""
    if d_model < 2 or d_model & (d_model - 1):
        raise ValueError(f"d_model={d_model} has no Hadamard matrix of Sylvester's kind; take a power of two")
    _entries(d_model, 2 * d_model)
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    while len(hadamard) < d_model:
        hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)])
    return torch.cat([torch.eye(d_model, dtype=torch.float64), hadamard / math.sqrt(d_model)], 1)


def mutually_unbiased(prime: int) -> Num[Tensor, "d_model n_features"]:
    """p + 1 mutually unbiased bases of C^p, p an odd prime: p (p + 1) complex columns, mu = 1/sqrt p.

    Basis a has the vectors exp(2 pi i (a x^2 + b x) / p) / sqrt p (Ivanovic 1981; Alltop 1980).
    """
    if prime < 3 or any(prime % q == 0 for q in range(2, math.isqrt(prime) + 1)):
        raise ValueError(f"prime={prime} is not an odd prime")
    _entries(prime, prime * (prime + 1))
    x = torch.arange(prime)
    a, b, x = torch.meshgrid(torch.arange(prime), torch.arange(prime), x, indexing="ij")
    phase = (a * x * x + b * x).remainder(prime).double() * (2 * math.pi / prime)
    bases = torch.polar(torch.full_like(phase, 1 / math.sqrt(prime)), phase).view(prime * prime, prime).t()
    return torch.cat([torch.eye(prime, dtype=bases.dtype), bases], 1)


def random_directions(d_model: int, n_features: int, *, seed: int = 0) -> Float[Tensor, "d_model n_features"]:
    """Directions drawn uniformly on the sphere: the control of the same size."""
    _entries(d_model, n_features)
    return _unit(torch.randn(d_model, n_features, generator=_generator(seed), dtype=torch.float64))


def rademacher(d_model: int, n_features: int, *, seed: int = 0) -> Float[Tensor, "d_model n_features"]:
    """Columns of random signs over sqrt d."""
    _entries(d_model, n_features)
    signs = torch.randint(0, 2, (d_model, n_features), generator=_generator(seed), dtype=torch.float64)
    return (2 * signs - 1) / math.sqrt(d_model)


def tight(k: int, margin: float = 1.0) -> Float[Tensor, "d_model n_features"]:
    """The family on which mu (2k - 1) < 1 is sharp: Gram matrix (1 + mu) I - mu 11^T with the last sign turned.

    2k - 1 columns, mu = margin / (2k - 1), k >= 2.  Give the first k columns the coefficient 1: each of them meets the
    signal with 1 - (k - 1) mu and the last column, which is not active, with k mu.  So one-step thresholding (and the
    first step of OMP) is right for margin < 1 and wrong for margin > 1.
    """
    if k < 2 or margin * (2 * k - 2) > 2 * k - 1:
        raise ValueError(f"k={k}, margin={margin}: needs k >= 2 and margin <= (2k - 1)/(2k - 2)")
    size, mu = 2 * k - 1, margin / (2 * k - 1)
    gram = (1 + mu) * torch.eye(size, dtype=torch.float64) - mu
    gram[-1] *= -1
    gram[:, -1] *= -1
    values, vectors = torch.linalg.eigh(gram)
    return values.clamp(min=0).sqrt()[:, None] * vectors.t()


NAMED: dict[str, Callable[..., Num[Tensor, "d_model n_features"]]] = {
    "orthonormal": orthonormal,
    "simplex": simplex,
    "mercedes-benz": mercedes_benz,
    "icosahedron": icosahedron,
    "28-lines": lines_28,
    "dirac-hadamard": dirac_hadamard,
    "mutually-unbiased": mutually_unbiased,
    "random": random_directions,
    "rademacher": rademacher,
}
"""Frames by the name the command line and the page give them; arguments are sizes."""


def _entries(d_model: int, n_features: int) -> None:
    if d_model < 1 or n_features < 1 or d_model * n_features > MOST:
        raise ValueError(
            f"a frame of {d_model} x {n_features} is empty or beyond {MOST:,} entries; choose another size"
        )


def _unit(columns: Tensor) -> Tensor:
    return columns / torch.linalg.vector_norm(columns, dim=0)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
