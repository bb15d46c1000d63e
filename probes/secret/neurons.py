"""Students made of the teacher's own neurons: they describe its weights, not its inputs (a negative control).

    oracle      the n_active neurons of each token whose outputs |z_i| ||w_i|| are largest
    static      the same for every token: largest E[z_i^2] ||w_i||^2
    oracle_clusters    MoEfication: clusters of equally many neurons, for each token those of largest summed energy
    learned_clusters   the same, their energy told by a linear router fitted by ridge regression

What is left out is replaced by its mean.
Source: Zhang et al. 2022, 'MoEfication' (2110.01786), for balanced clusters of the neurons' input weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.secret.pairs import Pairs
from probes.secret.students import Cost
from probes.secret.teacher import LayerTeacher

Choice = Literal["oracle", "static", "oracle_clusters", "learned_clusters"]
EXPERTS_USED = 4
"""Clusters a token uses; their size is n_active over this."""


@dataclass(frozen=True, eq=False)
class NeuronChoice:
    """The teacher with all but the chosen neurons left out."""

    teacher: LayerTeacher
    write: Float[Tensor, "d_mlp d_out"]
    bias: Float[Tensor, " d_out"]
    cluster: Int[Tensor, " d_mlp"]
    """Expert of each neuron."""
    k: int
    router: Float[Tensor, "d_in_and_one n_experts"] | None
    """Linear map to each expert's energy; None where an oracle or nothing chooses."""
    static: bool = False

    @property
    def n_experts(self) -> int:
        """Groups of neurons."""
        return int(self.cluster.max()) + 1

    def route(self, x: Float[Tensor, "n d_in"]) -> Int[Tensor, "n k"]:
        """Experts used, the strongest first."""
        if self.static:
            return torch.arange(self.k).expand(len(x), self.k)
        if self.router is not None:
            return _scores(x, self.router).topk(self.k, dim=1).indices
        return self._energy(self.teacher.neurons(x)).topk(self.k, dim=1).indices

    def _energy(self, z: Tensor) -> Tensor:
        energy = z.square() * self.write.square().sum(dim=1)
        return torch.zeros(len(z), self.n_experts).index_add(1, self.cluster, energy)

    def __call__(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_out"]:
        """Its answer to each row."""
        used = torch.zeros(len(x), self.n_experts).scatter(1, self.route(x), 1.0)
        return (self.teacher.neurons(x) * used[:, self.cluster]) @ self.write + self.bias

    @property
    def cost(self) -> Cost:
        """Input and output weights of the neurons used; an oracle's choice is counted as 0 but cannot be had."""
        gates = 1 + self.teacher.model.blocks[self.teacher.layer].gated
        width = gates * self.teacher.model.d_model + self.write.shape[1]
        n = int(torch.bincount(self.cluster).float().mean() * self.k) if not self.static else self._n_static
        router = 0 if self.router is None else self.router.numel()
        return Cost(0, n * width, len(self.bias), router, len(self.write) * width + len(self.bias) + router)

    @property
    def _n_static(self) -> int:
        return int((self.cluster == 0).sum())

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Its own parameters; the teacher's are not repeated."""
        router = {} if self.router is None else {"router": self.router.numpy()}
        return {"bias": self.bias.numpy(), "cluster": self.cluster.numpy(), "k": np.array([self.k])} | router


def fit_neurons(pairs: Pairs, teacher: LayerTeacher, choice: Choice, n_active: int, seed: int = 0) -> NeuronChoice:
    """The student; its offset makes it right on average over the training rows."""
    if not 1 <= n_active <= teacher.d_mlp:
        raise ValueError(f"n_active={n_active} is not in 1..{teacher.d_mlp}, the layer's neurons")
    write, router, static = teacher.value_vectors(), None, choice == "static"
    k = n_active if choice == "oracle" else 1 if static else EXPERTS_USED
    if choice == "oracle":
        cluster = torch.arange(teacher.d_mlp)
    elif static:
        energy = torch.zeros(teacher.d_mlp)
        for _, x, _ in pairs.chunks(pairs.train):
            energy += teacher.neurons(x).square().sum(dim=0)
        cluster = torch.ones(teacher.d_mlp, dtype=torch.long)
        cluster[(energy * write.square().sum(dim=1)).topk(n_active).indices] = 0
    else:
        cluster = balanced_clusters(teacher.gate_weights(), max(n_active // EXPERTS_USED, 1), seed)
    empty = torch.zeros(pairs.d_out)
    bare = NeuronChoice(teacher, write, empty, cluster, min(k, int(cluster.max()) + 1), None, static)
    if choice == "learned_clusters":
        router = _router(pairs, bare)
        bare = NeuronChoice(teacher, write, empty, cluster, bare.k, router)
    off = torch.zeros(pairs.d_out, dtype=torch.float64)
    for _, x, y in pairs.chunks(pairs.train):
        off += (y - bare(x)).double().sum(dim=0)
    return NeuronChoice(teacher, write, (off / len(pairs.train)).float(), cluster, bare.k, router, static)


def balanced_clusters(
    weights: Float[Tensor, "d_mlp d_in"], size: int, seed: int = 0, rounds: int = 5
) -> Int[Tensor, " d_mlp"]:
    """Clusters of at most `size` neurons of like input weights: k-means, then optimal assignment to equal places."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans

    unit = torch.nn.functional.normalize(weights, dim=1).numpy()
    n_clusters = -(-len(unit) // size)
    centres = KMeans(n_clusters, n_init=1, max_iter=20, random_state=seed).fit(unit).cluster_centers_
    cluster = np.zeros(len(unit), dtype=np.int64)
    for _ in range(rounds):
        gain = np.repeat(unit @ centres.T - (centres**2).sum(axis=1) / 2, size, axis=1)
        cluster = linear_sum_assignment(gain, maximize=True)[1] // size
        centres = np.stack([unit[cluster == c].mean(axis=0) for c in range(n_clusters)])
    return torch.from_numpy(cluster)


def _router(pairs: Pairs, student: NeuronChoice) -> Float[Tensor, "d_in_and_one n_experts"]:
    """Ridge regression of each cluster's norm on the input."""
    d = pairs.d_in + 1
    gram, cross = torch.zeros(d, d, dtype=torch.float64), torch.zeros(d, student.n_experts, dtype=torch.float64)
    for _, x, _ in pairs.chunks(pairs.train):
        one = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        gram += (one.T @ one).double()
        cross += (one.T @ student._energy(student.teacher.neurons(x)).sqrt()).double()
    gram += 1e-3 * gram.diagonal().mean() * torch.eye(d, dtype=torch.float64)
    return torch.linalg.solve(gram, cross).float()


def _scores(x: Tensor, router: Tensor) -> Tensor:
    return x @ router[:-1] + router[-1]
