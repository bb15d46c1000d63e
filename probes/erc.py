"""Tropp's exact recovery condition: a promise about one support, and what follows for all supports of a size."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.bounds import ROUNDING
from probes.columns import Columns

EXHAUSTIVE = 5_000
"""Up to this many supports of a size all of them are tried."""


def erc_value(columns: Columns, support: Sequence[int] | Int[Tensor, " k"]) -> float:
    """max over j outside the support S of || V_S^+ v_j ||_1; below 1, OMP and basis pursuit recover every code on S.

    Infinite if the columns of S are linearly dependent; 0 if nothing lies outside S.
    Source: Tropp 2004, Theorem A.  ValueError if S is empty, repeats a feature or leaves the dictionary.
    """
    chosen = torch.as_tensor(support, dtype=torch.int64).flatten().to(columns.device)
    n = columns.n_features
    if not len(chosen) or len(chosen.unique()) != len(chosen) or chosen.min() < 0 or chosen.max() >= n:
        raise ValueError(f"a support is a list of different features between 0 and {n - 1}; got {chosen.tolist()[:8]}")
    basis = columns.pick(chosen)
    if len(chosen) > columns.d_model or torch.linalg.matrix_rank(basis) < len(chosen):
        return math.inf
    inverse = torch.linalg.pinv(basis)
    worst = 0.0
    for first in range(0, n, 4096):
        last = min(first + 4096, n)
        sums = (inverse @ columns.block(first, last, torch.float64)).abs().sum(0)
        inside = chosen[(chosen >= first) & (chosen < last)] - first
        sums[inside] = 0
        worst = max(worst, float(sums.max()))
    return worst


def k_exact_recovery(
    columns: Columns, rows: Int[Tensor, " n"], neighbours: Int[Tensor, "n k_max"], proven: int
) -> tuple[int, bool]:
    """Largest k such that no support of size <= k was found on which the condition fails, and whether that is exact.

    `rows` are suspicious columns and `neighbours` the others nearest to each: supports made of a column's nearest
    neighbours are the ones it is most easily mistaken for.  Up to `proven` (the k of the Babel function) no support
    can fail.  Where there are at most `EXHAUSTIVE` supports of a size all of them are tried and the answer is exact;
    otherwise it is an upper bound on what the condition guarantees.
    """
    n, exact = columns.n_features, True
    cap = min(n - 1, columns.d_model, neighbours.shape[1])
    for k in range(proven + 1, cap + 1):
        if float(suspicion(columns, rows, neighbours[:, :k]).max()) >= 1 - ROUNDING:
            return k - 1, exact
        if k == 1:  # the suspects held the largest cosine of all, which is the condition's worst value
            continue
        if math.comb(n, k) > EXHAUSTIVE:
            exact = False
        elif _worst_of_all(columns, k) >= 1 - ROUNDING:
            return k - 1, exact
    return max(proven, cap), exact


def _worst_of_all(columns: Columns, k: int) -> float:
    """The condition's largest value over all supports of size k."""
    unit = columns.block(0, columns.n_features, torch.float64)
    gram = unit.mH @ unit
    every = torch.tensor(list(itertools.combinations(range(columns.n_features), k)), device=gram.device)
    worst = 0.0
    for supports in every.split(512):
        inside = gram[supports[:, :, None], supports[:, None, :]]
        if float(torch.linalg.eigvalsh(inside)[:, 0].min()) < 1e-10:
            return math.inf
        sums = torch.linalg.solve(inside, gram[supports]).abs().sum(1).scatter(1, supports, 0)
        worst = max(worst, float(sums.max()))
    return worst


def suspicion(columns: Columns, rows: Int[Tensor, " n"], neighbours: Int[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """|| V_S^+ v_i ||_1 for each column i of `rows` and S its listed neighbours; infinite where S is dependent."""
    out = []
    for mine, part in zip(rows.split(16), neighbours.split(16), strict=True):
        basis = columns.pick(part.flatten()).unflatten(1, part.shape).movedim(1, 0)
        gram = basis.mH @ basis
        target = basis.mH @ columns.pick(mine).t().unsqueeze(2)
        dependent = torch.linalg.eigvalsh(gram)[:, 0] < 1e-10
        gram[dependent] = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
        out.append(torch.linalg.solve(gram, target).abs().sum((1, 2)).masked_fill(dependent, math.inf))
    return torch.cat(out)
