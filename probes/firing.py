"""Accumulators of the sparsity probe: who fires, how concentrated the activations are, what the inputs look like."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas import DataFrame
from scipy import stats
from torch import Tensor

from data.tables import Tables
from probes.describe import MEASURES, token_measures
from probes.models import LanguageModel
from probes.sinks import FIRST, GROUPS, KEPT, SINK
from probes.stream import N_BLOCKS, N_FOLDS, Observation

SINK_VIEWS = {"without": (KEPT,), "with": (KEPT, SINK, FIRST)}
"""How tables name what is counted: ordinary tokens only, or all of them."""
N_RESAMPLES = 1000


class Sums(ABC):
    """Named arrays that add up: what every accumulator here keeps.

    What `add` is given on a GPU is added up there, and comes over when the arrays are asked for: fetching every batch
    would have the processor wait for the GPU and the GPU for the processor.
    """

    sites: tuple[str, ...] = ()
    """Sites it looks at."""

    @abstractmethod
    def update(self, seen: Observation) -> None:
        """Take in one layer of one batch."""

    @abstractmethod
    def tables(self) -> Tables:
        """What it found."""

    def __init__(self, **arrays: np.ndarray):
        self._arrays = arrays
        self._waiting: dict[tuple[str, int], Tensor] = {}
        """Sums by array and layer that still lie on the GPU."""

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The sums so far."""
        for (name, layer), sums in self._waiting.items():
            self._arrays[name][layer] += sums.cpu().numpy()
        self._waiting.clear()
        return self._arrays

    @arrays.setter
    def arrays(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays, self._waiting = arrays, {}

    def add(self, name: str, layer: int, values: Tensor) -> None:
        """Add to a layer's array; values that are smaller than it along some axes go to the beginnings of these."""
        whole, corner = self._arrays[name], tuple(map(slice, values.shape))
        values = values.to(torch.from_numpy(whole[:0]).dtype)
        if values.device.type == "cpu":
            whole[layer : layer + 1][(slice(None), *corner)] += values[None].numpy()
        elif values.shape != whole.shape[1:]:
            self._waiting.setdefault((name, layer), values.new_zeros(whole.shape[1:]))[corner] += values
        elif (name, layer) in self._waiting:
            self._waiting[name, layer] += values
        else:
            self._waiting[name, layer] = values.clone()

    def merge(self, other: "Sums") -> None:
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
            fired_in_fold=np.zeros((layers, N_FOLDS, model.d_mlp), dtype=np.int64),
        )
        self.widths = [block.d_mlp for block in model.blocks]
        self.latest: tuple[Any, int, Tensor] = (None, -1, torch.empty(0))
        """Tokens and layer last seen, and how many neurons fired on each token."""
        self._fires = torch.empty(0)  # kept between batches: fresh memory costs more than the comparison

    def update(self, seen: Observation) -> None:
        """Count who fires, apart for each group of tokens."""
        if "gate" not in seen.sites:
            return
        # Matrix products of zeros and ones are exact below 2^24 tokens and far quicker than sums of booleans.
        gate = seen.sites["gate"]
        if self._fires.shape != gate.shape or self._fires.device != gate.device:
            self._fires = torch.empty(gate.shape, device=gate.device)
        fires = torch.gt(gate, 0, out=self._fires)
        group, block = seen.group, seen.block
        column = torch.where(seen.kept, seen.fold, N_FOLDS - 1 + group)
        member = (column[:, None] == torch.arange(N_FOLDS + len(GROUPS) - 1, device=gate.device)).float()
        counts = (member.T @ fires).long()
        self.add("fired_in_fold", seen.layer, counts[:N_FOLDS])
        self.add("fired", seen.layer, torch.cat([counts[:N_FOLDS].sum(dim=0, keepdim=True), counts[N_FOLDS:]]))
        of_token = fires.sum(dim=1)
        self.latest = (seen.tokens, seen.layer, of_token)
        self.add("by_block", seen.layer, _per_group_and_block(of_token, group, block).long())
        self.add("tokens", seen.layer, _counts(group, block))

    def fold_counts(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """Firings of each neuron on ordinary tokens (N_FOLDS, d_mlp), and the tokens (N_FOLDS)."""
        tokens = self.arrays["tokens"][layer, KEPT].reshape(-1, N_FOLDS).sum(axis=0)
        return self.arrays["fired_in_fold"][layer, :, : self.widths[layer]], tokens

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
        start = seen.tokens.start % self.stride
        measured = token_measures(seen.sites["neurons"][start :: self.stride]).double()
        group, block = seen.group[start :: self.stride], seen.block[start :: self.stride]
        usable = torch.isfinite(measured).all(dim=1)
        self.add("sums", seen.layer, _per_group_and_block(measured.masked_fill(~usable[:, None], 0), group, block))
        self.add("tokens", seen.layer, _counts(group, block, usable))

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
        tokens = torch.zeros(len(GROUPS), dtype=torch.int64, device=seen.group.device)
        self.add("tokens", seen.layer, tokens.index_add_(0, seen.group, torch.ones_like(seen.group)))
        energy = torch.zeros(len(GROUPS), dtype=torch.float64, device=seen.group.device)
        self.add("energy", seen.layer, energy.index_add_(0, seen.group, seen.energy.double()))

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

    def __init__(self, model: LanguageModel, stride: int = 4):
        layers, d = model.n_layers, model.d_model
        super().__init__(
            count=np.zeros(layers, dtype=np.int64), total=np.zeros((layers, d)), product=np.zeros((layers, d, d))
        )
        self.stride = stride

    def update(self, seen: Observation) -> None:
        """Add x and x x^T of every `stride`-th token, if it is an ordinary one."""
        kept = seen.kept[:: self.stride]
        x = seen.sites["ffn_input"][:: self.stride].float().masked_fill(~kept[:, None], 0)
        self.add("count", seen.layer, kept.sum())
        self.add("total", seen.layer, x.sum(dim=0).double())
        self.add("product", seen.layer, (x.T @ x).double())

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
    weights = resamples(int(used.sum()))
    ratios = (weights @ sums[used]) / (weights @ counts[used])
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def jackknife(tokens: np.ndarray, of: Callable[[np.ndarray], float]) -> tuple[float, float, float]:
    """`of(folds)` for all folds that hold tokens, and its 95% interval from leaving each of them out once."""
    held = np.flatnonzero(tokens)
    value = of(held) if len(held) else float("nan")
    if len(held) < 2:
        return value, float("nan"), float("nan")
    without = np.array([of(np.setdiff1d(held, [fold])) for fold in held])
    spread = np.sqrt((len(held) - 1) / len(held) * ((without - without.mean()) ** 2).sum())
    reach = float(spread * stats.t.ppf(0.975, len(held) - 1))
    return value, value - reach, value + reach


@lru_cache(maxsize=N_BLOCKS)
def resamples(n: int) -> np.ndarray:
    """How often each of n blocks is drawn in each resample; the same on every call, so that intervals are too."""
    rng = np.random.default_rng(0)
    return rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES).astype(np.float64)


def _row(layer: int, sinks: str, measure: str, sums: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    low, high = interval(sums, counts)
    value = float(sums.sum() / counts.sum())
    described = {"layer": layer, "sinks": sinks, "measure": measure, "value": value, "low": low, "high": high}
    return described | {"n_tokens": int(counts.sum()), "n_blocks": int((counts > 0).sum())}


def _per_group_and_block(values: Tensor, group: Tensor, block: Tensor) -> Tensor:
    """Sums of the values of each token by (group, block)."""
    cells = torch.zeros((len(GROUPS) * N_BLOCKS, *values.shape[1:]), dtype=torch.float64, device=values.device)
    cells.index_add_(0, group * N_BLOCKS + block, values.double())
    return cells.view(len(GROUPS), N_BLOCKS, *values.shape[1:])


def _counts(group: Tensor, block: Tensor, used: Tensor | None = None) -> Tensor:
    """Tokens by (group, block)."""
    cells = torch.zeros(len(GROUPS) * N_BLOCKS, dtype=torch.int64, device=group.device)
    one = torch.ones_like(group) if used is None else used.long()
    return cells.index_add_(0, group * N_BLOCKS + block, one).view(len(GROUPS), N_BLOCKS)


def _stacked(frames: list[DataFrame]) -> DataFrame:
    return pd.concat(frames, ignore_index=True) if frames else DataFrame()
