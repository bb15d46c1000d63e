"""Kinds of neurons by how often they fire, and what the specialised ones fire on.

    kind            fires on
    dead            < .1% of tokens
    rare            .1-5%
    specialised     5-30%
    intermediate    30-50%
    generalized     > 50%

A gated neuron with random weights fires on half of all tokens, so bands mean something only beside those of an
untrained and of a shuffled network.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from pandas import DataFrame

from data.corpus import Corpus
from data.progress import Progress, silent, within
from data.runs import Run
from data.tables import Tables
from data.wordclass import Tagger
from probes import associations, stream
from probes.associations import Text
from probes.contexts import CLASSES, class_codes
from probes.controls import random_init
from probes.firing import Firing, Sums, jackknife
from probes.models import LanguageModel
from probes.sinks import KEPT
from probes.stream import Observation, StreamConfig

BANDS = {"dead": 0.001, "rare": 0.05, "specialised": 0.30, "intermediate": 0.50, "generalized": 1.0}
"""Kind -> the highest firing frequency it includes (dead: excluded)."""
TESTED = ("rare", "specialised")
"""Kinds whose word classes are sought."""
FDR = 0.05


def kind_of(frequency: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Place in BANDS of each firing frequency: < .001, then <= .05, <= .30, <= .50, <= 1."""
    upper = np.array(list(BANDS.values()))
    place = np.searchsorted(upper, frequency, side="left")
    return np.where(np.asarray(frequency) == upper[0], 1, place)


def bands(neurons: DataFrame) -> DataFrame:
    """Share of neurons of each kind: columns condition, layer, kind, share, n_neurons, n_tokens.

    `neurons` is the table of `sparsity.measure`: layer, neuron, condition, frequency, n_tokens.
    """
    rows: list[dict[str, Any]] = []
    for (condition, layer), part in neurons.groupby(["condition", "layer"], sort=False):
        kinds = np.bincount(kind_of(part["frequency"].to_numpy()), minlength=len(BANDS)) / len(part)
        about = {"condition": condition, "layer": layer, "n_neurons": len(part), "n_tokens": part["n_tokens"].max()}
        rows += [about | {"kind": kind, "share": share} for kind, share in zip(BANDS, kinds, strict=True)]
    return DataFrame(rows)[["condition", "layer", "kind", "share", "n_neurons", "n_tokens"]]


def layer_bands(firing: Firing) -> DataFrame:
    """Share of each layer's neurons of each kind: columns layer, kind, share, low, high, n_neurons, n_tokens.

    Intervals: 95%, folds of documents left out in turn.
    """
    rows: list[dict[str, Any]] = []
    for layer, width in enumerate(firing.widths):
        fired, tokens = firing.fold_counts(layer)
        for place, kind in enumerate(BANDS if tokens.sum() else ()):
            value, low, high = jackknife(tokens, partial(_share_of_kind, fired, tokens, place))
            row = {"layer": layer, "kind": kind, "share": value, "low": max(low, 0.0), "high": min(high, 1.0)}
            rows.append(row | {"n_neurons": width, "n_tokens": int(tokens.sum())})
    return DataFrame(rows)


def _share_of_kind(fired: np.ndarray, tokens: np.ndarray, place: int, folds: np.ndarray) -> float:
    return float((kind_of(fired[folds].sum(axis=0) / tokens[folds].sum()) == place).mean())


def spectrum(neurons: DataFrame) -> DataFrame:
    """Firing frequencies in falling order: columns condition, layer, rank (1 = most frequent), neuron, frequency."""
    keys = ["condition", "layer"]
    held = neurons.sort_values([*keys, "frequency", "neuron"], ascending=[True, True, False, True], ignore_index=True)
    held["rank"] = held.groupby(keys).cumcount() + 1
    return held[[*keys, "rank", "neuron", "frequency"]]


class TypeFiring(Sums):
    """Firings of every neuron of some layers on each token type and in each word class, ordinary tokens only."""

    sites = ("gate",)

    def __init__(self, model: LanguageModel, layers: Sequence[int], types: Int[np.ndarray, " n_types"]):
        d = model.d_mlp
        super().__init__(
            by_type=np.zeros((len(layers), len(types), d), dtype=np.float32),  # counts, exact below 2^24
            by_class=np.zeros((len(layers), len(CLASSES), d), dtype=np.float32),
            text=np.zeros((len(layers), len(types), len(CLASSES)), dtype=np.int64),
        )
        self.layers, self.types = list(layers), np.sort(types)

    def update(self, seen: Observation) -> None:
        """Count who fires on what."""
        if seen.layer not in self.layers or "gate" not in seen.sites:
            return
        at = self.layers.index(seen.layer)
        used = (seen.group == KEPT).cpu()
        ids = seen.tokens.flat(seen.tokens.ids)[used].numpy()
        place = np.searchsorted(self.types, ids)
        code = class_codes(seen.tokens)[used.numpy()]
        fires = (seen.sites["gate"].cpu()[used] > 0).float()
        for name, rows in (("by_type", place), ("by_class", code)):
            torch.from_numpy(self.arrays[name][at])[:, : fires.shape[1]].index_add_(0, torch.from_numpy(rows), fires)
        np.add.at(self.arrays["text"][at], (place, code), 1)

    def tables(self) -> Tables:
        """None; `_associations` reads the counts."""
        return Tables()


def measure(
    model: LanguageModel,
    corpus: Corpus,
    n_tokens: int = 20_000,
    *,
    tagger: Tagger,
    layers: Sequence[int] | None = None,
    control: bool = True,
    config: StreamConfig | None = None,
    engine: stream.Where = "local",
    run: Run | None = None,
    progress: Progress = silent,
) -> Tables:
    """Word classes and tokens on which rare and specialised neurons fire, beside the same with random weights.

    Every (neuron, word class) is tested against label and type permutation (see `associations`), one family of tests a
    condition.  `layers`: by default three, early, middle and late.  Conditions: real, random_init (unless `control` is
    False), and exchanged, the trained network with the word classes of types exchanged once, where all that is found
    is false.

    Tables
        neuron_classes   condition, layer, neuron, kind, frequency, word_class, rate, low, high, elsewhere, n_fired,
                         n_tokens, p_label, p_type, p, q (one row a class that is claimed at a false discovery rate .05)
        neuron_tokens    layer, neuron, kind, frequency, rank, token, n_fired, n_seen, rate, low, high (real only)
        class_summary    condition, layer, kind, n_neurons, n_with_class, n_claims, n_tests, n_tokens
        untestable       word_class, n_tokens, lonely, stuck: see `associations.untestable`

    `engine="ray"` reads on a cluster, see `probes.stream.run`.
    Raises ValueError for untagged text or a model without dense blocks.
    """
    if all(block.kind != "dense" for block in model.blocks):
        raise ValueError(f"{model.title} has no dense feed-forward block; its neurons are its experts'")
    chosen = sorted(
        {model.n_layers // 6, model.n_layers // 2, 5 * model.n_layers // 6} if layers is None else set(layers)
    )
    config = (config or StreamConfig()).model_copy(update={"n_tokens": n_tokens})
    # set here so that the types counted now are those the pass will read
    config = config.model_copy(update={"tokens_per_document": stream.tokens_each(corpus, config)})
    types = _types(model, corpus, config)
    found: dict[str, TypeFiring] = {}
    for step, condition in enumerate(("real", "random_init") if control else ("real",)):
        seen = found[condition] = TypeFiring(model, chosen, types)
        measured = model if condition == "real" else random_init(model, config.seed)
        stream.run(
            measured,
            corpus,
            {"types": seen},
            config,
            layers=chosen,
            tagger=tagger,
            saved_in=run,
            stage=f"kinds_{condition}",
            engine=engine,
            progress=within(progress, step, 1 + control),
        )
    tables = _tables(model, found, config.seed)
    if run is not None:
        run.save_tables(tables)
    return tables


def _types(model: LanguageModel, corpus: Corpus, config: StreamConfig) -> np.ndarray:
    documents = corpus.tokenize(
        model.tokenizer,
        n_tokens=config.n_tokens,
        tokens_per_document=config.tokens_per_document,
        seed=config.seed,
    )
    begin = [] if model.document_token is None else [model.document_token]
    return np.unique(np.concatenate([np.array(begin, dtype=np.int64), *(d.token_ids for d in documents)]))


def _tables(model: LanguageModel, found: dict[str, TypeFiring], seed: int) -> Tables:
    real = found["real"]
    text = Text(real.arrays["text"][0])
    tagged = [c for c in range(len(CLASSES) - 1) if text.counts[:, c].any()]
    if not tagged:
        raise ValueError("the text has no word classes; pass a tagger, e.g. data.wordclass.default_tagger()")
    classes, summary = [], []
    for condition in (*found, "exchanged"):
        tests = _associations(found.get(condition, real), seed if condition == "exchanged" else None)
        tests = tests.assign(condition=condition, q=associations.false_discovery(tests["p"].to_numpy()))
        claims = tests[tests["q"] <= FDR]
        classes.append(claims)
        for layer, kind in product(real.layers, TESTED):
            part, claimed = (t[(t["layer"] == layer) & (t["kind"] == kind)] for t in (tests, claims))
            counts = (part["neuron"].nunique(), claimed["neuron"].nunique(), len(claimed), len(part))
            summary.append((condition, layer, kind, *counts, int(text.counts.sum())))
    n_tokens = text.counts.sum(axis=0)
    lonely, stuck = associations.untestable(text)
    columns = ["condition", "layer", "kind", "n_neurons", "n_with_class", "n_claims", "n_tests", "n_tokens"]
    doubts = [(CLASSES[c], n_tokens[c], lonely[c], stuck[c]) for c in tagged]
    return Tables(
        neuron_classes=pd.concat(classes, ignore_index=True),
        neuron_tokens=_favourites(model, real),
        class_summary=DataFrame(summary, columns=columns),
        untestable=DataFrame(doubts, columns=["word_class", "n_tokens", "lonely", "stuck"]),
    )


def _selected(seen: TypeFiring, at: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neurons of the kinds that are tested, their frequencies and their kinds."""
    frequency = seen.arrays["by_type"][at].sum(axis=0, dtype=np.float64) / seen.arrays["text"][at].sum()
    kinds = np.array(list(BANDS))[kind_of(frequency)]
    neurons = np.flatnonzero(np.isin(kinds, TESTED))
    return neurons, frequency[neurons], kinds[neurons]


def _associations(seen: TypeFiring, exchange_seed: int | None) -> DataFrame:
    parts = []
    for at, layer in enumerate(seen.layers):
        neurons, frequency, kinds = _selected(seen, at)
        text, by_type = Text(seen.arrays["text"][at]), seen.arrays["by_type"][at][:, neurons]
        by_class = seen.arrays["by_class"][at][:, neurons]
        if exchange_seed is not None:
            text = associations.exchanged(text, exchange_seed)
            by_class = text.profiles.T @ by_type
        tests = associations.associate(text, by_type, by_class)
        tests = tests[tests["word_class"] < len(CLASSES) - 1]
        place = tests["neuron"].to_numpy()
        parts.append(
            tests.assign(
                layer=layer,
                neuron=neurons[place],
                kind=kinds[place],
                frequency=frequency[place],
                word_class=np.array(CLASSES)[tests["word_class"]],
            )
        )
    return pd.concat(parts, ignore_index=True)


def _favourites(model: LanguageModel, seen: TypeFiring) -> DataFrame:
    parts = []
    for at, layer in enumerate(seen.layers):
        neurons, frequency, kinds = _selected(seen, at)
        occurrences = seen.arrays["text"][at].sum(axis=1)
        rows = associations.favourite_types(occurrences, seen.arrays["by_type"][at][:, neurons])
        place = rows["neuron"].to_numpy()
        token = [model.tokenizer.decode([i]) for i in seen.types[rows["type"]]]
        about = {"layer": layer, "neuron": neurons[place], "kind": kinds[place], "frequency": frequency[place]}
        parts.append(rows.assign(**about, token=token).drop(columns="type"))
    return pd.concat(parts, ignore_index=True)
