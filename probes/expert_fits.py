"""What simple maps make of each expert: its mean output, an affine map of its input, and how wide its inputs are.

Fitted on one half of the documents, scored on the other:

    constant FVU   E|o - mean|^2 / E|o|^2                     1: the mean says nothing, 0: the expert is a constant
    affine FVU     E|o - (A x + b)|^2 / E|o - E o|^2          0: the expert is affine on what it is given
    participation  (sum lambda)^2 / sum lambda^2              dimensions that an expert's inputs spread over
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from pandas import DataFrame
from torch import Tensor

from probes.expert_text import Scored
from probes.models.moe import RoutedModel

RIDGES = tuple(10.0 ** (at / 2) for at in range(-8, 5))
"""Ridges tried for each expert, as shares of the mean variance of an input dimension."""
SITES = ("ffn_input", "expert_index", "expert_output")


@dataclass
class Moments:
    """Sums over the tokens of each expert, in float64."""

    n: Float[Tensor, " n_experts"]
    x: Float[Tensor, "n_experts d_model"]
    o: Float[Tensor, "n_experts d_model"]
    xx: Float[Tensor, "n_experts d_model d_model"]
    xo: Float[Tensor, "n_experts d_model d_model"]
    oo: Float[Tensor, " n_experts"]

    @classmethod
    def of(cls, model: RoutedModel, layer: int, text: Scored) -> "Moments":
        """One pass over the text, up to the layer."""
        n_experts, d = model.blocks[layer].n_experts, model.d_model
        shapes = ((), (d,), (d,), (d, d), (d, d), ())
        found = cls(*(torch.zeros(n_experts, *shape, dtype=torch.float64) for shape in shapes))
        for batch in text.batches:
            seen: dict[str, Tensor] = {}
            model.observe(batch.ids, SITES, lambda _, s, seen=seen: seen.update(s), layers=[layer])  # type: ignore[misc]
            found.add(*(batch.flat(seen[site]).cpu() for site in SITES))
        return found

    def add(
        self,
        x: Float[Tensor, "tokens d_model"],
        index: Int[Tensor, "tokens k"],
        outputs: Float[Tensor, "tokens k d_model"],
    ) -> None:
        """Take in tokens."""
        for expert in index.unique().tolist():
            if expert < 0:
                continue
            token, slot = (index == expert).nonzero(as_tuple=True)
            given, made = x[token].double(), outputs[token, slot].double()
            self.n[expert] += len(token)
            self.x[expert] += given.sum(0)
            self.o[expert] += made.sum(0)
            self.xx[expert] += given.T @ given
            self.xo[expert] += given.T @ made
            self.oo[expert] += made.square().sum()


@dataclass(frozen=True)
class Fits:
    """Each expert's mean output and affine map; zeros for an expert that was never used."""

    mean: Float[Tensor, "n_experts d_model"]
    matrix: Float[Tensor, "n_experts d_model d_model"]
    """o ~ x @ matrix + offset."""
    offset: Float[Tensor, "n_experts d_model"]

    @classmethod
    def to(cls, seen: Moments) -> "Fits":
        """Least squares with a ridge on the centred inputs, each expert's own (see `_ridge`)."""
        n = seen.n.clamp(min=1)[:, None]
        mean_x, mean = seen.x / n, seen.o / n
        cov = seen.xx / n[..., None] - mean_x[:, :, None] * mean_x[:, None]
        cross = seen.xo / n[..., None] - mean_x[:, :, None] * mean[:, None]
        energy = (seen.oo / n[:, 0] - mean.square().sum(1)).clamp(min=0)
        matrix = torch.stack([_ridge(*one) for one in zip(cov, cross, energy, n[:, 0], strict=True)])
        offset = mean - torch.einsum("ed,edm->em", mean_x, matrix)
        return cls(mean.float(), matrix.float(), offset.float())


def _ridge(
    cov: Float[Tensor, "d_model d_model"],
    cross: Float[Tensor, "d_model d_out"],
    energy: Float[Tensor, ""],
    n: Float[Tensor, ""],
) -> Float[Tensor, "d_model d_out"]:
    """(cov + l I)^-1 cross for the l of RIDGES with the least residual / (1 - df / n)^2, df = 1 + sum s / (s + l).

    Without it an expert seen for fewer tokens than it has inputs fits them all, and leaves more than everything
    unexplained elsewhere.  Source: Golub, Heath and Wahba 1979 (generalised cross-validation).
    """
    s, basis = torch.linalg.eigh(cov)
    s, turned = s.clamp(min=0), basis.T @ cross
    ridge = s.mean().clamp(min=1e-12) * torch.tensor(RIDGES, dtype=s.dtype)
    shrunk = s + ridge[:, None]
    residual = energy - (turned.square().sum(1) * (shrunk + ridge[:, None]) / shrunk.square()).sum(1)
    free = 1 - (1 + (s / shrunk).sum(1)) / n
    score = torch.where(free > 0, residual.clamp(min=0) / free.square(), torch.inf)
    best = int(score.argmin()) if torch.isfinite(score).any() else len(RIDGES) - 1
    return basis @ (turned / shrunk[best][:, None])


def table(layer: int, fits: Fits, fitted: Moments, scored: Moments) -> DataFrame:
    """One row an expert: `layer, expert, n_fit, n, constant_fvu, affine_fvu, participation, d_model`."""
    rows = []
    for e in range(len(scored.n)):
        n = float(scored.n[e])
        mean, matrix, offset = fits.mean[e].double(), fits.matrix[e].double(), fits.offset[e].double()
        constant = affine = participation = float("nan")
        if n > 1 and fitted.n[e] > 1:
            around_fit = scored.oo[e] - 2 * mean @ scored.o[e] + n * mean @ mean
            around_own = scored.oo[e] - scored.o[e] @ scored.o[e] / n
            predicted = (matrix.T @ scored.xx[e] @ matrix).trace() + 2 * offset @ (matrix.T @ scored.x[e])
            crossed = (matrix * scored.xo[e]).sum() + offset @ scored.o[e]
            residual = scored.oo[e] - 2 * crossed + predicted + n * offset @ offset
            constant = float(around_fit / scored.oo[e]) if scored.oo[e] > 0 else float("nan")
            affine = float(residual / around_own) if around_own > 0 else float("nan")
            mean_x = scored.x[e] / n
            cov = scored.xx[e] / n - mean_x[:, None] * mean_x
            participation = float(cov.trace() ** 2 / cov.square().sum()) if cov.any() else float("nan")
        rows.append((layer, e, int(fitted.n[e]), int(n), constant, affine, participation, len(mean)))
    names = "layer expert n_fit n constant_fvu affine_fvu participation d_model"
    return DataFrame(rows, columns=names.split())
