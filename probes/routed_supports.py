"""The router of a real mixture of experts read as a dictionary, on the tokens of a corpus.

    from probes import routed_supports
    tables = routed_supports.measure(model, corpus)         # does mu (2k - 1) < 1 hold; do routed supports overlap?

Counts and sums only are kept, by resampling block of documents, and a sample of supports; see `router_reading` for the
measures on a matrix.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from pandas import DataFrame, concat
from torch import Tensor

from data.corpus import Corpus
from data.progress import Progress, silent, within
from data.runs import Run
from data.tables import Tables
from probes import router_reading, stream
from probes.dictionaries import of_model
from probes.expert_means import is_routed, routed_layers
from probes.firing import Sums
from probes.frames import random_directions
from probes.models import LanguageModel
from probes.sinks import KEPT
from probes.stream import N_BLOCKS, Observation, StreamConfig

SAMPLE = 64
"""Supports kept of each block of documents."""
RESAMPLES = 200


class Supports(Sums):
    """Loads of experts by block of documents, for the model's router and for a random one on the same inputs."""

    sites = ("router_input", "expert_index")

    def __init__(self, model: LanguageModel, layers: Sequence[int], seed: int = 0):
        experts, k = model.n_experts, model.k
        super().__init__(
            load=np.zeros((model.n_layers, 2, N_BLOCKS, experts)),
            tokens=np.zeros((model.n_layers, N_BLOCKS), dtype=np.int64),
            sample=np.full((model.n_layers, N_BLOCKS, SAMPLE, k), -1, dtype=np.int64),
        )
        self.blocks, self.layers = model.blocks, set(layers)
        self.random = {
            layer: random_directions(model.d_model, model.blocks[layer].n_experts, seed=seed + layer).float()
            for layer in layers
        }

    def update(self, seen: Observation) -> None:
        """Count the experts of ordinary tokens that kept all k of theirs."""
        if seen.layer not in self.layers or "expert_index" not in seen.sites:
            return
        chosen = seen.sites["expert_index"].cpu().long()
        keep = (seen.group.cpu() == KEPT) & (chosen >= 0).all(1)
        chosen, block = chosen[keep], seen.tokens.block[keep]
        inputs = seen.sites["router_input"].cpu()[keep].float()
        by_chance = (inputs @ self.random[seen.layer]).topk(chosen.shape[1], dim=1).indices
        for row, index in enumerate((chosen, by_chance)):
            place = block[:, None] * self.arrays["load"].shape[3] + index
            self.arrays["load"][seen.layer, row] += np.bincount(
                place.flatten().numpy(), minlength=self.arrays["load"][0, 0].size
            ).reshape(N_BLOCKS, -1)
        for one in block.unique().tolist():
            rows = chosen[block == one].numpy()
            had = int(self.arrays["tokens"][seen.layer, one])
            room = self.arrays["sample"][seen.layer, one, had : had + len(rows), : rows.shape[1]]
            room[:] = rows[: len(room)]
            self.arrays["tokens"][seen.layer, one] += len(rows)

    def tables(self) -> Tables:
        """`router_overlap`; the other tables need the weights."""
        return Tables(router_overlap=concat([self.overlap(layer) for layer in sorted(self.layers)], ignore_index=True))

    def selected(self, layer: int) -> Int[Tensor, "n k"]:
        """The sample of supports."""
        rows = self.arrays["sample"][layer].reshape(-1, self.arrays["sample"].shape[-1])[:, : self.blocks[layer].k]
        return torch.from_numpy(rows[(rows >= 0).all(1)])

    def overlap(self, layer: int, seed: int = 0) -> DataFrame:
        """Mean share of experts that two tokens have in common: `layer, router, n_tokens, n_documents, k, n_experts,
        mean, low, high, chance, ratio`, for the model's router and a random one on the same inputs.

        The interval resamples blocks of documents; chance is k/E, what independent uniform choices would share.
        """
        tokens = self.arrays["tokens"][layer]
        held = np.flatnonzero(tokens)
        k, n_experts = self.blocks[layer].k, self.blocks[layer].n_experts
        rng = np.random.default_rng(seed)
        draws = rng.multinomial(len(held), np.full(len(held), 1 / len(held)), size=RESAMPLES)
        rows = []
        for row, name in enumerate(("router", "random router")):
            load, count = self.arrays["load"][layer, row][held], tokens[held]
            found = [_shared(load, count, weight, k) for weight in (np.ones(len(held)), *draws)]
            low, high = np.quantile(found[1:], [0.025, 0.975])
            chance = k / n_experts
            rows.append((layer, name, count.sum(), len(held), k, n_experts, found[0], low, high, chance))
        names = "layer router n_tokens n_documents k n_experts mean low high chance"
        return DataFrame(rows, columns=names.split()).assign(ratio=lambda f: f["mean"] / f["chance"])


def measure(
    model: LanguageModel,
    corpus: Corpus,
    config: StreamConfig | None = None,
    *,
    layers: Sequence[int] | None = None,
    trials: int = 200,
    seed: int = 0,
    run: Run | None = None,
    progress: Progress = silent,
) -> Tables:
    """Tables `router_reading, router_recovery, router_overlap`, one part a routed layer (column `layer`).

    `router_reading` and `router_recovery` are those of `router_reading.measure` (is mu (2k - 1) < 1 at the model's own
    k; are uniform and routed supports recovered from the expert rows, against a random router); `router_overlap` is
    that of `Supports.overlap`.  ValueError if the model routes nothing.
    """
    routed = [layer for layer in layers if is_routed(model, layer)] if layers is not None else routed_layers(model)
    if not routed:
        raise ValueError(f"{model.title} has no mixture of experts in the layers asked for; give a model that routes")
    supports = Supports(model, routed, seed)
    stream.run(
        model, corpus, {"supports": supports}, config or StreamConfig(n_tokens=4_000), layers=routed, saved_in=run,
        stage="supports", progress=within(progress, 0, 2),
    )  # fmt: skip
    held: dict[str, list[DataFrame]] = {"router_reading": [], "router_recovery": [], "router_overlap": []}
    for number, layer in enumerate(routed):
        within(progress, 1, 2)(number, len(routed), f"router of layer {layer}")
        found = router_reading.measure(
            expert_rows(model, layer), supports.selected(layer), trials=trials, seed=seed + layer
        )
        held["router_reading"].append(found["router"].assign(layer=layer))
        held["router_recovery"].append(found["recovery"].assign(layer=layer))
        held["router_overlap"].append(supports.overlap(layer, seed))
    progress(2, 2, "routers")
    return Tables({name: concat(frames, ignore_index=True) for name, frames in held.items()})


def expert_rows(model: LanguageModel, layer: int) -> Float[Tensor, "n_experts d_model"]:
    """The router's rows, one an expert."""
    return torch.as_tensor(of_model(model, f"layer-{layer}-router").matrix).t().float().cpu()


def _shared(load: np.ndarray, tokens: np.ndarray, weight: np.ndarray, k: int) -> float:
    """Average of |S_a and S_b| / k over ordered pairs of different tokens, blocks taken `weight` times each.

    Over all pairs the sum is |load|^2; a token with itself (as often as it was drawn, squared) shares k.
    """
    total, same = float(weight @ tokens), float(weight**2 @ tokens)
    return float((np.square(weight @ load).sum() / k - same) / (total**2 - same))
