"""Cards of neurons: what triggers them and what they write, as text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas import DataFrame

from data.corpus import Corpus
from probes.models import LanguageModel
from probes.stream import Passed, StreamConfig
from probes.triggers import SIGNS, Triggers, contexts
from probes.value_vectors import top_tokens, value_vectors


def choose(model: LanguageModel, pairs: DataFrame, neurons: int | Sequence[int], seed: int) -> DataFrame:
    """`layer, neuron` of every card: those asked for, and all that agree."""
    rng = np.random.default_rng(seed)
    rows = set(pairs.loc[pairs["agrees"], ["layer", "neuron"]].itertuples(index=False, name=None))
    for layer in sorted(set(pairs["layer"])):
        width = model.blocks[layer].d_mlp
        named = rng.permutation(width)[:neurons].tolist() if isinstance(neurons, int) else neurons
        rows |= {(layer, neuron) for neuron in named}
    return DataFrame(sorted(rows), columns=["layer", "neuron"])


def neurons_table(
    model: LanguageModel, pairs: DataFrame, cards: DataFrame, frequency: DataFrame, passed: Passed
) -> DataFrame:
    """`memory_neurons`: one row a neuron and sign."""
    text = _Words(model)
    held = set(cards.itertuples(index=False, name=None))
    table = pairs.merge(frequency[["layer", "neuron", "frequency"]], on=["layer", "neuron"], how="left")
    return DataFrame(
        {
            **{name: table[name] for name in ("layer", "neuron", "sign", "frequency", "activation")},
            "next_token": text.of(table["next_id"]),
            "value_token": text.of(table["value_id"]),
            "agrees": table["agrees"],
            "card": [pair in held for pair in zip(table["layer"], table["neuron"], strict=True)],
            "n_tokens": passed.n_tokens,
        }
    )


def triggers_table(
    model: LanguageModel, corpus: Corpus, triggers: Triggers, cards: DataFrame, config: StreamConfig
) -> DataFrame:
    """`memory_triggers`: the strongest triggers of every card in their text."""
    rows = triggers.tables().triggers.merge(cards, on=["layer", "neuron"])
    text = contexts(corpus, model.tokenizer, rows["place"], window=config.window, seed=config.seed)
    table = rows.drop(columns="next_id").merge(text, on="place", how="left").drop(columns="place")
    return table.assign(rank=table["rank"] + 1).sort_values(["layer", "neuron", "sign", "rank"], ignore_index=True)


def values_table(model: LanguageModel, cards: DataFrame, rows: torch.Tensor, k: int = 10) -> DataFrame:
    """`memory_values`: the k tokens that each card's value vector raises most, for either sign of the activation."""
    text, parts = _Words(model), []
    for layer in sorted(set(cards["layer"])):
        index = cards.loc[cards["layer"] == layer, "neuron"].to_numpy()
        vectors = value_vectors(model, layer)[torch.from_numpy(index.copy())]
        for sign, factor in SIGNS.items():
            ids, scores = top_tokens(factor * vectors, rows, min(k, len(rows)))
            size = ids.shape[1]
            made = {"layer": layer, "neuron": np.repeat(index, size), "sign": sign}
            ranks = np.tile(np.arange(1, size + 1), len(index))
            parts.append(
                DataFrame(made | {"rank": ranks, "token": text.of(ids.flatten()), "score": scores.flatten().numpy()})
            )
    return pd.concat(parts, ignore_index=True)


class _Words:
    """Token ids as text, each id decoded once."""

    def __init__(self, model: LanguageModel):
        self._tokenizer, self._known = model.tokenizer, dict[int, str]()

    def of(self, ids: Any) -> list[str]:
        ids = [int(i) for i in ids]
        self._known |= {i: self._tokenizer.decode([i]) for i in set(ids) - set(self._known)}
        return [self._known[i] for i in ids]
