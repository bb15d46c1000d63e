"""Students trained by gradient descent: a dense layer of few neurons, and the paper's mixture of single neurons.

    dense    y = b + GELU(x W + a) U                                  n_active neurons
    paper    y = the same with h neurons + sum over the k chosen e of p_e GELU(x . w_e + a_e) u_e,
             p = softmax of the k largest of x R1 R2                  h + k = n_active

Adam, cosine schedule to 0, best of the rates by training error.  Inputs and outputs are centred and scaled by one
number each, folded into the weights at the end.
Source: Boix-Adsera 2025 (2512.18452), section on distilling MLP layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import gelu

from data.progress import Progress, silent, within
from probes.secret.pairs import Pairs, moments
from probes.secret.students import Cost

RATES = (2e-3, 5e-3, 1e-2)


@dataclass(frozen=True)
class Course:
    """How a student is trained."""

    steps: int = 1_500
    batch: int = 512
    """Tokens a step; the paper's is 1,024.  The noise of small batches is what the last steps remove."""
    rates: tuple[float, ...] = RATES
    device: str | torch.device = "cpu"
    """Where it is trained; batches are gathered on the CPU, and there the student lies when it is done."""


@dataclass(frozen=True, eq=False)
class NeuronMixture:
    """Shared GELU neurons and, where there are any, single-neuron experts behind a low-rank router."""

    weights: Mapping[str, Float[Tensor, "..."]]
    k: int = 0
    rate: float = 0.0
    """Adam's step length that was best."""
    last_gain: float = 0.0
    """Share of the training error that the last fifth of the steps removed: how flat the curve is."""

    @property
    def n_experts(self) -> int:
        """Single neurons to choose from, 0 in a dense student."""
        return len(self.weights["experts_out"]) if self.k else 0

    def __call__(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_out"]:
        """Its answer to each row."""
        return _forward(self.weights, x, self.k)

    def route(self, x: Float[Tensor, "n d_in"]) -> Int[Tensor, "n k"]:
        """Experts used, the heaviest first."""
        if not self.k:
            return torch.zeros(len(x), 0, dtype=torch.long)
        return (
            (((x - self.weights["centre"]) @ self.weights["router_in"]) @ self.weights["router_out"])
            .topk(self.k, dim=1)
            .indices
        )

    @property
    def cost(self) -> Cost:
        """What it costs."""
        w = self.weights
        shared, bias = w["shared_in"].numel() + w["shared_out"].numel(), w["shared_bias"].numel() + w["bias"].numel()
        if not self.k:
            return Cost(shared, 0, bias, 0, shared + bias)
        one = w["experts_in"].shape[0] + w["experts_out"].shape[1]
        router = w["router_in"].numel() + w["router_out"].numel()
        stored = shared + bias + router + self.n_experts * (one + 1)
        return Cost(shared, self.k * one, bias + self.k, router, stored)

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Its parameters by name."""
        return {name: w.numpy() for name, w in self.weights.items()} | {"k": np.array([self.k])}


def dense(pairs: Pairs, n_active: int, course: Course, seed: int = 0, progress: Progress = silent) -> NeuronMixture:
    """A dense GELU layer of `n_active` neurons."""
    return _best(pairs, {"shared": n_active, "experts": 0, "k": 0, "router_rank": 0}, course, seed, progress)


def paper(
    pairs: Pairs,
    n_active: int,
    n_experts: int,
    course: Course,
    seed: int = 0,
    router_rank: int = 32,
    progress: Progress = silent,
) -> NeuronMixture:
    """Half the active neurons shared, half chosen among `n_experts` single neurons."""
    k = n_active // 2
    if not 1 <= k <= n_experts:
        raise ValueError(f"n_active={n_active} means {k} experts a token of n_experts={n_experts}; choose more experts")
    shape = {"shared": n_active - k, "experts": n_experts, "k": k, "router_rank": router_rank}
    return _best(pairs, shape, course, seed, progress)


def _best(pairs: Pairs, shape: dict[str, int], course: Course, seed: int, progress: Progress) -> NeuronMixture:
    found = []
    for number, rate in enumerate(course.rates):
        told = within(progress, number, len(course.rates))
        found.append(_train(pairs, shape, course, rate, seed, told))
    return min(found, key=lambda one: one[0])[1]


def _train(
    pairs: Pairs, shape: dict[str, int], course: Course, rate: float, seed: int, progress: Progress
) -> tuple[float, NeuronMixture]:
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    (mean_x, cov_x), (mean_y, cov_y) = moments(pairs.x, pairs.train), moments(pairs.y, pairs.train)
    scale_x, scale_y = (float(c.diagonal().mean().clamp(min=1e-12).sqrt()) for c in (cov_x, cov_y))
    centre_x, centre_y = (mean.float().to(course.device) for mean in (mean_x, mean_y))
    weights = {name: w.to(course.device) for name, w in _start(pairs, shape, generator).items()}
    # a batch's inputs are centred here; `_forward` centres by `centre`, set when training is over
    parameters = [w.requires_grad_() for name, w in weights.items() if name != "centre"]
    optimiser = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, course.steps)

    def take(n: int) -> tuple[Tensor, Tensor]:
        rows = pairs.take(np.sort(rng.choice(pairs.train, min(n, len(pairs.train)), replace=False)))
        x, y = (w.to(course.device) for w in rows)
        return (x - centre_x) / scale_x, (y - centre_y) / scale_y

    px, py = take(8_192)

    def off() -> float:
        with torch.no_grad():
            return float((_forward(weights, px, shape["k"]) - py).square().sum() / (py - py.mean(0)).square().sum())

    before = float("nan")
    for step in range(course.steps):
        x, y = take(course.batch)
        loss = (_forward(weights, x, shape["k"]) - y).square().sum(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step + 1 == course.steps * 4 // 5:
            before = off()
        if (step + 1) % 100 == 0:
            progress(step + 1, course.steps, f"rate {rate:g}, step {step + 1}")
    after = off()
    folded = {name: w.detach().cpu().clone() for name, w in weights.items()}
    for name in ("shared_in", "experts_in", "router_in"):
        folded[name] /= scale_x
    for name in ("shared_out", "experts_out"):
        folded[name] *= scale_y
    folded["bias"] = folded["bias"] * scale_y + mean_y.float()
    folded["centre"] = mean_x.float()
    return after, NeuronMixture(folded, shape["k"], rate, 1 - after / before)


def _start(pairs: Pairs, shape: dict[str, int], generator: torch.Generator) -> dict[str, Tensor]:
    def normal(*size: int, fan: int) -> Tensor:
        return torch.randn(*size, generator=generator) / max(fan, 1) ** 0.5

    d_in, d_out, h, n = pairs.d_in, pairs.d_out, shape["shared"], shape["experts"]
    return {
        "shared_in": normal(d_in, h, fan=d_in),
        "shared_bias": torch.zeros(h),
        "shared_out": normal(h, d_out, fan=h),
        "experts_in": normal(d_in, n, fan=d_in),
        "experts_bias": torch.zeros(n),
        "experts_out": normal(n, d_out, fan=1),
        "router_in": normal(d_in, shape["router_rank"], fan=d_in),
        "router_out": normal(shape["router_rank"], n, fan=shape["router_rank"]),
        "bias": torch.zeros(d_out),
        "centre": torch.zeros(d_in),
    }


def _forward(w: Mapping[str, Tensor], x: Tensor, k: int) -> Tensor:
    x = x - w["centre"]
    y = gelu(x @ w["shared_in"] + w["shared_bias"]) @ w["shared_out"] + w["bias"]
    if not k:
        return y
    top = ((x @ w["router_in"]) @ w["router_out"]).topk(k, dim=1)
    # every expert is computed and all but the chosen are weighed with 0: on a CPU quicker than gathering them
    weight = x.new_zeros(len(x), w["experts_in"].shape[1]).scatter(1, top.indices, top.values.softmax(dim=1))
    return y + (weight * gelu(x @ w["experts_in"] + w["experts_bias"])) @ w["experts_out"]
