"""The expected loss of a small ReLU toy model, and its gradient, exactly.

With each feature 0 or uniform on [0, 1], the loss is a sum over the sets of active features of integrals of a quadratic
over the part of a cube on one side of a plane (where the ReLU is open).  All of them follow from that region's moments
up to degree 2, which are piecewise polynomials along each axis: Gauss-Legendre nodes between the corners are exact.
"""

from collections.abc import Sequence
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.geometry import _measures

MOST_FEATURES = 4
"""Sets of active features and corners of the cube both double with each feature."""


_FLAT = 1e-30


class Moments(NamedTuple):
    """Integrals over {x in [0, 1]^k : b + a . x > 0} of 1, x_j and x_i x_j (`second[i][j]` for j <= i)."""

    volume: Tensor
    first: list[Tensor]
    second: list[list[Tensor]]


def moments(b: Float[Tensor, "*stack"], a: Sequence[Float[Tensor, "*stack"]]) -> Moments:
    """Volume, first and second moments of the part of the unit cube where b + a . x > 0, exact to rounding.

    One axis at a time: along the last axis, the moments of the slice are polynomials of degree k + 1 at most between
    the points where the plane passes a corner of the slice; those pieces get Gauss-Legendre nodes.
    """
    if not a:
        return Moments((b > 0).to(b.dtype), [], [])
    if len(a) == 1:
        return _interval(b, a[0])
    *rest, along = a
    corners = [
        b + sum((r for r, on in zip(rest, bits, strict=True) if on), torch.zeros_like(b)) for bits in _bits(rest)
    ]
    cuts = torch.stack([_crossing(corner, along) for corner in corners]).sort(dim=0).values
    ends = torch.cat([torch.zeros_like(cuts[:1]), cuts, torch.ones_like(cuts[:1])])
    nodes, weights = np.polynomial.legendre.leggauss((len(a) + 3) // 2)
    unit = torch.as_tensor((nodes + 1) / 2, dtype=b.dtype).reshape(-1, *[1] * cuts.ndim)
    width = ends[1:] - ends[:-1]
    t = ends[:-1] + unit * width
    weight = torch.as_tensor(weights / 2, dtype=b.dtype).reshape(-1, *[1] * cuts.ndim) * width
    inner = moments(b + along * t, [r.expand_as(t) for r in rest])

    def integral(values: Tensor) -> Tensor:
        return (weight * values).sum((0, 1))

    tilted = t * inner.volume
    second = [[integral(entry) for entry in row] for row in inner.second]
    second.append([*(integral(t * f) for f in inner.first), integral(t * tilted)])
    return Moments(integral(inner.volume), [*(integral(f) for f in inner.first), integral(tilted)], second)


def exact_loss(
    W: Float[Tensor, "*stack d_hidden n_features"],
    b: Float[Tensor, "*stack n_features"],
    feature_probability: Float[Tensor, "*stack n_features"],
    importance: Float[Tensor, "*stack n_features"],
) -> Float[Tensor, "*stack"]:
    """E sum_i I_i (x_i - ReLU(W^T W x + b)_i)^2: the sum over features, no sampling, exact to rounding.

    Leading axes broadcast; b, p and I are brought to the type of W.  ValueError for more than four features (the work
    doubles twice with each), shapes that do not fit each other, numbers that are not finite or whose squares are not.
    """
    return loss_and_gradients(W, b, feature_probability, importance)[0]


def loss_and_gradients(
    W: Float[Tensor, "*stack d_hidden n_features"],
    b: Float[Tensor, "*stack n_features"],
    feature_probability: Float[Tensor, "*stack n_features"],
    importance: Float[Tensor, "*stack n_features"],
) -> tuple[Tensor, Tensor, Tensor]:
    """`exact_loss` with its gradients by W and by b, one for each model of the stack that the leading axes make.

    No boundary terms appear: the integrand is continuous where the ReLU opens.
    """
    W, b, feature_probability, importance = _stacked(W, b, feature_probability, importance)
    n = W.shape[-1]
    G = _measures.gram(W).movedim((-2, -1), (0, 1))  # output, input, *stack
    offset, p, weight = (given.movedim(-1, 0) for given in (b, feature_probability, importance))
    by_output, by_b, by_G = p / 3, torch.zeros_like(offset), torch.zeros_like(G)
    for size in range(n + 1):
        for active in combinations(range(n), size):
            chance = torch.stack([p[j] if j in active else 1 - p[j] for j in range(n)]).prod(0)
            region = moments(offset, [G[:, j] for j in active])
            loss, slope_b, slope_G = _share(offset, G, active, region)
            by_output = by_output + chance * loss
            by_b += chance * slope_b
            for place, j in enumerate(active):
                by_G[:, j] += chance * slope_G[place]
    by_G *= weight.unsqueeze(1)
    grad_G = by_G.movedim((0, 1), (-2, -1))
    grad_W = W @ (grad_G + grad_G.transpose(-1, -2))
    loss = (weight * by_output).sum(0)
    if not bool(torch.isfinite(loss).all()):
        raise ValueError(f"the loss leaves what {loss.dtype} can hold; scale W, b and importance down")
    return loss, grad_W, (weight * by_b).movedim(0, -1)


def _stacked(W: Tensor, b: Tensor, p: Tensor, importance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All four with the same leading axes, and a last axis of n features."""
    n = _measures.check(W).shape[-1]
    if n > MOST_FEATURES:
        raise ValueError(f"the exact loss of {n} features would take too long; it is offered up to {MOST_FEATURES}")
    beside = {"b": b, "feature_probability": p, "importance": importance}
    for name, given in beside.items():
        if not isinstance(given, Tensor) or given.layout != torch.strided or not given.ndim:
            raise ValueError(f"{name} must be a dense torch tensor with one entry for each of the {n} features")
        if given.is_complex() or not bool(torch.isfinite(given).all()):
            raise ValueError(f"{name} holds what is no finite number")
    try:
        stack = torch.broadcast_shapes(W.shape[:-2], *(given.shape[:-1] for given in beside.values()))
        b, p, importance = (given.to(W).expand(*stack, n) for given in beside.values())
    except RuntimeError as error:
        shapes = ", ".join(f"{name} {tuple(given.shape)}" for name, given in beside.items())
        raise ValueError(f"shapes do not fit: {shapes} beside W {tuple(W.shape)}; give (*stack, {n})") from error
    return W.expand(*stack, *W.shape[-2:]), b, p, importance


def _share(b: Tensor, G: Tensor, active: Sequence[int], region: Moments) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Integral over the open region of a^2 - 2 a x_i, with its slopes by b_i and G_ij, for every output i at once.

    a = b_i + sum_j G_ij x_j is the pre-activation; x_i is 0 for an output that is not among the active features.
    """
    gains = [G[:, j] for j in active]
    k = len(active)

    def pair(i: int, j: int) -> Tensor:
        return region.second[max(i, j)][min(i, j)]

    mean_a = b * region.volume + sum((g * f for g, f in zip(gains, region.first, strict=True)), torch.zeros_like(b))
    a_x = [b * region.first[j] + _dot(gains, [pair(i, j) for i in range(k)], b) for j in range(k)]
    a_a = b * mean_a + _dot(gains, a_x, b)
    own = torch.zeros_like(b)
    own_mean = torch.zeros_like(b)
    own_x = [torch.zeros_like(b) for _ in active]
    for place, feature in enumerate(active):
        own[feature] = a_x[place][feature]
        own_mean[feature] = region.first[place][feature]
        for j in range(k):
            own_x[j][feature] = pair(place, j)[feature]
    return a_a - 2 * own, 2 * (mean_a - own_mean), [2 * (a_x[j] - own_x[j]) for j in range(k)]


def _interval(b: Tensor, a: Tensor) -> Moments:
    cut = _crossing(b, a)
    rising = a > -_FLAT  # a zero slope counts as rising, as in _crossing
    low, high = torch.where(rising, cut, 0.0), torch.where(rising, 1.0, cut)
    low_2, high_2 = low * low, high * high
    return Moments(high - low, [(high_2 - low_2) / 2], [[(high_2 * high - low_2 * low) / 3]])


def _crossing(b: Tensor, a: Tensor) -> Tensor:
    """Where b + a t changes sign, clipped to [0, 1]; a zero slope counts as rising by almost nothing."""
    return (-b / torch.where(a.abs() < _FLAT, _FLAT, a)).clamp(0.0, 1.0)


def _bits(axes: Sequence[Tensor]) -> list[tuple[int, ...]]:
    return list(product((0, 1), repeat=len(axes)))


def _dot(left: Sequence[Tensor], right: Sequence[Tensor], like: Tensor) -> Tensor:
    return sum((x * y for x, y in zip(left, right, strict=True)), torch.zeros_like(like))
