"""Ways of keeping the loads of experts even while a mixture is trained, all through hooks on transformers' own modules.

With f_i the mean number of a token's k choices that fall on expert i and P_i the mean of its score (softmax or
normalised sigmoid, as the family routes), both over the tokens of a batch, in one layer:

    auxiliary   loss + .01 mean over layers of E sum_i f_i P_i                          Fedus et al. 2022 (Switch)
    z_loss      loss + .001 mean (ln sum_i exp logit_i)^2   Zoph et al. 2022 (ST-MoE)
    bias        after a step, bias_i += .001 sign(mean f - f_i), a layer at a time; it moves the choice, not the weights
                Wang et al. 2024; DeepSeek-V3
    capacity    `auxiliary`, and an expert takes at most `capacity` times its even share of a batch; later tokens in the
                batch get nothing from it in training (the finished model drops none)
"""

import inspect
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from toymodels.language_config import LanguageConfig

AUXILIARY, Z_LOSS, SPEED = 0.01, 0.001, 0.001
"""Coefficients of the two losses, and the step of the bias."""


@dataclass
class Routed:
    """What the routers of one batch did, an entry a layer."""

    logits: list[Tensor] = field(default_factory=list)
    index: list[Tensor] = field(default_factory=list)
    dropped: list[float] = field(default_factory=list)
    """Share of the choices that found their expert full."""


def mixtures(model: nn.Module) -> list[Any]:
    """The blocks with a router `gate` and `experts`, in order of the layers."""
    return [m for m in model.modules() if hasattr(m, "gate") and hasattr(m, "experts")]


@contextmanager
def watched(model: nn.Module, config: LanguageConfig) -> Iterator[Routed]:
    """While open, what the routers do is noted and, under `capacity`, choices beyond it are dropped."""
    seen = Routed()
    share = config.capacity if config.balancing == "capacity" else None
    with ExitStack() as stack:
        for block in mixtures(model):
            gate = block.gate.register_forward_hook(lambda _, __, out: seen.logits.append(out[0]))
            door = block.experts.register_forward_pre_hook(_door(seen, config.n_experts, share), with_kwargs=True)
            stack.callback(gate.remove)
            stack.callback(door.remove)
        yield seen


def penalty(seen: Routed, config: LanguageConfig) -> Tensor | float:
    """What the balancing adds to the loss of a batch, in nats."""
    if not seen.logits:
        return 0.0  # a dense model
    if config.balancing in ("auxiliary", "capacity"):
        scores = [_scores(logits, config.family) for logits in seen.logits]
        # A layer at a time: pooled over layers, an expert may die in one while its namesake in another is busy.
        return AUXILIARY * torch.stack(list(map(load_balance, scores, seen.index))).mean()
    if config.balancing == "z_loss":
        return Z_LOSS * torch.cat(seen.logits).logsumexp(-1).square().mean()
    return 0.0


def load_balance(scores: Float[Tensor, "tokens n_experts"], index: Int[Tensor, "tokens k"]) -> Tensor:
    """E sum_i f_i P_i: k if the choices or the scores are even, up to E when one set of experts gets everything."""
    n_experts = scores.shape[1]
    chosen = torch.bincount(index.flatten(), minlength=n_experts) / len(index)
    return n_experts * (chosen * scores.mean(0)).sum()


@torch.no_grad()
def move_bias(model: nn.Module, seen: Routed) -> None:
    """One step of the bias: up for experts below the mean load of their layer in this batch, down for the others."""
    for block, index in zip(mixtures(model), seen.index, strict=True):
        bias = block.gate.e_score_correction_bias
        load = torch.bincount(index.flatten(), minlength=len(bias)).to(bias.dtype)
        bias += SPEED * (load.mean() - load).sign()


def within_capacity(index: Int[Tensor, "tokens k"], n_experts: int, capacity: int) -> Tensor:
    """Which choices find room, (tokens, k) of bool: an expert takes the first `capacity` in order of the tokens."""
    flat = index.flatten()
    order = torch.argsort(flat, stable=True)
    begin = torch.bincount(flat, minlength=n_experts).cumsum(0).roll(1)
    begin[0] = 0
    place = torch.empty_like(flat)
    place[order] = torch.arange(len(flat), device=flat.device) - begin[flat[order]]
    return (place < capacity).view_as(index)


def _scores(logits: Tensor, family: str) -> Tensor:
    if family != "deepseek_v3":
        return logits.float().softmax(-1)
    scores = logits.sigmoid()
    return scores / scores.sum(-1, keepdim=True)


def _door(seen: Routed, n_experts: int, share: float | None) -> Any:
    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = inspect.signature(module.forward).bind(*args, **kwargs)
        index, weights = call.arguments["top_k_index"], call.arguments["top_k_weights"]
        seen.index.append(index.detach())
        if share is None:
            return None
        room = within_capacity(index, n_experts, math.ceil(share * index.numel() / n_experts))
        seen.dropped.append(1 - float(room.float().mean()))
        call.arguments["top_k_weights"] = weights * room
        return call.args, call.kwargs

    return before
