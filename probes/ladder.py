"""The sparsity ladder: embedding lookup, mixture of experts, dense block, by what each uses for a token.

A lookup in a table of V rows uses one of V; a mixture with k of E experts uses k/E; a dense block uses the neurons that
fire.  The other axis counts *which* units were used together: the distinct active sets seen in a text.  A lookup shows
as many as there are token types, a mixture at most C(E, k), a dense block nearly one a token.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int, Shaped
from pandas import DataFrame
from torch import Tensor

from data.corpus import Corpus
from data.progress import Progress, silent, within
from data.runs import Run
from data.tables import Tables
from probes import stream
from probes.controls import random_init
from probes.firing import N_BLOCKS, Sums, interval
from probes.models import LanguageModel
from probes.sinks import KEPT
from probes.stream import Observation, StreamConfig

RUNGS = ("embedding", "moe", "dense")


class DistinctSets:
    """How many distinct sets of units were seen, from their smallest hashes: exact up to `size`, then to 1/sqrt(size).

    A set's hash is the mixed sum of its members' random 64-bit numbers, whatever their order.  With more than `size`
    distinct sets the size-th smallest hash u (as a share of the range) tells their number, (size - 1) / u.
    Source: Bar-Yossef et al. 2002 (k minimum values).
    """

    def __init__(self, n_layers: int, n_units: int, size: int = 16_384, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.weights = torch.from_numpy(rng.integers(-(2**63), 2**63, n_units, dtype=np.int64))
        self.smallest = np.full((n_layers, size), np.iinfo(np.uint64).max, dtype=np.uint64)

    def add(self, layer: int, sums: Int[Tensor, " n_tokens"]) -> None:
        """Take in one sum of `weights` a token."""
        self._take(layer, _mixed(sums.cpu().numpy().view(np.uint64)))

    def _take(self, layer: int, hashes: Shaped[np.ndarray, " n"]) -> None:
        size = self.smallest.shape[1]
        both = np.unique(np.concatenate([self.smallest[layer], hashes]))[:size]
        self.smallest[layer, : len(both)] = both

    def merge(self, other: "DistinctSets") -> None:
        """Take in what another one has seen."""
        for layer, hashes in enumerate(other.smallest):
            self._take(layer, hashes)

    def count(self, layer: int) -> float:
        """Distinct sets seen in this layer."""
        held = self.smallest[layer]
        full = np.iinfo(np.uint64).max
        if held[-1] == full:
            return float((held != full).sum())
        return (len(held) - 1) / ((float(held[-1]) + 1) / 2.0**64)


class ActiveSets(Sums):
    """Active share and distinct active sets of every layer: firing neurons in dense blocks, experts in mixtures."""

    def __init__(self, model: LanguageModel):
        routed = any(block.kind == "moe" for block in model.blocks)
        dense = any(block.kind == "dense" for block in model.blocks)
        self.sites: tuple[str, ...] = (("gate",) if dense else ()) + (("expert_index",) if routed else ())
        self.blocks = model.blocks
        self.sets = DistinctSets(model.n_layers, max(model.d_mlp, model.n_experts))
        self.types = np.zeros(max(model.vocab_size, 1), dtype=bool)
        shape = (model.n_layers, N_BLOCKS)
        super().__init__(active=np.zeros(shape), tokens=np.zeros(shape, dtype=np.int64))

    def update(self, seen: Observation) -> None:
        """Add what each ordinary token uses."""
        used = seen.group == KEPT
        block = seen.tokens.block[used.cpu()].numpy()
        if seen.layer == 0:
            self.types[seen.tokens.flat(seen.tokens.ids)[used.cpu()].numpy()] = True
        if "expert_index" in seen.sites:
            chosen = seen.sites["expert_index"][used].cpu()
            width = self.blocks[seen.layer].n_experts
            active = torch.nn.functional.one_hot(chosen, width).amax(dim=1) > 0
        elif "gate" in seen.sites:
            active = (seen.sites["gate"][used] > 0).cpu()
            width = active.shape[1]
        else:
            return
        # wraps around at 2^64, which is what a hash wants
        self.sets.add(seen.layer, active.long() @ self.sets.weights[:width])
        share = active.double().mean(dim=1).numpy()
        self.arrays["active"][seen.layer] += np.bincount(block, weights=share, minlength=N_BLOCKS)
        self.arrays["tokens"][seen.layer] += np.bincount(block, minlength=N_BLOCKS)

    def merge(self, other: Sums) -> None:
        """Add what another one has seen."""
        if not isinstance(other, ActiveSets):
            raise TypeError(f"active sets cannot be merged with {type(other).__name__}")
        super().merge(other)
        self.sets.merge(other.sets)
        self.types |= other.types

    def state(self) -> dict[str, np.ndarray]:
        """Sums, hashes and token types."""
        return self.arrays | {"smallest": self.sets.smallest.view(np.int64), "types": self.types}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become the one that gave `state`."""
        super().restore(state)
        self.sets.smallest = np.array(state["smallest"]).view(np.uint64)
        self.types = np.array(state["types"], dtype=bool)

    def tables(self) -> Tables:
        """`ladder`, without the columns model and condition; see `measure`."""
        n, vocabulary = int(self.arrays["tokens"][0].sum()), len(self.types)
        looked_up = {"rung": "embedding", "layer": -1, "n_units": vocabulary, "active_share": 1 / vocabulary}
        looked_up |= {"low": 1 / vocabulary, "high": 1 / vocabulary, "n_sets": float(self.types.sum()), "n_tokens": n}
        rows: list[dict[str, Any]] = [looked_up | {"log2_possible": float(np.log2(vocabulary))}]
        for layer, block in enumerate(self.blocks):
            active, tokens = self.arrays["active"][layer], self.arrays["tokens"][layer]
            if tokens.any():
                low, high = interval(active, tokens)
                row = {"rung": block.kind, "layer": layer, "n_units": block.n_experts or block.d_mlp}
                row |= {"active_share": float(active.sum() / tokens.sum()), "low": low, "high": high}
                row |= {"n_sets": self.sets.count(layer), "n_tokens": int(tokens.sum())}
                rows.append(row | {"log2_possible": log2_sets(block.n_experts, block.k) or float(block.d_mlp)})
        frame = DataFrame(rows)
        return Tables(ladder=frame.assign(sets_per_token=frame["n_sets"] / frame["n_tokens"]))


def measure(
    models: Sequence[LanguageModel],
    corpus: Corpus,
    n_tokens: int = 20_000,
    *,
    control: bool = True,
    config: StreamConfig | None = None,
    run: Run | None = None,
    progress: Progress = silent,
) -> Tables:
    """Active share and number of distinct active sets of every rung of the models, beside random weights.

    `ladder`: model, condition (real, random_init), rung (embedding, moe, dense), layer (-1: the embedding), n_units,
    active_share, low, high (95%, documents resampled; exact for lookups and mixtures), n_sets, sets_per_token,
    log2_possible (how many sets there could be), n_tokens.

    With `run`, the table is saved after every pass, and a stopped measurement goes on at its last whole shard.
    """
    if not models:
        raise ValueError("no model to measure; give at least one")
    config = (config or StreamConfig()).model_copy(update={"n_tokens": n_tokens})
    conditions = ("real", "random_init") if control else ("real",)
    frames = []
    for number, model in enumerate(models):
        for step, condition in enumerate(conditions):
            measured = model if condition == "real" else random_init(model, config.seed)
            sets = ActiveSets(measured)
            told = within(progress, number * len(conditions) + step, len(models) * len(conditions))
            stage = f"ladder_{number}_{condition}"
            stream.run(measured, corpus, {"sets": sets}, config, saved_in=run, stage=stage, progress=told)
            frames.append(sets.tables().ladder.assign(model=model.title, condition=condition))
            found = Tables(ladder=pd.concat(frames, ignore_index=True))
            if run is not None:
                run.save_tables(found)
    return found


def log2_sets(n_experts: int, k: int) -> float:
    """log2 C(n_experts, k), 0 without experts."""
    from math import comb

    return float(np.log2(float(comb(n_experts, k)))) if n_experts else 0.0


def _mixed(x: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """The finaliser of splitmix64: every bit of the sum moves every bit of the hash."""
    x = x ^ (x >> np.uint64(30))
    x = x * np.uint64(0xBF58476D1CE4E5B9)
    x = x ^ (x >> np.uint64(27))
    x = x * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
