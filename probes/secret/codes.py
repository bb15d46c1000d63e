"""Mixtures made of a dictionary: its latents as experts of one neuron, or groups of them as regions of affine experts.

    latents   y = b + sum over the k active latents e of f_e(x) u_e,      u by ridge regression of y on the codes
    regions   the closed form of `closed_form`, the cell of x being the group of latents with the largest summed codes

The codes f are a sparse autoencoder's, or those of a known dictionary (one-step thresholding, then least squares on
the support).  If inputs are sparse sums of the dictionary's atoms, a linear teacher is matched with k neurons; on a
Gaussian of the same moments it is not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.secret.closed_form import Shape, fill, parts
from probes.secret.pairs import Pairs, rows_of
from probes.secret.students import CellMixture, Cost

Encode = Callable[[Tensor], Tensor]
"""Rows to their codes, (n, n_experts), mostly 0."""


@dataclass(frozen=True, eq=False)
class CodeMixture:
    """A student of which every expert is one latent."""

    encode: Encode
    write: Float[Tensor, "n_experts d_out"]
    bias: Float[Tensor, " d_out"]
    k: int
    d_in: int

    @property
    def n_experts(self) -> int:
        """Latents."""
        return len(self.write)

    def codes(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n n_experts"]:
        """The k largest codes of each row, the others 0."""
        return keep_largest(self.encode(x), self.k)

    def route(self, x: Float[Tensor, "n d_in"]) -> Int[Tensor, "n k"]:
        """The latents used, the largest first."""
        return self.encode(x).abs().topk(self.k, dim=1).indices

    def __call__(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_out"]:
        """Its answer to each row."""
        return self.codes(x) @ self.write + self.bias

    @property
    def cost(self) -> Cost:
        """Each latent reads d_in numbers and writes d_out; choosing means to read them all."""
        one, router = self.d_in + self.write.shape[1], self.n_experts * self.d_in
        stored = self.n_experts * one + self.bias.numel()
        return Cost(0, self.k * one, self.bias.numel(), router, stored)

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Its parameters but for the encoder's."""
        return {"write": self.write.numpy(), "bias": self.bias.numpy(), "k": np.array([self.k])}


def fit_codes(pairs: Pairs, encode: Encode, k: int, ridge: float = 1e-3) -> CodeMixture:
    """Least squares of the outputs on the codes of the training rows; `ridge` in units of the codes' mean square."""
    n_codes = encode(pairs.take(pairs.train[:1])[0]).shape[1]
    gram = torch.zeros(n_codes, n_codes, dtype=torch.float64)
    cross = torch.zeros(n_codes, pairs.d_out, dtype=torch.float64)
    codes, outputs, n = torch.zeros(n_codes, dtype=torch.float64), torch.zeros(pairs.d_out, dtype=torch.float64), 0
    for _, x, y in pairs.chunks(pairs.train):
        f = keep_largest(encode(x), k)
        gram += (f.T @ f).double()
        cross += (f.T @ y).double()
        codes, outputs, n = codes + f.double().sum(dim=0), outputs + y.double().sum(dim=0), n + len(x)
    codes, outputs = codes / n, outputs / n
    gram, cross = gram - n * torch.outer(codes, codes), cross - n * torch.outer(codes, outputs)
    gram += (ridge * gram.diagonal().mean() + 1e-9) * torch.eye(n_codes, dtype=torch.float64)
    write = torch.cholesky_solve(cross, torch.linalg.cholesky(gram))
    return CodeMixture(encode, write.float(), (outputs - codes @ write).float(), k, pairs.d_in)


def thresholding(dictionary: Float[Tensor, "d_in n_atoms"], k: int) -> Encode:
    """The k atoms of unit norm most correlated with a row, with the coefficients that rebuild it best from them."""

    def encode(x: Tensor) -> Tensor:
        support = (x @ dictionary).abs().topk(k, dim=1).indices
        atoms = dictionary.T[support]
        gram = atoms @ atoms.transpose(1, 2) + 1e-6 * torch.eye(k)
        coefficients = torch.linalg.solve(gram, atoms @ x[:, :, None])[:, :, 0]
        return torch.zeros(len(x), dictionary.shape[1]).scatter(1, support, coefficients)

    return encode


def keep_largest(codes: Float[Tensor, "n n_codes"], k: int) -> Float[Tensor, "n n_codes"]:
    """Codes with all but the k largest of each row, by magnitude, set to 0."""
    index = codes.abs().topk(k, dim=1).indices
    return torch.zeros_like(codes).scatter(1, index, codes.gather(1, index))


@dataclass(frozen=True, eq=False)
class LatentCells(CellMixture):
    """Regions that a dictionary tells: a row's cell is the group of latents whose codes add up to most."""

    encode: Encode = field(kw_only=True)
    group: Int[Tensor, " n_codes"] = field(kw_only=True)
    """Cell of each latent."""

    def scores(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n n_experts"]:
        """Summed magnitude of each group's codes."""
        return torch.zeros(len(x), self.n_experts).index_add(1, self.group, self.encode(x).abs())

    @property
    def cost(self) -> Cost:
        """As with centroids, but that choosing takes the whole encoder."""
        plain = super().cost
        router = len(self.group) * self.centroids.shape[1]
        stored = plain.stored - plain.router + router
        return Cost(plain.shared, plain.expert, plain.bias, router, stored)


def grouped(
    decoder: Float[Tensor, "d_in n_codes"], n_groups: int, weight: Float[Tensor, " n_codes"], seed: int = 0
) -> Int[Tensor, " n_codes"]:
    """Groups of latents of like direction: k-means of the unit decoder columns, weighted by how much they are used."""
    from sklearn.cluster import KMeans

    unit = torch.nn.functional.normalize(decoder.T, dim=1).numpy()
    found = KMeans(n_groups, n_init=1, random_state=seed).fit(unit, sample_weight=weight.numpy() + 1e-9)
    return torch.from_numpy(found.labels_.astype(np.int64))


def fit_latent_cells(
    pairs: Pairs, encode: Encode, decoder: Float[Tensor, "d_in n_codes"], shape: Shape, seed: int = 0
) -> LatentCells:
    """The closed form over regions of a dictionary in the place of centroids of the inputs."""
    used = encode(rows_of(pairs.x, pairs.train[:: max(1, len(pairs.train) // 8_192)])).abs().mean(dim=0)
    group = grouped(decoder, shape.n_experts, used, seed)
    # centroids only give the width here: nothing is nearest to them
    empty = LatentCells(**parts(pairs, torch.zeros(shape.n_experts, pairs.d_in), shape), encode=encode, group=group)
    return fill(empty, pairs, shape, seed)  # type: ignore[return-value]
