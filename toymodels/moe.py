"""Toy superposition with experts: E small autoencoders, each input sent to k of them.

    x' = sum_{e in top-k(x)} g_e(x) relu(W_e^T W_e x + b_e),   logits = G x

Features per dimension of an expert, ||W_e||_F^2 / m, fall as experts are added: each sees a narrower world and needs
less superposition.  Control: the `random` router sends inputs anywhere, so that experts see less, but nothing narrower.
Source: Chaudhari, Nuer, Thorstenson 2025, 'Sparsity and Superposition in Mixture of Experts' (2510.23671).  With their
top-1 weights, renormalised to 1, the router has no gradient and stays as it was drawn: that is `router="frozen"` here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from pandas import DataFrame, concat
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor

from data import Config, Progress, Tables, silent
from data.progress import within
from toymodels.config import ToyConfig
from toymodels.dispatch import gather, scatter
from toymodels.features import Source, stratified
from toymodels.geometry import feature_dimensionality

REPRESENTED = 0.5
"""Norm above which a feature counts as represented by an expert."""


class MoeConfig(Config):
    """A toy mixture of experts; `toy` gives features, widths and training."""

    toy: ToyConfig = ToyConfig(n_features=40, d_hidden=4, feature_probability=0.1)
    """Features, width of each expert, batch, steps, AdamW."""
    n_experts: PositiveInt = 8
    """Experts, E; 1 is the dense toy model."""
    k: PositiveInt = 1
    """Experts an input is sent to."""
    router: Literal["frozen", "trained", "random"] = "frozen"
    """`frozen`: G as drawn.  `trained`: G learns.  `random`: a coin chooses, whatever the input (the control)."""
    router_start: Literal["gaussian", "features"] = "gaussian"
    """`gaussian`: G is Xavier-normal.  `features`: each expert has logit 1 for its own n/E features, 0 for others."""
    weights: Literal["renormalised", "softmax", "straight_through"] = "straight_through"
    """What g_e is, p being the softmax over all logits.  `renormalised`: p_e over the sum of the chosen (at k = 1 that
    is always 1, without gradient).  `softmax`: p_e itself (Fedus et al. 2021); experts then grow by 1/p_e, which counts
    as features.  `straight_through`: the value of `renormalised`, but the sum counts as a constant in the gradient, so
    that a top-1 router learns and its weight stays 1."""
    balance: Literal["none", "auxiliary", "bias"] = "none"
    """`auxiliary`: adds `balance_weight` E sum_e f_e P_e to the loss (needs a trained router).  `bias`: a bias on each
    logit, for the choice alone, moves by `bias_rate` towards equal load (Wang et al. 2024, 2408.15664)."""
    balance_weight: NonNegativeFloat = 1e-3
    """Weight of the auxiliary loss; the loss it joins is the mean over samples and features."""
    bias_rate: NonNegativeFloat = 1e-3
    """Step of the selection bias."""

    @model_validator(mode="after")
    def _possible(self) -> "MoeConfig":
        if self.k > self.n_experts:
            raise ValueError(f"k={self.k} experts an input exceed n_experts={self.n_experts}; choose k <= n_experts")
        if self.balance == "auxiliary" and self.router != "trained":
            raise ValueError(
                "the auxiliary balancing loss acts on the router's weights; set router='trained' or balance='bias'"
            )
        if self.router == "trained" and self.weights == "renormalised" and self.k == 1 < self.n_experts:
            raise ValueError(
                "a renormalised top-1 weight is always 1, so the router gets no gradient; "
                "choose weights='straight_through' or 'softmax', or router='frozen'"
            )
        if self.toy.model != "relu" or self.toy.activation != "relu":
            raise ValueError("experts are ReLU-output toy models; set toy.model='relu' and toy.activation='relu'")
        if self.toy.n_points is not None:
            raise ValueError("mixtures of experts train on fresh samples; set toy.n_points to None")
        return self


@dataclass(frozen=True)
class Moes:
    """Trained mixtures, one a seed."""

    config: MoeConfig
    seeds: tuple[int, ...]
    W: Float[Tensor, "seed expert d_hidden n_features"]
    b: Float[Tensor, "seed expert n_features"]
    gate: Float[Tensor, "seed expert n_features"]
    bias: Float[Tensor, "seed expert"]
    loss: Float[Tensor, " seed"]
    """Mean over samples and features on a large stratified sample, without the balancing term."""
    load: Float[Tensor, "seed expert"]
    """Share of slots that each expert takes on it."""
    reach: Float[Tensor, "seed expert n_features"]
    """P(feature active | sent to the expert), on the same sample."""

    def best(self) -> int:
        """Position of the seed with the lowest loss."""
        return int(self.loss.argmin())


def train(
    config: MoeConfig | None = None,
    *,
    seeds: int | Sequence[int] = 5,
    samples: int = 32_768,
    progress: Progress = silent,
) -> Moes:
    """Train one mixture a seed, all at once; `samples` are drawn to measure loss, load and reach at the end."""
    config = config or MoeConfig()
    seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    toy = config.toy
    state = _State(config, seeds)
    adam = torch.optim.AdamW(state.learning(), lr=toy.learning_rate, weight_decay=toy.weight_decay)
    source = Source([toy] * len(seeds), seeds, toy.batch_size)
    rates = toy.learning_rates(0, toy.steps)
    importance = torch.as_tensor(toy.importances, dtype=torch.float32)
    for step in range(toy.steps):
        x = source.batch(step).mT.contiguous()
        adam.param_groups[0]["lr"] = float(rates[step])
        out, load, balance = state.forward(x)
        error = (out - (x.abs() if toy.target == "absolute" else x)).square() * importance
        loss = error.mean((1, 2))
        if config.balance == "auxiliary":
            loss = loss + config.balance_weight * balance
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        if config.balance == "bias":
            state.bias += config.bias_rate * (load.mean(1, keepdim=True) - load).sign()
        if step % 200 == 199 or step + 1 == toy.steps:
            note = f"{config.router} router, {config.n_experts} experts, loss {float(loss.detach().min()):.5f}"
            progress(step + 1, toy.steps, note)
    return _measured(config, seeds, state, samples)


def run(
    base: MoeConfig | None = None,
    *,
    n_experts: Sequence[int] = (1, 2, 4, 8),
    seeds: int | Sequence[int] = 5,
    control: bool = True,
    progress: Progress = silent,
) -> Tables:
    """The sweep over the number of experts, with the random router as its control.

    Tables:
    * `runs`, one row a router, number of experts and seed: `router, n_experts, k, d_hidden, n_features, seed, loss`,
      `best` (lowest loss of the seeds), `features_per_dimension` (mean over experts of ||W_e||_F^2 / m),
      `features_per_dimension_load` (weighted by load), `busiest` and `emptiest` (load), `dead_experts` (load 0).
    * `experts`, one row an expert of each run: `router, n_experts, seed, expert, load, features_per_dimension,
      n_represented` (norm > 1/2).
    * `features`, one row a feature of each expert of the best runs: `router, n_experts, seed, expert, feature, norm,
      dimensionality` (D_i), `gate` (router weight), `reach` (P(active | sent there)).
    * `summary`, one row a router and number of experts: `features_per_dimension` (mean over seeds) with `_sd`, `_min`
      and `_max`, `of_best_seed`, `loss` (lowest), `n_seeds`.
    """
    base = base or MoeConfig()
    routers = [base.router, *(["random"] if control and base.router != "random" else [])]
    jobs = [(router, e) for router in routers for e in n_experts]
    parts: dict[str, list[DataFrame]] = {"runs": [], "experts": [], "features": []}
    for done, (router, e) in enumerate(jobs):
        changed = {"router": router, "n_experts": e, "k": min(base.k, e)}
        if router == "random":
            changed |= {"balance": "none", "weights": "renormalised"}
        config = MoeConfig.model_validate(base.model_dump() | changed)
        moes = train(config, seeds=seeds, progress=within(progress, done, len(jobs)))
        for name, frame in tables(moes).items():
            parts[name].append(frame)
    out = {name: concat(frames, ignore_index=True) for name, frames in parts.items()}
    return Tables(out | {"summary": _summary(out["runs"])})


def tables(moes: Moes) -> Tables:
    """`runs`, `experts` and `features` of one stack of mixtures, with the columns that `run` documents."""
    config, best = moes.config, moes.best()
    size = moes.W.square().sum((2, 3)) / config.toy.d_hidden
    same = {"router": config.router, "n_experts": config.n_experts}
    norms = moes.W.norm(dim=2)
    runs, experts, features = [], [], []
    for i, seed in enumerate(moes.seeds):
        load = moes.load[i]
        runs.append(
            same
            | {"k": config.k, "d_hidden": config.toy.d_hidden, "n_features": config.toy.n_features, "seed": seed}
            | {"loss": float(moes.loss[i]), "best": i == best}
            | {"features_per_dimension": float(size[i].mean())}
            | {"features_per_dimension_load": float((size[i] * load).sum())}
            | {"busiest": float(load.max()), "emptiest": float(load.min()), "dead_experts": int((load == 0).sum())}
        )
        for e in range(config.n_experts):
            place = same | {"seed": seed, "expert": e}
            shown = {"load": float(load[e]), "features_per_dimension": float(size[i, e])}
            experts.append(place | shown | {"n_represented": int((norms[i, e] > REPRESENTED).sum())})
    for e in range(config.n_experts):
        columns = {
            "norm": norms[best, e],
            "dimensionality": feature_dimensionality(moes.W[best, e]),
            "gate": moes.gate[best, e],
            "reach": moes.reach[best, e],
        }
        frame = DataFrame({"feature": range(config.toy.n_features)} | {k: v.numpy() for k, v in columns.items()})
        features.append(frame.assign(**same, seed=moes.seeds[best], expert=e))
    return Tables({"runs": DataFrame(runs), "experts": DataFrame(experts), "features": concat(features)})


class _State:
    """Weights of a stack of mixtures; each seed's start comes from its own generator."""

    def __init__(self, config: MoeConfig, seeds: Sequence[int]):
        self.config = config
        toy, e = config.toy, config.n_experts
        n, m = toy.n_features, toy.d_hidden
        generators = [torch.Generator().manual_seed(1_000_003 * (seed + 1) + 11) for seed in seeds]
        spread = toy.init_scale * math.sqrt(2 / (n + m))  # Xavier of one matrix, however many are stacked
        self.W = torch.stack([torch.randn(e, m, n, generator=g) for g in generators]).mul_(spread).requires_grad_()
        self.b = torch.zeros(len(seeds), e, n, requires_grad=True)
        gate = torch.stack([torch.randn(e, n, generator=g) for g in generators]) * math.sqrt(2 / (n + e))
        if config.router_start == "features":
            own = torch.stack([torch.randperm(n, generator=g) for g in generators]) % e
            gate = (own[:, None] == torch.arange(e)[:, None]).float()
        self.gate = gate.requires_grad_(config.router == "trained")
        self.bias = torch.zeros(len(seeds), e)
        self._coins = generators

    def learning(self) -> list[Tensor]:
        """What the optimiser may change."""
        return [self.W, self.b, *([self.gate] if self.config.router == "trained" else [])]

    def forward(
        self, x: Float[Tensor, "seed row n_features"]
    ) -> tuple[Float[Tensor, "seed row n_features"], Float[Tensor, "seed expert"], Float[Tensor, " seed"]]:
        """x', the load of each expert and the balancing loss E sum_e f_e P_e."""
        config, e = self.config, self.config.n_experts
        chosen, weights, share = self.route(x)
        load = torch.stack([torch.bincount(c.flatten(), minlength=e) for c in chosen]) / chosen[0].numel()
        balance = e * (load * share).sum(1)
        rows, back = gather(x, chosen, e)
        W, b = self.W.flatten(0, 1), self.b.flatten(0, 1)
        out = torch.baddbmm(b[:, None], torch.bmm(rows, W.mT), W).relu()
        slots = scatter(out, back, chosen.shape)
        plain = config.k == 1 and not weights.requires_grad and config.weights != "softmax"
        return (slots[:, :, 0] if plain else (slots * weights[..., None]).sum(2)), load, balance

    def route(
        self, x: Float[Tensor, "seed row n_features"]
    ) -> tuple[Int[Tensor, "seed row k"], Float[Tensor, "seed row k"], Float[Tensor, "seed expert"]]:
        """Chosen experts, their weights, and the mean softmax share of every expert."""
        config = self.config
        if config.router == "random":
            draws = [torch.rand(x.shape[1], config.n_experts, generator=g) for g in self._coins]
            chosen = torch.stack(draws).topk(config.k, -1).indices
            even = x.new_full((len(x), config.n_experts), 1 / config.n_experts)
            return chosen, x.new_full(chosen.shape, 1 / config.k), even
        logits = x @ self.gate.mT
        chosen = (logits + self.bias[:, None]).detach().topk(config.k, -1).indices
        p = logits.softmax(-1)
        taken = p.gather(-1, chosen)
        if config.weights == "renormalised":
            taken = taken / taken.sum(-1, keepdim=True)
        elif config.weights == "straight_through":
            taken = taken / taken.detach().sum(-1, keepdim=True)
        return chosen, taken, p.mean(1)


def _measured(config: MoeConfig, seeds: tuple[int, ...], state: _State, samples: int) -> Moes:
    """Loss, load and reach of each seed on its own large sample, in pieces."""
    importance = torch.as_tensor(config.toy.importances, dtype=torch.float32)
    xs = torch.stack([stratified(config.toy, samples, seed=seed).T for seed in seeds])
    e = config.n_experts
    loss, count, active = torch.zeros(len(seeds)), torch.zeros(len(seeds), e), torch.zeros(len(seeds), e, xs.shape[2])
    with torch.no_grad():
        for x in xs.split(4096, 1):
            target = x.abs() if config.toy.target == "absolute" else x
            coins = [g.get_state() for g in state._coins]
            out, load, _ = state.forward(x)
            for g, coin in zip(state._coins, coins, strict=True):
                g.set_state(coin)
            chosen = state.route(x)[0]
            sent = torch.zeros(*x.shape[:2], e).scatter_(2, chosen, 1.0)
            loss += ((out - target).square() * importance).mean(2).sum(1) / samples
            count += load * x.shape[1] / samples
            active += sent.mT @ (x != 0).float()
    reach = active / (count * config.k * samples).clamp(min=1)[..., None]
    W, b, gate = state.W.detach(), state.b.detach(), state.gate.detach()
    return Moes(config, seeds, W, b, gate, state.bias, loss, load=count, reach=reach)


def _summary(runs: DataFrame) -> DataFrame:
    grouped = runs.groupby(["router", "n_experts"], sort=False)
    named = {name: ("features_per_dimension", how) for name, how in _STATISTICS.items()}
    best = runs[runs["best"]].set_index(["router", "n_experts"])["features_per_dimension"].rename("of_best_seed")
    table = grouped.agg(**named, loss=("loss", "min"), n_seeds=("seed", "nunique"))
    return table.join(best).reset_index()


_STATISTICS = {
    "features_per_dimension": "mean",
    "features_per_dimension_sd": "std",
    "features_per_dimension_min": "min",
    "features_per_dimension_max": "max",
}
