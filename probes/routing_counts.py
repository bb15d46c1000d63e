"""Who is routed where, as sums over tokens: loads, pairs of experts, consecutive tokens, router probabilities."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped
from pandas import DataFrame
from torch import Tensor

from data.tables import Tables
from probes import load
from probes.firing import N_FOLDS, Sums, jackknife
from probes.models import LanguageModel, ModelError
from probes.stream import N_BLOCKS, Observation, TokenBatch

COLUMNS = ["layer", "measure", "value", "low", "high", "chance", "chance_low", "chance_high", "ceiling", "n_tokens"]


class RoutingCounts(Sums):
    """Choices of each expert, alone and in pairs, by block of documents; ordinary tokens only.

    `sites` holds `router_probabilities` only where the model says where its router is.
    """

    def __init__(self, model: LanguageModel):
        self.widths = [block.n_experts for block in model.blocks]
        self.ks = [block.k for block in model.blocks]
        offered = _offers(model, "router_probabilities")
        self.sites = ("expert_index", "expert_weight", *(("router_probabilities",) if offered else ()))
        self._folds: tuple[Any, Tensor, list[int]] = (None, torch.empty(0), [])
        layers, width = model.n_layers, max(*self.widths, 1)
        super().__init__(
            chosen=np.zeros((layers, N_BLOCKS, width), dtype=np.int64),
            weight=np.zeros((layers, N_BLOCKS, width)),
            probability=np.zeros((layers, N_BLOCKS, width)),
            entropy=np.zeros((layers, N_BLOCKS)),
            tokens=np.zeros((layers, N_BLOCKS), dtype=np.int64),
            together=np.zeros((layers, N_FOLDS, width, width), dtype=np.int64),
            repeats=np.zeros((layers, N_BLOCKS), dtype=np.int64),
            consecutive=np.zeros((layers, N_BLOCKS), dtype=np.int64),
        )

    def update(self, seen: Observation) -> None:
        """Count the experts used."""
        index = seen.sites.get("expert_index")
        if index is None:
            return
        layer, width, kept = seen.layer, self.widths[seen.layer], seen.kept
        hot = _one_hot(index.long().masked_fill(~kept[:, None], -1), width)
        weight = _one_hot(index.long(), width, seen.sites["expert_weight"].masked_fill(~kept[:, None], 0))
        follows = (torch.diff(seen.position) == 1) & kept[1:] & kept[:-1]
        repeats = (hot[1:] * hot[:-1]).sum(dim=1) * follows
        columns = {"chosen": hot, "weight": weight, "tokens": kept[:, None]}
        columns |= {"repeats": _after_first(repeats), "consecutive": _after_first(follows)}
        if "router_probabilities" in seen.sites:
            probability = seen.sites["router_probabilities"].double().masked_fill(~kept[:, None], 0)
            entropy = torch.special.entr(probability).sum(dim=1, keepdim=True)
            columns |= {"probability": probability, "entropy": entropy}
        self._add_by_block(layer, seen.block, columns)
        if self._folds[0] is not seen.tokens:  # the same for every layer of a batch
            self._folds = (seen.tokens, *_by_fold(seen.tokens))
        parts = hot[seen.tokens.on(hot.device, "by fold", self._folds[1])].split(self._folds[2])
        self.add("together", layer, torch.stack([part.T @ part for part in parts]).round())

    def _add_by_block(self, layer: int, block: Int[Tensor, " n"], columns: Mapping[str, Tensor]) -> None:
        """Add each token's values, 0 for those that are left out, to its block: one product for all of them."""
        member = (block[:, None] == torch.arange(N_BLOCKS, device=block.device)).double()
        sums = member.T @ torch.cat([values.double() for values in columns.values()], dim=1)
        for name, part in zip(columns, sums.split([v.shape[1] for v in columns.values()], dim=1), strict=True):
            self.add(name, layer, part if self._arrays[name].ndim == 3 else part[:, 0])

    def tables(self) -> Tables:
        """`routing`, `load`, `coactivation`; see `probes.routing`."""
        held = [i for i, width in enumerate(self.widths) if width and self.arrays["tokens"][i].sum()]
        parts = {"routing": self._measures, "load": self._load, "coactivation": self._pairs}
        return Tables({name: _stacked([of(layer) for layer in held]) for name, of in parts.items()})

    def slots(self, layer: int) -> Int[np.ndarray, " n_experts"]:
        """How often each expert of the layer was chosen."""
        return self.arrays["chosen"][layer, :, : self.widths[layer]].sum(axis=0)

    def _measures(self, layer: int) -> DataFrame:
        width, k = self.widths[layer], self.ks[layer]
        held = {name: array[layer] for name, array in self.arrays.items() if name != "together"}
        held |= {name: held[name][:, :width] for name in ("chosen", "weight", "probability")}
        n_tokens = int(held["tokens"].sum())
        uniform = load.uniform_loads(width, k, n_tokens)
        rows: list[dict[str, Any]] = []

        def add(measure: str, of: Callable[[np.ndarray], float], **beside: float) -> None:
            value, low, high = jackknife(held["tokens"], of)
            rows.append({"layer": layer, "measure": measure, "value": value, "low": low, "high": high} | beside)

        for name, of_load in load.OF_LOAD.items():
            chance = np.array([of_load(draw) for draw in uniform])
            low, high = np.percentile(chance, [2.5, 97.5])
            beside = {"chance": float(chance.mean()), "chance_low": float(low), "chance_high": float(high)}
            limit = {"ceiling": load.busiest_ceiling(width, k)} if name == "busiest_share" else {}
            add(name, partial(_of_blocks, of_load, held["chosen"]), **beside, **limit)
            if name != "dead_share":
                add(f"{name}_by_weight", partial(_of_blocks, of_load, held["weight"]), **beside)
        add("repeat_rate", partial(_repeats, held, k), chance=_chance_of_repeat(held["chosen"], n_tokens, k))
        add("drop_rate", partial(_drops, held, k), chance=0.0)
        if held["probability"].any():
            add("balance_loss", partial(_balance, held), chance=1.0, ceiling=float(width))
            add("router_entropy", partial(_mean, held, "entropy"), chance=float(np.log(width)))
        return DataFrame(rows).assign(n_tokens=n_tokens).reindex(columns=COLUMNS)

    def _load(self, layer: int) -> DataFrame:
        """Share of slots and of gate weight of each expert, with intervals, beside the even share 1/E."""
        width = self.widths[layer]
        chosen, tokens = self.arrays["chosen"][layer, :, :width], self.arrays["tokens"][layer]
        weight = self.arrays["weight"][layer, :, :width]
        rows = []
        for expert in range(width):
            share, low, high = jackknife(tokens, partial(_share, chosen, expert))
            by_weight, weight_low, weight_high = jackknife(tokens, partial(_share, weight, expert))
            shares = (share, max(low, 0.0), min(high, 1.0), by_weight, max(weight_low, 0.0), min(weight_high, 1.0))
            rows.append((layer, expert, int(chosen[:, expert].sum()), *shares, 1 / width, int(tokens.sum())))
        names = "layer expert slots share low high weight_share weight_low weight_high even n_tokens"
        return DataFrame(rows, columns=names.split())

    def _pairs(self, layer: int) -> DataFrame:
        """N_ij / N_i for every ordered pair; `expected` is that of tokens choosing independently at these loads."""
        width, k = self.widths[layer], self.ks[layer]
        folds = self.arrays["together"][layer, :, :width, :width]
        total, own = folds.sum(axis=0), folds.sum(axis=0).diagonal()
        with np.errstate(invalid="ignore", divide="ignore"):
            share = total / own[:, None]
            without = (total - folds) / np.einsum("fii->fi", total - folds)[:, :, None]
            # the other k - 1 slots fall on the other experts in proportion to their loads
            expected = (k - 1) * own[None, :] / (own.sum() - own)[:, None]
        held = int((np.einsum("fii->f", folds) > 0).sum())
        spread = np.sqrt((held - 1) / max(held, 1) * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
        reach = spread * _t_quantile(held)
        i, j = np.nonzero(~np.eye(width, dtype=bool))
        columns = {"layer": layer, "expert": i, "other": j, "share": share[i, j]}
        columns |= {"low": np.clip((share - reach)[i, j], 0, 1), "high": np.clip((share + reach)[i, j], 0, 1)}
        return DataFrame(columns | {"expected": expected[i, j], "n": own[i]})


def _offers(model: LanguageModel, site: str) -> bool:
    layer = next((i for i, block in enumerate(model.blocks) if block.n_experts), None)
    if layer is None:
        return False
    try:
        with model.hooked([(layer, site, lambda _: None)]):
            return True
    except (ModelError, ValueError):
        return False


def _one_hot(index: Int[Tensor, "n k"], width: int, values: Tensor | None = None) -> Tensor:
    """One row a token: 1, or the weight, at the experts it used; a slot that nobody got (-1) counts for none."""
    kind = torch.float32 if values is None else torch.float64
    hot = torch.zeros(len(index), width + 1, dtype=kind, device=index.device)
    place = torch.where((index >= 0) & (index < width), index, width)
    hot.scatter_(1, place, torch.ones_like(place, dtype=hot.dtype) if values is None else values.to(hot.dtype))
    return hot[:, :width]


def _after_first(values: Shaped[Tensor, " n_less_1"]) -> Float[Tensor, "n 1"]:
    """A column of what holds of each token and the one before it; 0 for the first."""
    return torch.nn.functional.pad(values.double(), (1, 0))[:, None]


def _by_fold(tokens: TokenBatch) -> tuple[Int[Tensor, " n"], list[int]]:
    """Places of the tokens, those of one fold of documents together, and how many each fold has; on the processor."""
    return tokens.fold.argsort(stable=True), torch.bincount(tokens.fold, minlength=N_FOLDS).tolist()


def _stacked(frames: list[DataFrame]) -> DataFrame:
    return pd.concat(frames, ignore_index=True) if frames else DataFrame()


def _t_quantile(n: int) -> float:
    from scipy import stats

    return float(stats.t.ppf(0.975, n - 1)) if n > 1 else float("nan")


def _of_blocks(of: Callable[[np.ndarray], float], loads: np.ndarray, held: np.ndarray) -> float:
    return of(loads[held].sum(axis=0))


def _share(loads: np.ndarray, expert: int, held: np.ndarray) -> float:
    total = loads[held].sum()
    return float(loads[held, expert].sum() / total) if total else float("nan")


def _repeats(arrays: dict[str, np.ndarray], k: int, held: np.ndarray) -> float:
    """Mean share of its k experts that a token has in common with the one before it."""
    n = arrays["consecutive"][held].sum()
    return float(arrays["repeats"][held].sum() / (n * k)) if n else float("nan")


def _chance_of_repeat(chosen: np.ndarray, n_tokens: int, k: int) -> float:
    """The same for two independent tokens with these loads: sum_e p_e^2 / k, where p_e is the chance to use e."""
    p = chosen.sum(axis=0) / n_tokens
    return float((p**2).sum() / k)


def _drops(arrays: dict[str, np.ndarray], k: int, held: np.ndarray) -> float:
    return float(1 - arrays["chosen"][held].sum() / (arrays["tokens"][held].sum() * k))


def _balance(arrays: dict[str, np.ndarray], held: np.ndarray) -> float:
    return load.balance_loss(arrays["chosen"][held].sum(axis=0), arrays["probability"][held].sum(axis=0))


def _mean(arrays: dict[str, np.ndarray], name: str, held: np.ndarray) -> float:
    return float(arrays[name][held].sum() / arrays["tokens"][held].sum())
