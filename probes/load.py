"""How evenly a router spreads tokens over its experts."""

from functools import partial

import numpy as np
import torch
from pandas import DataFrame

from data.tables import Tables
from probes.firing import Sums, jackknife
from probes.models import LanguageModel
from probes.sinks import KEPT
from probes.stream import N_BLOCKS, Observation


def load_entropy(counts: np.ndarray) -> float:
    """Entropy of the share of choices each expert gets, over ln n_experts: 1 if all get the same, 0 if one gets all."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum() / np.log(len(counts))) if len(counts) > 1 else 0.0


class Load(Sums):
    """How often each expert of each layer is chosen, by block of documents; ordinary tokens only."""

    sites = ("expert_index",)

    def __init__(self, model: LanguageModel):
        self.widths = [block.n_experts for block in model.blocks]
        super().__init__(
            chosen=np.zeros((model.n_layers, N_BLOCKS, max(*self.widths, 1)), dtype=np.int64),
            tokens=np.zeros((model.n_layers, N_BLOCKS), dtype=np.int64),
        )

    def update(self, seen: Observation) -> None:
        """Count the experts used."""
        index = seen.sites.get("expert_index")
        if index is None:
            return
        kept = (seen.group == KEPT).cpu()
        block, experts = seen.tokens.block[kept], index.cpu()[kept].long()
        width = self.arrays["chosen"].shape[2]
        flat = (block[:, None] * width + experts).flatten()
        counts = torch.bincount(flat, minlength=N_BLOCKS * width).numpy()
        self.arrays["chosen"][seen.layer] += counts.reshape(N_BLOCKS, width)
        self.arrays["tokens"][seen.layer] += torch.bincount(block, minlength=N_BLOCKS).numpy()

    def tables(self) -> Tables:
        """`layers`: layer, measure (`load_entropy`), value, low, high (95%, each block left out once), n_tokens."""
        rows = []
        for layer, width in enumerate(self.widths):
            tokens, chosen = self.arrays["tokens"][layer], self.arrays["chosen"][layer, :, :width]
            if width and tokens.sum():
                value, low, high = jackknife(tokens, partial(_of_blocks, chosen))
                rows.append((layer, "load_entropy", value, low, high, int(tokens.sum())))
        return Tables(layers=DataFrame(rows, columns=["layer", "measure", "value", "low", "high", "n_tokens"]))


def _of_blocks(chosen: np.ndarray, held: np.ndarray) -> float:
    return load_entropy(chosen[held].sum(axis=0))
