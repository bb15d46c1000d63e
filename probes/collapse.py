"""How near the token vectors of a window are to one single vector, and how many dimensions an attention pattern has."""

import torch
from jaxtyping import Float
from torch import Tensor

RESIDUALS = ("residual_composite", "residual_frobenius", "residual_l1", "residual_linf")
"""Relative residuals to the mean token, by norm."""
MEASURES = (*RESIDUALS, "stable_rank", "mean_cosine")
"""What `window_measures` gives, in this order."""
PATTERN_MEASURES = ("rank", "rank_percent", "effective_rank", "stable_rank", "first_key")
"""What `pattern_measures` gives, in this order."""


def norms(x: Float[Tensor, "n_tokens d_model"]) -> Float[Tensor, " n_norms"]:
    """Composite, Frobenius, 1- and infinity-norm of a matrix with one row a token.

    The two last are induced: ||X||_1 is the largest column sum of |X|, ||X||_inf the largest row sum.  The composite
    norm of Dong et al. 2021 is sqrt(||X||_1 ||X||_inf).
    """
    size = x.abs()
    columns, rows = size.sum(dim=0).amax(), size.sum(dim=1).amax()
    return torch.stack([(columns * rows).sqrt(), x.square().sum().sqrt(), columns, rows])


def residual(x: Float[Tensor, "n_tokens d_model"]) -> Float[Tensor, "n_tokens d_model"]:
    """X - 1 m^T, where m is the mean token: zero exactly if all tokens are the same vector.

    The mean is the nearest single vector in Frobenius norm; Dong et al. take the nearest one in their composite norm,
    which has no closed form and whose residual is therefore no larger than this one.
    """
    return x - x.mean(dim=0)


def stable_rank(x: Float[Tensor, "n_tokens d_model"]) -> float:
    """||X||_F^2 / ||X||_2^2, from 1 (rank one) to min(n_tokens, d_model) (all singular values equal); NaN for zeros."""
    x = x.double() / x.abs().amax().double()
    return float(x.square().sum() / torch.linalg.eigvalsh(_small_gram(x))[-1])


def mean_cosine(x: Float[Tensor, "n_tokens d_model"]) -> float:
    """Mean cosine over all pairs of different tokens: (||sum of u_i||^2 - n) / (n (n - 1)), u_i of length one.

    Tokens of length zero have no direction and are left out; NaN if fewer than two are left.
    """
    x = x.double()
    length = x.norm(dim=1, keepdim=True)
    unit = (x / length)[length[:, 0] > 0]
    n = len(unit)
    if n < 2:
        return float("nan")
    return float((unit.sum(dim=0).square().sum() - n) / (n * (n - 1)))


def window_measures(x: Float[Tensor, "n_tokens d_model"]) -> Float[Tensor, " n_measures"]:
    """MEASURES of the token vectors of one window, in float64.

    Residuals are relative: ||X - 1 m^T|| / ||X|| in the same norm above and below the line.  0 says that all tokens
    are one vector; a set of vectors with mean zero has 1.  Raises ValueError for fewer than two tokens.
    Source: Dong, Cordonnier and Loukas 2021 (arXiv:2103.03404), section 2 and figure 2.
    """
    if len(x) < 2:
        raise ValueError(f"a window of {len(x)} token has no spread; give at least 2")
    x = x.double()
    relative = norms(residual(x)) / norms(x)
    return torch.cat([relative.cpu(), torch.tensor([stable_rank(x), mean_cosine(x)], dtype=torch.float64)])


def pattern_measures(patterns: Float[Tensor, "n_heads n_queries n_keys"]) -> Float[Tensor, "n_heads n_measures"]:
    """PATTERN_MEASURES of the attention patterns A of one window, a row a head.

        rank            singular values s above s_1 T eps, with eps of float32: what the numbers can tell from zero
        rank_percent    singular values above 1% of s_1
        effective_rank  exp(entropy of s / sum s)
        stable_rank     sum s^2 / s_1^2
        first_key       share of the attention that goes to the first key

    The null space of A has n_keys - rank dimensions.  A causal softmax pattern is triangular with a positive
    diagonal, hence of full rank in exact arithmetic: its null space is one of directions that are lost to rounding.
    Sources: Roy and Vetterli 2007 (effective rank); Brunner et al. 2020 (null space of attention).
    """
    a = patterns.float()
    s = torch.linalg.svdvals(a).double().cpu()
    top = s[:, :1]
    share = s / s.sum(dim=1, keepdim=True)
    entropy = -(share * share.clamp(min=1e-300).log()).sum(dim=1)
    resolved = top * a.shape[-1] * torch.finfo(torch.float32).eps
    measures = (
        (s > resolved).sum(dim=1).double(),
        (s > 0.01 * top).sum(dim=1).double(),
        entropy.exp(),
        s.square().sum(dim=1) / top[:, 0].square(),
        a[:, :, 0].double().mean(dim=1).cpu(),
    )
    return torch.stack(measures, dim=1)


def _small_gram(x: Tensor) -> Tensor:
    """X X^T or X^T X, whichever is smaller: same eigenvalues but for zeros."""
    return x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
