"""Accumulators of the sparsity probe: who fires, how concentrated the activations are, what the inputs look like."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from data.tables import Tables
from probes.describe import MEASURES, token_measures
from probes.models import LanguageModel
from probes.sinks import FIRST, GROUPS, KEPT, SINK
from probes.stream import N_BLOCKS, Observation

SINK_VIEWS = {"without": (KEPT,), "with": (KEPT, SINK, FIRST)}
"""How tables name what is counted: ordinary tokens only, or all of them."""
N_RESAMPLES = 1000


class Sums:
    """Named arrays that add up: what every accumulator here keeps."""

    def __init__(self, **arrays: np.ndarray):
        self.arrays = arrays

    def merge(self, other: Self) -> None:
        """Add the other's arrays."""
        for name, array in self.arrays.items():
            array += other.arrays[name]

    def state(self) -> dict[str, np.ndarray]:
        """The arrays."""
        return self.arrays

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take the arrays of `state`."""
        self.arrays = {name: np.array(state[name]) for name in self.arrays}


class Firing(Sums):
    """How often each neuron fires: gate pre-activation above 0 (for ReLU blocks, the same as an activation not 0)."""

    sites = ("gate",)

    def __init__(self, model: LanguageModel):
        layers, groups = model.n_layers, len(GROUPS)
        super().__init__(
            fired=np.zeros((layers, groups, model.d_mlp), dtype=np.int64),
            by_block=np.zeros((layers, groups, N_BLOCKS), dtype=np.int64),
            tokens=np.zeros((layers, groups, N_BLOCKS), dtype=np.int64),
        )
        self.widths = [block.d_mlp for block in model.blocks]

    def update(self, seen: Observation) -> None:
        """Count who fires, apart for each group of tokens."""
        if "gate" not in seen.sites:
            return
        fires = seen.sites["gate"] > 0
        for group in GROUPS.values():
            rows = seen.group == group
            if not bool(rows.any()):
                continue
            of_group = fires if bool(rows.all()) else fires[rows]
            block = seen.tokens.block[rows.cpu()]
            self.arrays["fired"][seen.layer, group, : fires.shape[1]] += of_group.sum(dim=0).cpu().numpy()
            per_token = of_group.sum(dim=1).cpu()
            self.arrays["by_block"][seen.layer, group] += _per_block(per_token, block).astype(np.int64)
            self.arrays["tokens"][seen.layer, group] += torch.bincount(block, minlength=N_BLOCKS).numpy()

    def tables(self) -> Tables:
        """`layers` (mean firing frequency over neurons) and `neurons` (one row a neuron)."""
        layers: list[dict[str, Any]] = []
        neurons: list[DataFrame] = []
        for layer, width in enumerate(self.widths):
            for sinks, groups in SINK_VIEWS.items():
                sums = self.arrays["by_block"][layer, groups, :].sum(axis=0) / width
                counts = self.arrays["tokens"][layer, groups, :].sum(axis=0)
                if counts.sum():
                    layers.append(_row(layer, sinks, "firing_frequency", sums, counts))
                if counts.sum() and sinks == "without":
                    frequency = self.arrays["fired"][layer, groups, :width].sum(axis=0) / counts.sum()
                    index = np.arange(width)
                    neurons.append(
                        DataFrame({"layer": layer, "neuron": index, "frequency": frequency, "n_tokens": counts.sum()})
                    )
        return Tables(layers=DataFrame(layers), neurons=_stacked(neurons))


class Concentration(Sums):
    """Energy in the top shares and the other measures of `describe`, on every tenth token of all groups."""

    sites = ("neurons",)

    def __init__(self, model: LanguageModel, stride: int = 10):
        shape = (model.n_layers, len(GROUPS), N_BLOCKS)
        super().__init__(
            sums=np.zeros((*shape, len(MEASURES)), dtype=np.float64), tokens=np.zeros(shape, dtype=np.int64)
        )
        self.stride = stride

    def update(self, seen: Observation) -> None:
        """Sort the sampled tokens' activations and add up their measures."""
        if "neurons" not in seen.sites:
            return
        # The first token taken depends on the batch's text, so that no position is always or never seen.
        start = int(seen.tokens.ids.sum()) % self.stride
        measured = token_measures(seen.sites["neurons"][start :: self.stride]).double().cpu()
        group, block = seen.group[start :: self.stride].cpu(), seen.tokens.block[start :: self.stride]
        usable = torch.isfinite(measured).all(dim=1)
        for index in GROUPS.values():
            rows = usable & (group == index)
            if bool(rows.any()):
                self.arrays["sums"][seen.layer, index] += _per_block(measured[rows], block[rows])
                self.arrays["tokens"][seen.layer, index] += torch.bincount(block[rows], minlength=N_BLOCKS).numpy()

    def tables(self) -> Tables:
        """`layers`, one row a layer, view of the sinks and measure."""
        rows = []
        for layer in range(self.arrays["tokens"].shape[0]):
            for sinks, groups in SINK_VIEWS.items():
                counts = self.arrays["tokens"][layer, groups, :].sum(axis=0)
                sums = self.arrays["sums"][layer, groups, :, :].sum(axis=0)
                if counts.sum():
                    rows += [_row(layer, sinks, m, sums[:, i], counts) for i, m in enumerate(MEASURES)]
        return Tables(layers=DataFrame(rows))


class SinkCount(Sums):
    """How many tokens are attention sinks, and how much of the FFN output's energy they hold."""

    sites = ()

    def __init__(self, model: LanguageModel):
        shape = (model.n_layers, len(GROUPS))
        super().__init__(tokens=np.zeros(shape, dtype=np.int64), energy=np.zeros(shape, dtype=np.float64))

    def update(self, seen: Observation) -> None:
        """Add up tokens and energy by group."""
        self.arrays["tokens"][seen.layer] += torch.bincount(seen.group.cpu(), minlength=len(GROUPS)).numpy()
        energy = torch.zeros(len(GROUPS), dtype=torch.float64)
        self.arrays["energy"][seen.layer] += energy.index_add(0, seen.group.cpu(), seen.energy.double().cpu()).numpy()

    def tables(self) -> Tables:
        """`sinks`: layer, tokens, sinks past the first positions, and the shares of energy of both kinds of outlier."""
        tokens, energy = self.arrays["tokens"], self.arrays["energy"]
        seen = np.flatnonzero(tokens.sum(axis=1))
        total = energy.sum(axis=1)
        return Tables(
            sinks=DataFrame(
                {
                    "layer": seen,
                    "n_tokens": tokens.sum(axis=1)[seen],
                    "n_sinks": tokens[seen, SINK],
                    "energy_share": (energy[:, SINK] / total)[seen],
                    "n_first": tokens[seen, FIRST],
                    "energy_share_first": (energy[:, FIRST] / total)[seen],
                }
            )
        )


class InputMoments(Sums):
    """Mean and covariance of the FFN input of ordinary tokens, layer by layer: what the Gaussian control matches."""

    sites = ("ffn_input",)

    def __init__(self, model: LanguageModel, stride: int = 2):
        layers, d = model.n_layers, model.d_model
        super().__init__(
            count=np.zeros(layers, dtype=np.int64), total=np.zeros((layers, d)), product=np.zeros((layers, d, d))
        )
        self.stride = stride

    def update(self, seen: Observation) -> None:
        """Add x and x x^T of every other ordinary token."""
        x = seen.sites["ffn_input"][seen.group == KEPT][:: self.stride].float()
        self.arrays["count"][seen.layer] += len(x)
        self.arrays["total"][seen.layer] += x.sum(dim=0).double().cpu().numpy()
        self.arrays["product"][seen.layer] += (x.T @ x).cpu().numpy()

    def tables(self) -> Tables:
        """None: moments serve a control, they are not a finding."""
        return Tables()

    def moments(self, layer: int) -> tuple[Tensor, Tensor, int]:
        """Mean (d_model), covariance (d_model, d_model) and the number of tokens behind them."""
        count = int(self.arrays["count"][layer])
        mean = torch.from_numpy(self.arrays["total"][layer]) / count
        covariance = torch.from_numpy(self.arrays["product"][layer]) / count - torch.outer(mean, mean)
        return mean, covariance, count


def interval(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """95% percentile bootstrap of sum(sums) / sum(counts), resampling blocks of documents; NaN for a single block."""
    used = counts > 0
    if used.sum() < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    n = int(used.sum())
    weights = rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)
    ratios = (weights @ sums[used]) / (weights @ counts[used])
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def _row(layer: int, sinks: str, measure: str, sums: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    low, high = interval(sums, counts)
    value = float(sums.sum() / counts.sum())
    described = {"layer": layer, "sinks": sinks, "measure": measure, "value": value, "low": low, "high": high}
    return described | {"n_tokens": int(counts.sum()), "n_blocks": int((counts > 0).sum())}


def _per_block(values: Tensor, block: Tensor) -> np.ndarray:
    shape = (N_BLOCKS, *values.shape[1:])
    return torch.zeros(shape, dtype=torch.float64).index_add(0, block, values.double()).numpy()


def _stacked(frames: list[DataFrame]) -> DataFrame:
    import pandas as pd

    return pd.concat(frames, ignore_index=True) if frames else DataFrame()
