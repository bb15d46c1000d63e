"""Counts read off routed tokens, a layer at a time: by label, by token, from layer to layer."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int
from pandas import DataFrame

from data.routed import Routes
from probes.associations import wilson
from probes.paths import diversity
from probes.routed_labels import Labelled, RoutedText

N_PATHS = 60
"""Most frequent paths that are kept."""
PATH_LAYERS = 8
"""Layers of a path at most; of deeper models as many at even distances."""


def by_label(routes: Routes, labelled: Labelled, condition: str) -> DataFrame:
    """Slots and gate weight by (layer, expert, label): `condition, labels, layer, expert, label, n, weight`.

    Ordinary tokens with a label; cells nobody fell into are left out.
    """
    frames = []
    code = labelled.code[: routes.n_tokens]
    for layer in routes.layers:
        width, n_labels = routes.n_experts(layer), len(labelled.words)
        experts, weights = routes.experts(layer), routes.weights(layer)
        valid = (experts >= 0) & (routes.kept(layer) & (code >= 0))[:, None]
        cell = (experts * n_labels + code[:, None])[valid]
        n = np.bincount(cell, minlength=width * n_labels)
        weight = np.bincount(cell, weights=weights[valid], minlength=width * n_labels)
        held = np.flatnonzero(n)
        columns = {"layer": layer, "expert": held // n_labels, "label": np.array(labelled.words)[held % n_labels]}
        frames.append(DataFrame(columns | {"n": n[held], "weight": weight[held]}))
    return pd.concat(frames, ignore_index=True).assign(condition=condition, labels=labelled.name)


def by_token(routes: Routes, text: RoutedText) -> Iterator[DataFrame]:
    """For each layer the slots by (expert, token): `layer, expert, token_id, token, n`, most used first."""
    ids = text.token_id[: routes.n_tokens]
    types, first, place = np.unique(ids, return_index=True, return_inverse=True)
    surface = text.table.column("text", routes.n_tokens)[first]
    for layer in routes.layers:
        experts = routes.experts(layer)
        valid = (experts >= 0) & routes.kept(layer)[:, None]
        cell, n = np.unique((experts.astype(np.int64) * len(types) + place[:, None])[valid], return_counts=True)
        expert, which = cell // len(types), cell % len(types)
        order = np.lexsort([which, -n, expert])
        columns = {"layer": layer, "expert": expert, "token_id": types[which], "token": surface[which], "n": n}
        yield DataFrame(columns).iloc[order].reset_index(drop=True)


def transitions(routes: Routes, condition: str) -> DataFrame:
    """From each expert to those of the next layer that routes, by the expert with the largest weight.

    `condition, layer, expert, next_layer, next_expert, n, n_expert, share` (n / n_expert, Wilson 95% `low, high`),
    `expected` (share of the next layer's tokens that go there whatever came before).
    """
    frames = []
    for layer, following in zip(routes.layers, routes.layers[1:], strict=False):
        first, second = strongest(routes, layer), strongest(routes, following)
        used = (first >= 0) & (second >= 0) & routes.kept(layer) & routes.kept(following)
        width = routes.n_experts(following)
        counts = np.bincount(first[used] * width + second[used], minlength=routes.n_experts(layer) * width)
        table = counts.reshape(-1, width)
        i, j = np.nonzero(table)
        n, of = table[i, j], table.sum(axis=1)[i]
        low, high = wilson(n, of)
        columns = {"layer": layer, "expert": i, "next_layer": following, "next_expert": j, "n": n, "n_expert": of}
        columns |= {"share": n / of, "low": low, "high": high, "expected": (table.sum(axis=0) / table.sum())[j]}
        frames.append(DataFrame(columns))
    return pd.concat(frames, ignore_index=True).assign(condition=condition) if frames else DataFrame()


def paths(routes: Routes, labelled: Labelled | None, condition: str) -> DataFrame:
    """The most frequent routes through depth, by the expert with the largest weight in each layer.

    `condition, path` (experts joined by `>`), `layers, n, share` (Wilson 95% `low, high`), `expected` (product of the
    experts' shares: what independent layers would give), `label, label_share, label_base` (the commonest label on the
    path, its share there and among all tokens), `n_tokens`.
    """
    layers, used, top = _heaviest(routes)
    if not len(top):
        return DataFrame()
    base = max(routes.n_experts(layer) for layer in layers)
    key = top @ base ** np.arange(len(layers))[::-1].astype(np.int64)
    _, first, place, n = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    chosen = np.argsort(-n, kind="stable")[:N_PATHS]
    marginal = [np.bincount(top[:, at], minlength=base) / len(top) for at in range(len(layers))]
    low, high = wilson(n[chosen], np.array(len(top)))
    rows = []
    for rank, which in enumerate(chosen):
        experts = top[first[which]]
        expected = float(np.prod([marginal[at][e] for at, e in enumerate(experts)]))
        label = _commonest(labelled, np.flatnonzero(used)[place == which], np.flatnonzero(used))
        shares = (int(n[which]), n[which] / len(top), low[rank], high[rank], expected)
        rows.append((">".join(map(str, experts)), ">".join(map(str, layers)), *shares, *label, len(top)))
    names = "path layers n share low high expected label label_share label_base n_tokens"
    return DataFrame(rows, columns=names.split()).assign(condition=condition)


def path_counts(routes: Routes, condition: str) -> DataFrame:
    """How many paths there are: `condition, layers, measure, value` (see `probes.paths.diversity`)."""
    layers, _, top = _heaviest(routes)
    if not len(top):
        return DataFrame()
    return diversity(top).assign(condition=condition, layers=">".join(map(str, layers)))


def _heaviest(routes: Routes) -> tuple[list[int], np.ndarray, Int[np.ndarray, "n_used n_layers"]]:
    """Layers of a path, which tokens have an expert in all of them, and these tokens' heaviest experts."""
    layers = _spread(routes.layers)
    top = np.stack([strongest(routes, layer) for layer in layers], axis=1)
    used = (top >= 0).all(axis=1) & np.all([routes.kept(layer) for layer in layers], axis=0)
    return layers, used, top[used].astype(np.int64)


def strongest(routes: Routes, layer: int) -> Int[np.ndarray, " n_tokens"]:
    """The expert with the largest weight of each token, -1 where there is none."""
    experts, weights = routes.experts(layer), routes.weights(layer)
    at = np.where(experts >= 0, weights, -np.inf).argmax(axis=1)
    return np.take_along_axis(experts, at[:, None], axis=1)[:, 0].astype(np.int64)


def _spread(layers: Sequence[int]) -> list[int]:
    at = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), PATH_LAYERS)).round().astype(int))
    return [layers[i] for i in at]


def _commonest(labelled: Labelled | None, rows: np.ndarray, whole: np.ndarray) -> tuple[str, float, float]:
    if labelled is None:
        return "", float("nan"), float("nan")
    here, everywhere = (code[code >= 0] for code in (labelled.code[rows], labelled.code[whole]))
    if not len(here):
        return "", float("nan"), float("nan")
    counts = np.bincount(here, minlength=len(labelled.words))
    at = int(counts.argmax())
    return labelled.words[at], float(counts[at] / len(here)), float((everywhere == at).mean())
