"""Ways to choose which neurons of a block are kept, and what a choice takes from the block's output."""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from pandas import DataFrame
from torch import Tensor

from data.tables import Tables
from probes.dictionaries import of_model
from probes.firing import N_BLOCKS, Sums, interval
from probes.histogram import LogHistogram, size_quantile
from probes.models import LanguageModel
from probes.sinks import KEPT
from probes.stream import Observation

Choice = Literal["oracle", "threshold", "static", "random"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
"""See `probes.keeping`."""
Edit = Callable[[Tensor], Tensor]


def keep_top(z: Float[Tensor, "*tokens d_mlp"], share: float) -> Float[Tensor, "*tokens d_mlp"]:
    """Each token's `share` of largest |z|, the rest 0; exactly round(share d_mlp) are kept, at least one."""
    index = z.abs().topk(n_kept(share, z.shape[-1]), dim=-1, sorted=False).indices
    return torch.zeros_like(z).scatter_(-1, index, z.gather(-1, index))


def n_kept(share: float, width: int) -> int:
    """Neurons kept out of `width`; ValueError if the share is not in (0, 1]."""
    if not 0 < share <= 1:
        raise ValueError(f"share={share} of neurons cannot be kept; choose one above 0 and at most 1")
    return max(1, round(share * width))


class Calibration(Sums):
    """What the static choice and the threshold know: mean z^2 and sizes of each neuron's z on other documents."""

    sites = ("neurons",)

    def __init__(self, model: LanguageModel, seed: int):
        super().__init__(energy=np.zeros((model.n_layers, model.d_mlp)))
        self.sizes = LogHistogram(model, "neurons")
        self.down = down_projections(model)
        rng = np.random.default_rng(seed)
        self.at_random = {layer: rng.permutation(down.shape[1]) for layer, down in self.down.items()}

    def update(self, seen: Observation) -> None:
        """Add z^2 of ordinary tokens."""
        if "neurons" in seen.sites:
            z = seen.sites["neurons"][seen.group == KEPT].float()
            self.arrays["energy"][seen.layer, : z.shape[1]] += z.square().sum(dim=0).double().cpu().numpy()

    def tables(self) -> Tables:
        """None."""
        return Tables()

    def edit(self, layer: int, choice: Choice, share: float) -> Edit:
        """The function that keeps `share` of this layer's neurons by `choice`."""
        if choice == "oracle":
            return lambda z: keep_top(z, share)
        if choice == "threshold":
            counts, _ = self.sizes.fold_sizes(layer)
            at = size_quantile(counts.sum(axis=0), 1 - share, self.sizes.atoms)
            return lambda z: z * (z.abs() >= at)
        down = self.down[layer]
        n, width = n_kept(share, down.shape[1]), down.shape[1]
        weight = self.arrays["energy"][layer, :width] * down.float().square().sum(dim=0).cpu().numpy()
        order = np.argsort(-weight, kind="stable") if choice == "static" else self.at_random[layer]
        mask = torch.zeros(width, dtype=torch.bool)
        mask[torch.from_numpy(order[:n].copy())] = True
        return lambda z: z * mask.to(z.device)


class OutputErrors(Sums):
    """Squared length of what each edit takes from a block's output, on every 16th ordinary token."""

    sites = ("neurons",)

    def __init__(self, model: LanguageModel, edits: Mapping[tuple[int, Choice, float], Edit], stride: int = 16):
        self.edits, self.stride, self.down = edits, stride, down_projections(model)
        self.settings = list(dict.fromkeys((choice, share) for _, choice, share in edits))
        super().__init__(
            lost=np.zeros((model.n_layers, len(self.settings), N_BLOCKS)),
            energy=np.zeros((model.n_layers, N_BLOCKS)),
            tokens=np.zeros((model.n_layers, N_BLOCKS), dtype=np.int64),
        )

    def update(self, seen: Observation) -> None:
        """Project what is dropped."""
        if "neurons" not in seen.sites or seen.layer not in self.down:
            return
        start = int(seen.tokens.ids.sum()) % self.stride
        used = (seen.group[start :: self.stride] == KEPT).cpu()
        z = seen.sites["neurons"][start :: self.stride][used.to(seen.group.device)]
        block = seen.tokens.block[start :: self.stride][used].numpy()
        down = self.down[seen.layer]

        def lengths(part: Tensor) -> np.ndarray:
            squared = (part @ down.T).float().square().sum(dim=1).double().cpu().numpy()
            return np.bincount(block, weights=squared, minlength=N_BLOCKS)

        for place, (choice, share) in enumerate(self.settings):
            self.arrays["lost"][seen.layer, place] += lengths(z - self.edits[seen.layer, choice, share](z))
        self.arrays["energy"][seen.layer] += lengths(z)
        self.arrays["tokens"][seen.layer] += np.bincount(block, minlength=N_BLOCKS)

    def tables(self) -> Tables:
        """`keeping_errors`: layer, choice, share, error, low, high (95%, blocks of documents resampled), n_tokens."""
        rows = []
        for layer, energy in enumerate(self.arrays["energy"]):
            for place, (choice, share) in enumerate(self.settings if energy.any() else ()):
                lost = self.arrays["lost"][layer, place]
                low, high = interval(lost, energy)
                found = {"layer": layer, "choice": choice, "share": share, "error": float(lost.sum() / energy.sum())}
                rows.append(found | {"low": low, "high": high, "n_tokens": int(self.arrays["tokens"][layer].sum())})
        return Tables(keeping_errors=DataFrame(rows))


def down_projections(model: LanguageModel) -> dict[int, Tensor]:
    """Down-projection (d_model, d_mlp) of every dense block, as the model holds it."""
    return {layer: torch.as_tensor(of_model(model, f"layer-{layer}-down").matrix) for layer in dense_layers(model)}


def dense_layers(model: LanguageModel) -> list[int]:
    """Layers whose feed-forward block is dense."""
    return [layer for layer, block in enumerate(model.blocks) if block.kind == "dense"]
