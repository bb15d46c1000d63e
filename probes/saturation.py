"""How far routing has settled: experts that a token keeps from one snapshot of a training to the last.

    saturation(t) = mean over tokens of |E_t and E_T| / k

E_t are the k experts of a token at snapshot t, E_T those at the end.  Chance is the same mean with tokens exchanged,
sum_e p_e(t) p_e(T) / k with p_e the share of tokens that use expert e: k / n_experts for even loads, more for uneven
ones, so that a router that sends all tokens to the same few experts does not pass for a settled one.
Source: Muennighoff et al. 2024 (OLMoE), section 5.1.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from pandas import DataFrame
from torch import Tensor

from data.corpus import Corpus
from data.progress import Progress, silent
from data.tables import Tables
from probes import stream
from probes.firing import interval
from probes.models import LanguageModel
from probes.sinks import FIRST
from probes.stream import N_BLOCKS, Observation, StreamConfig


class Routes(NamedTuple):
    """The experts of every token of a layer, in the order in which the text was read."""

    used: Bool[np.ndarray, "n_tokens n_experts"]
    block: Int[np.ndarray, " n_tokens"]
    """Resampling block of each token's document."""


def routes(
    model: LanguageModel, corpus: Corpus, config: StreamConfig, progress: Progress = silent
) -> dict[int, Routes]:
    """The experts that each token past the first positions uses, by layer; all snapshots see the same tokens.

    Memory grows with the tokens, so this is for the short text on which snapshots are compared.
    """
    recorder = _Recorder([block.n_experts for block in model.blocks])
    stream.run(model, corpus, {"routes": recorder}, config, stage="routes", progress=progress)
    return {
        layer: Routes(*(np.concatenate(p) for p in zip(*parts, strict=True))) for layer, parts in recorder.held.items()
    }


def saturation(now: Mapping[int, Routes], end: Mapping[int, Routes]) -> DataFrame:
    """`layer, measure` (saturation), `value, low, high` (95%, documents resampled), `chance, n_tokens`.

    Raises ValueError if the two did not read the same tokens.
    """
    rows = []
    for layer, (used, block) in now.items():
        last = end[layer].used
        if used.shape != last.shape or (block != end[layer].block).any():
            raise ValueError(
                f"layer {layer} was read on {len(used):,} tokens at the snapshot and on {len(last):,} at the end; "
                "compare snapshots on the same text"
            )
        k = float(last.sum(axis=1).mean())
        kept = (used & last).sum(axis=1) / k
        counts = np.bincount(block, minlength=N_BLOCKS)
        low, high = interval(np.bincount(block, weights=kept, minlength=N_BLOCKS), counts)
        chance = float(used.mean(axis=0) @ last.mean(axis=0) / k)
        rows.append((layer, "saturation", float(kept.mean()), low, high, chance, len(used)))
    return DataFrame(rows, columns=["layer", "measure", "value", "low", "high", "chance", "n_tokens"])


class _Recorder:
    """Writes down who uses what."""

    sites = ("expert_index",)

    def __init__(self, n_experts: list[int]):
        self.n_experts = n_experts
        self.held: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}

    def update(self, seen: Observation) -> None:
        index = seen.sites.get("expert_index")
        if index is None:
            return
        # not the sinks: each snapshot has its own, and all must be compared on the same tokens
        later = (seen.group != FIRST).cpu()
        used = _members(index.cpu()[later].long(), self.n_experts[seen.layer])
        self.held.setdefault(seen.layer, []).append((used.numpy(), seen.tokens.block[later].numpy()))

    def merge(self, other: "_Recorder") -> None:
        raise NotImplementedError("routes are compared token by token, in one pass")

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        return

    def tables(self) -> Tables:
        return Tables()


def _members(index: Int[Tensor, "n k"], n_experts: int) -> Bool[Tensor, "n n_experts"]:
    """Which experts each token uses; a slot that nobody got (-1) is left out."""
    used = torch.zeros(len(index), n_experts + 1, dtype=torch.bool)
    used.scatter_(1, torch.where((index >= 0) & (index < n_experts), index, n_experts), True)
    return used[:, :n_experts]
