"""Sparse recovery in batches: one-step thresholding, orthogonal matching pursuit, basis pursuit / Lasso.

All take unit columns V (d_model, n_features) and signals X (d_model, n_signals), one a column, and return the indices
of the k features they name for each signal.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor


def thresholding(
    V: Float[Tensor, "d_model n_features"], X: Float[Tensor, "d_model n_signals"], k: int
) -> Int[Tensor, "n_signals k"]:
    """The k features with the largest |<v_j, x>|: what a single linear layer with top-k can do."""
    return (V.t() @ X).abs_().topk(k, dim=0).indices.t()


def omp(
    V: Float[Tensor, "d_model n_features"], X: Float[Tensor, "d_model n_signals"], k: int
) -> Int[Tensor, "n_signals k"]:
    """Orthogonal matching pursuit, k steps: take the feature that meets the residual best, project, repeat.

    The chosen columns are orthonormalised one after the other (twice, for accuracy), so a step costs one product
    with V.  Source: Pati, Rezaiifar & Krishnaprasad 1993; agrees with `sklearn.linear_model.orthogonal_mp`.
    """
    d, batch = X.shape
    residual = X.t().clone()  # (n_signals, d)
    basis = X.new_zeros(batch, k, d)
    chosen = torch.empty(batch, k, dtype=torch.int64, device=X.device)
    for step in range(k):
        match = (residual @ V).abs_()
        if step:
            match.scatter_(1, chosen[:, :step], -1)
        pick = match.argmax(1)
        chosen[:, step] = pick
        new = V.t()[pick]
        for _ in range(2):
            inside = basis[:, :step] @ new[:, :, None]
            new = new - (basis[:, :step].mT @ inside)[:, :, 0]
        length = torch.linalg.vector_norm(new, dim=1, keepdim=True)
        # a column inside the span of those chosen adds nothing: it keeps its place in the list, not in the basis
        new = torch.where(length > 1e-6, new / length.clamp(min=1e-30), torch.zeros_like(new))
        basis[:, step] = new
        residual = residual - (new * residual).sum(1, keepdim=True) * new
    return chosen


def lasso(
    V: Float[Tensor, "d_model n_features"],
    X: Float[Tensor, "d_model n_signals"],
    k: int,
    *,
    penalty: float = 0.0,
    steps: int = 400,
) -> Int[Tensor, "n_signals k"]:
    """The k largest coefficients of the minimiser of penalty ||z||_1 + ||V z - x||^2 / 2; basis pursuit at penalty 0.

    `penalty` is relative to max |<v_j, x>| of each signal, at whose value 1 every coefficient vanishes.
    """
    codes = lasso_codes(V, X, penalty=penalty, steps=steps)
    return codes.abs().topk(k, dim=0).indices.t()


def lasso_codes(
    V: Float[Tensor, "d_model n_features"],
    X: Float[Tensor, "d_model n_signals"],
    *,
    penalty: float = 0.0,
    steps: int = 400,
    tolerance: float = 1e-5,
) -> Float[Tensor, "n_features n_signals"]:
    """Coefficients of `lasso`, by the alternating direction method of multipliers (Boyd et al. 2011, section 6).

    One step is two products with V: the quadratic part is solved exactly through a d x d Cholesky factor, and with
    penalty 0 it becomes the projection on {z : V z = x}.  Stops once no signal moves by more than `tolerance`.
    """
    d = len(V)
    scale = (V.t() @ X).abs_().amax(0).clamp(min=1e-30)
    X = X / scale  # coefficients of order one, so that one step size serves all signals
    gram = V @ V.t()
    shrink = 0.2
    # the step size is 1 / shrink, so the quadratic part of weight 1 / penalty leaves penalty / shrink on the diagonal
    ridge = max(penalty / shrink, 1e-6 * float(gram.diagonal().mean()))
    factor = torch.linalg.cholesky(gram + ridge * torch.eye(d, dtype=V.dtype, device=V.device))
    pull = torch.cholesky_solve(V, factor).t()  # V^T (V V^T + ridge)^-1
    codes = torch.zeros(V.shape[1], X.shape[1], dtype=V.dtype, device=V.device)
    dual = torch.zeros_like(codes)
    for step in range(steps):
        guess = codes - dual
        exact = guess + pull @ (X - V @ guess)
        before = codes
        dual += exact
        codes = torch.nn.functional.softshrink(dual, shrink)
        dual -= codes
        if step % 20 == 19 and float((codes - before).abs().max()) < tolerance:
            break
    return codes * scale


METHODS: dict[str, Callable[..., Int[Tensor, "n_signals k"]]] = {
    "thresholding": thresholding,
    "omp": omp,
    "lasso": lasso,
}
