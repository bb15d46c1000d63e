"""Norms, interference and the fraction of a dimension that each feature has."""

import torch
from jaxtyping import Float
from pandas import DataFrame
from torch import Tensor


def check(W: Tensor, least_dim: int = 2) -> Tensor:
    """`W` if it is a finite, non-empty matrix (d_hidden, n_features) or a stack of them; ValueError says why not."""
    if not isinstance(W, Tensor) or W.layout != torch.strided:
        what = type(W).__name__ if not isinstance(W, Tensor) else "a sparse one"
        raise ValueError(f"W must be a dense torch tensor (d_hidden, n_features), not {what}")
    if W.ndim < least_dim:
        raise ValueError(f"W must have the shape (d_hidden, n_features), not {tuple(W.shape)}")
    if W.numel() == 0:
        raise ValueError(f"W of shape {tuple(W.shape)} has no entries; it needs a feature and a dimension at least")
    if not W.is_floating_point():
        raise ValueError(f"W must hold floating-point numbers, not {W.dtype}")
    if not bool(torch.isfinite(W).all()):
        raise ValueError("W holds NaN or infinite entries; training diverged or the tensor was never filled")
    return W


def gram(W: Float[Tensor, "*stack d_hidden n_features"]) -> Float[Tensor, "*stack n_features n_features"]:
    """W^T W: squared norms on the diagonal, interference W_i . W_j off it."""
    G = check(W).transpose(-1, -2) @ W
    if not bool(torch.isfinite(G).all()):
        raise ValueError(f"the squares of W's entries do not fit {W.dtype}; scale W down")
    return G


def feature_norms(W: Float[Tensor, "*stack d_hidden n_features"]) -> Float[Tensor, "*stack n_features"]:
    """||W_i||, about 1 for a feature that is represented and 0 for one that is not."""
    return check(W).norm(dim=-2)


def feature_dimensionality(W: Float[Tensor, "*stack d_hidden n_features"]) -> Float[Tensor, "*stack n_features"]:
    """Fraction of a dimension that each feature has to itself, in [0, 1].

        D_i = ||W_i||^2 / sum_j (W^_i . W_j)^2,    W^_i = W_i / ||W_i||,   the sum including j = i

    1: a dimension of its own; 1/2: antipodal pair; 2/3: triangle; 2/5: pentagon; 3/8: square antiprism.  A feature of
    zero norm is not represented: its D_i is 0.  The D_i sum to the rank of W at most.
    Leading axes (instances, snapshots) are kept.  Raises ValueError for NaN or empty W.
    Source: Elhage et al. 2022, "Toy Models of Superposition", section on the geometry of superposition.
    """
    W = _scaled(W)
    norms = W.norm(dim=-2, keepdim=True)
    unit = torch.where(norms > 0, W / norms.clamp_min(torch.finfo(W.dtype).tiny), 0.0)
    room = (unit.transpose(-1, -2) @ W).square().sum(-1)
    squared = norms.squeeze(-2).square()
    return torch.where(room > 0, squared / room.clamp_min(torch.finfo(W.dtype).tiny), 0.0)


def capacity(W: Float[Tensor, "*stack d_hidden n_features"]) -> Float[Tensor, "*stack n_features"]:
    """Share of its own output that each feature causes; equal to `feature_dimensionality`.

        C_i = (W_i . W_i)^2 / sum_j (W_i . W_j)^2

    Zero for a feature of zero norm.  Source: Scherlis et al. 2022, "Polysemanticity and Capacity in Neural Networks".
    """
    squares = gram(_scaled(W)).square()
    total = squares.sum(-1)
    own = squares.diagonal(dim1=-2, dim2=-1)
    return torch.where(total > 0, own / total.clamp_min(torch.finfo(W.dtype).tiny), 0.0)


def superposition(W: Float[Tensor, "*stack d_hidden n_features"]) -> Float[Tensor, "*stack n_features"]:
    """How much the other features weigh on each feature's direction: sum_{j != i} (W^_i . W_j)^2.

    0: a dimension of its own; 1 or more: in superposition with a whole other feature.  Zero for a zero column.
    Source: Elhage et al. 2022, the colour of the feature-norm stacks.
    """
    norms = feature_norms(W).unsqueeze(-1)
    overlap = torch.where(norms > 0, gram(W) / norms.clamp_min(torch.finfo(W.dtype).tiny), 0.0).square()
    return overlap.sum(-1) - overlap.diagonal(dim1=-2, dim2=-1)


def dimensions_per_feature(W: Float[Tensor, "d_hidden n_features"]) -> float:
    """D* = d_hidden / ||W||_F^2: dimensions spent on each feature learned, counting features by squared norm.

    1: no superposition; 1/2: antipodal pairs.  Raises ValueError if W is all zeros: then no feature is learned and
    the ratio has no value.  Source: Elhage et al. 2022.
    """
    if check(W).ndim != 2:
        raise ValueError(f"dimensions_per_feature takes one matrix (d_hidden, n_features), not shape {tuple(W.shape)}")
    squared = float(W.double().square().sum())
    if squared == 0:
        raise ValueError("W is all zeros: no feature is represented, so dimensions per feature has no value")
    return W.shape[0] / squared


def features(W: Float[Tensor, "d_hidden n_features"], *, represented: float = 0.5) -> DataFrame:
    """One row a feature: `feature, norm, dimensionality, superposition, represented`.

    `represented` is the norm from which a feature counts as learned (0.5, half-way between the two outcomes).
    """
    if check(W).ndim != 2:
        raise ValueError(f"a table of features is of one matrix (d_hidden, n_features), not of shape {tuple(W.shape)}")
    W = W.detach().cpu()
    W = W.float() if W.dtype == torch.bfloat16 else W  # NumPy has no such type
    norms = feature_norms(W)
    return DataFrame(
        {
            "feature": range(W.shape[1]),
            "norm": norms.numpy(),
            "dimensionality": feature_dimensionality(W).numpy(),
            "superposition": superposition(W).numpy(),
            "represented": (norms >= represented).numpy(),
        }
    )


def _scaled(W: Tensor) -> Tensor:
    """W over its largest entry, so that squares of tiny or huge weights neither vanish nor overflow."""
    largest = check(W).abs().amax(dim=(-1, -2), keepdim=True)
    return W / torch.where(largest > 0, largest, torch.ones_like(largest))
