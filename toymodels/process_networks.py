"""The five predictors of `process`, with what each costs; every weight is stacked over seeds."""

import itertools
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from data import Config
from toymodels.dispatch import gather, scatter
from toymodels.process_law import Episodes, LawConfig, generator

Architecture = Literal["dense", "moe", "cnp", "context_routed", "cnp_moe"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)


class ProcessConfig(Config):
    """The comparison: the task, the compute and the training."""

    law: LawConfig = LawConfig()
    """What the tasks look like."""
    multiply_adds: PositiveInt = 2190
    """Multiply-adds a query may cost; each network takes the largest width that fits."""
    queries_per_task: PositiveInt = 256
    """Queries that share one encoding of the context: the encoder costs n_context / queries_per_task a query."""
    d_encoder: PositiveInt = 48
    """Hidden width of the encoder (two hidden layers)."""
    d_context: PositiveInt = 16
    """Dimensions of the context vector r."""
    n_experts: PositiveInt = 8
    """Experts of the mixtures."""
    k: PositiveInt = 2
    """Experts a query is sent to; weights are the softmax over the chosen logits."""
    balance: float = Field(default=0.01, ge=0)
    """Weight of the load-balancing loss E * sum_e f_e P_e (Fedus et al. 2021); 1 when uniform."""
    steps: PositiveInt = 4000
    """Adam steps, learning rate warmed up and then following a half cosine to zero."""
    tasks_per_step: PositiveInt = 64
    """Tasks in a batch."""
    queries_per_step: PositiveInt = 32
    """Queries of each task in a batch."""
    learning_rate: PositiveFloat = 4e-3
    """Peak learning rate."""
    test_tasks: PositiveInt = 8192
    """Tasks a seed on which FVU is measured; z is what makes it uncertain, so tasks are many and queries few."""
    test_queries: PositiveInt = 16
    """Queries of each test task."""


def sees_context(architecture: Architecture) -> bool:
    """Whether the context vector r enters anywhere."""
    return architecture in ("cnp", "context_routed", "cnp_moe")


def has_experts(architecture: Architecture) -> bool:
    """Whether computation is conditional."""
    return architecture in ("moe", "context_routed", "cnp_moe")


def multiply_adds(architecture: Architecture, width: int, config: ProcessConfig, n_context: int) -> dict[str, float]:
    """Multiply-adds a query by part, `encoder`, `router`, `decoder`, `total`, for hidden layers of `width`.

    Weights only; biases, activations and sums are left out, as is usual.
    """
    d_body, d_router, copies = _shape(architecture, config)
    encoder = sum(a * b for a, b in _encoder_layers(config)) if sees_context(architecture) else 0
    parts = {
        "encoder": encoder * n_context / config.queries_per_task,
        "router": float(d_router * config.n_experts) if has_experts(architecture) else 0.0,
        "decoder": float(min(copies, config.k) * (d_body * width + width * width + width)),
    }
    return parts | {"total": sum(parts.values())}


def width_for(architecture: Architecture, config: ProcessConfig, n_context: int) -> int:
    """Largest hidden width whose `multiply_adds` stay within the budget; ValueError if none does."""
    width = 0
    while multiply_adds(architecture, width + 1, config, n_context)["total"] <= config.multiply_adds:
        width += 1
    if width == 0:
        spent = multiply_adds(architecture, 0, config, n_context)["total"]
        raise ValueError(
            f"{architecture} with {n_context} context points spends {spent:.0f} of {config.multiply_adds} "
            "multiply-adds before its decoder; raise multiply_adds or queries_per_task, or lower d_encoder"
        )
    return width


class Networks(nn.Module):
    """One architecture for several seeds at once, every weight stacked along its first axis.

    Outputs are in units of the standard deviation of f.  Initial weights are U(-1, 1)/sqrt(fan in) from each seed's
    own generator, so a seed's network does not depend on how many are stacked.
    """

    def __init__(self, architecture: Architecture, width: int, config: ProcessConfig, seeds: Sequence[int]):
        super().__init__()
        if config.k > config.n_experts:
            raise ValueError(f"k={config.k} experts a query exceed n_experts={config.n_experts}")
        self.architecture, self.config = architecture, config
        generators = [generator(seed, 2) for seed in seeds]
        d_body, d_router, copies = _shape(architecture, config)
        layers = _encoder_layers(config) if sees_context(architecture) else []
        self.encoder = nn.ModuleList(_Linear(a, b, 1, generators) for a, b in layers)
        self.router = _Linear(d_router, config.n_experts, 1, generators) if has_experts(architecture) else None
        sizes = [(d_body, width), (width, width), (width, 1)]
        self.body = nn.ModuleList(_Linear(a, b, copies, generators) for a, b in sizes)

    @property
    def n_parameters(self) -> int:
        """Parameters of one seed's network."""
        return sum(p[0].numel() for p in self.parameters())

    def forward(
        self, episodes: Episodes
    ) -> tuple[Float[Tensor, "seed task query"], Float[Tensor, " seed"], Float[Tensor, "seed expert"]]:
        """Predictions, the load-balancing loss and the share of slots each expert takes (both zero if dense)."""
        seed, task, query, _ = episodes.x.shape
        rows = x = episodes.x.flatten(1, 2)
        if sees_context(self.architecture):
            r = self._encode(episodes)[:, :, None].expand(-1, -1, query, -1).flatten(1, 2)
            rows = torch.cat([x, r], -1)
        if self.router is None:
            out = _mlp(self.body, rows)[..., 0]
            return out.view(seed, task, query), x.new_zeros(seed), x.new_zeros(seed, 1)
        logits = self.router(rows)
        best, chosen = logits.topk(self.config.k, -1)
        inputs = x if self.architecture == "context_routed" else rows
        slots = dispatch(self.body, inputs, chosen, self.config.n_experts)
        load = torch.stack([torch.bincount(c.flatten(), minlength=self.config.n_experts) for c in chosen])
        load = load / chosen[0].numel()
        balance = self.config.n_experts * (load * logits.softmax(-1).mean(1)).sum(-1)
        return (slots * best.softmax(-1)).sum(-1).view(seed, task, query), balance, load

    def _encode(self, episodes: Episodes) -> Float[Tensor, "seed task d_context"]:
        pairs = torch.cat([episodes.context_x, episodes.context_y[..., None]], -1)
        seed, task, context, _ = pairs.shape
        return _mlp(self.encoder, pairs.flatten(1, 2)).view(seed, task, context, -1).mean(2)


def dispatch(
    experts: nn.ModuleList, rows: Float[Tensor, "seed row d"], chosen: Int[Tensor, "seed row k"], n_experts: int
) -> Float[Tensor, "seed row k"]:
    """Output of each chosen expert for each row."""
    gathered, back = gather(rows, chosen, n_experts)
    return scatter(_mlp(experts, gathered), back, chosen.shape)[..., 0]


class _Linear(nn.Module):
    """A stack of affine maps, (seed * copy) of them."""

    def __init__(self, d_in: int, d_out: int, copies: int, generators: list[torch.Generator]):
        super().__init__()
        draws = [torch.rand(copies, d_in + 1, d_out, generator=g) * 2 - 1 for g in generators]
        self.weight = nn.Parameter(torch.stack(draws)[:, :, :-1] / d_in**0.5)
        self.bias = nn.Parameter(torch.stack(draws)[:, :, -1:] / d_in**0.5)

    def forward(self, x: Float[Tensor, "group row d_in"]) -> Float[Tensor, "group row d_out"]:
        return torch.baddbmm(self.bias.flatten(0, 1), x, self.weight.flatten(0, 1))


def _mlp(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in layers[:-1]:
        x = layer(x).relu()
    return layers[-1](x)


def _shape(architecture: Architecture, config: ProcessConfig) -> tuple[int, int, int]:
    """Inputs of the decoder, inputs of the router, copies of the decoder."""
    d_x, with_r = config.law.d_x, config.law.d_x + config.d_context
    d_body = with_r if architecture in ("cnp", "cnp_moe") else d_x
    return d_body, with_r if sees_context(architecture) else d_x, config.n_experts if has_experts(architecture) else 1


def _encoder_layers(config: ProcessConfig) -> list[tuple[int, int]]:
    sizes = [config.law.d_x + 1, config.d_encoder, config.d_encoder, config.d_context]
    return list(itertools.pairwise(sizes))
