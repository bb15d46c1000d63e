"""Feed-forward neurons as memories: what triggers a neuron, what it writes, and whether the two agree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import torch
from pandas import DataFrame
from scipy import stats

from data.corpus import Corpus
from data.progress import Progress, silent, within
from data.runs import Run
from data.tables import Tables
from probes import controls as controlled
from probes import stream
from probes.firing import Firing
from probes.memory_cards import choose, neurons_table, triggers_table, values_table
from probes.models import LanguageModel
from probes.stream import Passed, StreamConfig
from probes.triggers import SIGNS, Triggers, contexts
from probes.value_vectors import extremes, readout, top_tokens, value_vectors

Control = Literal["random_init", "shuffled"]
CONTROLS: tuple[Control, ...] = ("random_init", "shuffled")
N_PERMUTATIONS = 999

__all__ = ["CONTROLS", "Triggers", "agreement", "contexts", "measure", "readout", "top_tokens", "value_vectors"]


def measure(
    model: LanguageModel,
    corpus: Corpus,
    n_tokens: int = 20_000,
    *,
    layers: Sequence[int] | None = None,
    neurons: int | Sequence[int] = 32,
    k: int = 10,
    controls: Sequence[Control] = ("random_init",),
    config: StreamConfig | None = None,
    engine: stream.Where = "local",
    run: Run | None = None,
    progress: Progress = silent,
) -> Tables:
    """Triggers of every neuron of `layers` (default: all), its value vector in the vocabulary, and their agreement.

    A neuron agrees when the token its value vector raises most (for triggers of sign `-`: lowers most) is the token
    that follows its strongest trigger in the text.  All neurons are counted; cards (contexts and top tokens) are kept
    for `neurons`: so many of each layer at random, or those named, and for every neuron that agrees.

    Tables
        memory_agreement  layer, condition (`real` and each control), sign, rate, low, high (95%, Wilson), chance (mean
                          over all pairings of the layer's triggers with its values), p_value (against random
                          pairings), n_agree, n_neurons, n_tokens
        memory_neurons    layer, neuron, sign, frequency (share of tokens on which it fires), activation, next_token,
                          value_token, agrees, card, n_tokens
        memory_triggers   layer, neuron, sign, rank (from 1), activation, document, position, before, token, after,
                          next_token; cards only
        memory_values     layer, neuron, sign, rank, token, score (standard deviations above the mean of the
                          vocabulary); cards only, written at the end

    With `run`, tables are saved after every shard and a stopped measurement resumes at its last whole shard.
    `engine="ray"` reads on a cluster, see `probes.stream.run`.
    Raises ValueError for unknown layers, neurons or controls, and for models without dense blocks or a tokenizer.
    Source: Geva, Schuster, Berant and Levy 2021 (arXiv:2012.14913), sections 3 and 4.
    """
    chosen = _check(model, layers, neurons, controls, k)
    config = (config or StreamConfig()).model_copy(update={"n_tokens": n_tokens})
    found: dict[str, Tables] = {}
    conditions = ("real", *controls)

    def keep(condition: str, tables: Tables) -> None:
        found[condition] = tables
        if run is not None:
            run.save_tables(_together(found))

    for number, condition in enumerate(conditions):
        measured = _under(condition, model, config.seed)
        asked = _Asked(corpus, chosen, neurons, k, config, engine, run)
        _pass(measured, condition, asked, within(progress, number, len(conditions)), partial(keep, condition))
    return _together(found)


@dataclass(frozen=True)
class _Asked:
    """What stays the same under every condition."""

    corpus: Corpus
    layers: list[int]
    neurons: int | Sequence[int]
    k: int
    config: StreamConfig
    engine: stream.Where
    run: Run | None


def _pass(
    model: LanguageModel, condition: str, asked: _Asked, progress: Progress, keep: Callable[[Tables], None]
) -> None:
    reading, reads = within(progress, 0, 2), within(progress, 1, 2)
    rows, said = readout(model), dict[int, tuple[torch.Tensor, torch.Tensor]]()
    for number, layer in enumerate(asked.layers):
        said[layer] = extremes(value_vectors(model, layer), rows)
        reading(number + 1, len(asked.layers), f"values of layer {layer}")
    triggers, firing = Triggers(model, asked.layers, asked.k), Firing(model)

    def show(passed: Passed, *, ended: bool = False) -> None:
        pairs = _pairs(triggers, said)
        tables = Tables(memory_agreement=_agreement(pairs, asked.config.seed, passed).assign(condition=condition))
        if condition == "real":
            cards = choose(model, pairs, asked.neurons, asked.config.seed)
            tables["memory_neurons"] = neurons_table(model, pairs, cards, firing.tables().neurons, passed)
            tables["memory_triggers"] = triggers_table(model, asked.corpus, triggers, cards, asked.config)
            if ended:  # a product with the whole vocabulary, the same after every shard
                tables["memory_values"] = values_table(model, cards, rows)
        keep(tables)

    passed = stream.run(
        model,
        asked.corpus,
        {"triggers": triggers, "firing": firing},
        asked.config,
        layers=asked.layers,
        saved_in=asked.run,
        stage=f"memory_{condition}",
        engine=asked.engine,
        progress=reads,
        after_shard=show,
    )
    show(passed, ended=True)


def agreement(next_ids: np.ndarray, value_ids: np.ndarray, seed: int = 0) -> dict[str, float]:
    """How often two lists of tokens, one entry a neuron, agree: rate, low, high, chance, p_value, n_agree, n_neurons.

    `chance` is the mean over all pairings of the one list with the other, sum over tokens t of n_t m_t / N^2 with n_t
    and m_t how often t stands in each: common tokens agree by themselves.  `p_value` is the share of 999 random
    pairings, and of the one at hand, that agree at least as often.  `low` and `high`: Wilson's 95% interval.
    """
    n = len(next_ids)
    if n == 0:
        return dict.fromkeys(("rate", "low", "high", "chance", "p_value"), float("nan")) | {
            "n_agree": 0,
            "n_neurons": 0,
        }
    agreeing = int((next_ids == value_ids).sum())
    tokens = np.unique(np.concatenate([next_ids, value_ids]))
    counts = [np.bincount(np.searchsorted(tokens, ids), minlength=len(tokens)) for ids in (next_ids, value_ids)]
    rng = np.random.default_rng(seed)
    as_often = sum(int((rng.permutation(next_ids) == value_ids).sum()) >= agreeing for _ in range(N_PERMUTATIONS))
    wilson = stats.binomtest(agreeing, n).proportion_ci(method="wilson")
    return {
        "rate": agreeing / n,
        "low": float(wilson.low),
        "high": float(wilson.high),
        "chance": float(counts[0] @ counts[1]) / n**2,
        "p_value": (as_often + 1) / (N_PERMUTATIONS + 1),
        "n_agree": agreeing,
        "n_neurons": n,
    }


def _pairs(triggers: Triggers, said: dict[int, tuple[torch.Tensor, torch.Tensor]]) -> DataFrame:
    """One row a neuron and sign that was triggered: its strongest trigger and the token its value says."""
    table = triggers.tables().triggers
    first = table[table["rank"] == 0].reset_index(drop=True)
    spoken = np.full(len(first), -1, dtype=np.int64)
    for layer, (most, least) in said.items():
        for sign, ids in zip(SIGNS, (most, least), strict=True):
            rows = ((first["layer"] == layer) & (first["sign"] == sign)).to_numpy()
            spoken[rows] = ids.numpy()[first["neuron"].to_numpy()[rows]]
    return first.assign(value_id=spoken, agrees=spoken == first["next_id"].to_numpy())


def _agreement(pairs: DataFrame, seed: int, passed: Passed) -> DataFrame:
    rows = [
        {"layer": layer, "sign": sign, **agreement(part["next_id"].to_numpy(), part["value_id"].to_numpy(), seed)}
        for (layer, sign), part in pairs.groupby(["layer", "sign"], sort=True)
    ]
    return DataFrame(rows).assign(n_tokens=passed.n_tokens)


def _under(condition: str, model: LanguageModel, seed: int) -> LanguageModel:
    if condition == "real":
        return model
    return (controlled.random_init if condition == "random_init" else controlled.shuffled)(model, seed)


def _check(
    model: LanguageModel, layers: Sequence[int] | None, neurons: int | Sequence[int], controls: Sequence[str], k: int
) -> list[int]:
    if model.tokenizer is None:
        raise ValueError(f"{model.title} came without a tokenizer, so text cannot be fed to it; pass tokenizer=")
    dense = [layer for layer, block in enumerate(model.blocks) if block.kind == "dense"]
    chosen = sorted(set(dense if layers is None else layers))
    if not dense:
        raise ValueError(f"{model.title} has no dense feed-forward block; its neurons are its experts'")
    if not chosen or not set(chosen) <= set(dense):
        raise ValueError(
            f"layers {chosen} are not all dense layers of {model.title}; choose in {dense[0]}..{dense[-1]}"
        )
    for control in controls:
        if control not in CONTROLS:
            raise ValueError(f"'{control}' is not a control; choose among {', '.join(CONTROLS)}")
    width = min(model.blocks[layer].d_mlp for layer in chosen)
    named = [neurons - 1] if isinstance(neurons, int) else list(neurons)
    if not named or min(named) < 0 or (max(named) >= width and not isinstance(neurons, int)):
        raise ValueError(f"neurons={neurons}; give how many (at least 1), or numbers in 0..{width - 1}")
    if k < 1:
        raise ValueError(f"k={k} triggers a neuron; choose at least 1")
    return chosen


def _together(found: dict[str, Tables]) -> Tables:
    names = dict.fromkeys(name for tables in found.values() for name in tables)
    return Tables(
        {name: pd.concat([t[name] for t in found.values() if name in t], ignore_index=True) for name in names}
    )
