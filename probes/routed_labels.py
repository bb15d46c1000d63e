"""Labels of routed tokens: word class, position, domain, facts about documents, and the user's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped
from pandas import DataFrame

from data import labels as own
from data.corpus import Corpus
from data.routed import Routes, TokenTable
from data.wordclass import Tagger
from probes.contexts import position_label
from probes.models import LanguageModel
from probes.stream import StreamConfig, tokens_each

Labeller = Tagger | Mapping[str, str]
"""Labels words or matches, or says the label of each document by name."""
OF_WORDS = ("word_class", "fine")
DOCUMENTS = "routed_documents"


class Labelled(NamedTuple):
    """One way to label the tokens that were routed."""

    name: str
    code: Int[np.ndarray, " n_tokens"]
    """Label of each token, -1 where it has none."""
    words: list[str]
    """What the codes stand for."""


class RoutedText:
    """The routed tokens of a run folder with all their labels; a column is read when it is asked for."""

    def __init__(self, folder: Path, documents: DataFrame, beside: Mapping[str, Shaped[np.ndarray, " n_tokens"]]):
        self.table = TokenTable(folder)
        self.folder, self.documents, self.beside = folder, documents, beside
        self.document = self.table.column("document")
        self.token_id = self.table.column("token_id")

    def kinds(self, metadata: Sequence[str] = ()) -> list[str]:
        """Names of the ways to label, those with a single label left out."""
        names = [*OF_WORDS, "position", "domain", *metadata, *self.beside]
        return [name for name in names if len(self.labels(name).words) > 1]

    def labels(self, name: str) -> Labelled:
        """The labels of this name: `word_class`, `fine`, `position`, `domain`, a column of documents, or one's own."""
        if name in self.beside:
            return _coded(name, self.beside[name])
        if name == "position":
            return _positions(self.table.column("in_window"))
        if name in ("domain", *OF_WORDS):
            code, words = self.table.codes(name)
            blank = words.index("") if "" in words else -1
            # the empty word comes first, and means that there is none
            return Labelled(name, code - (blank == 0), words[1:] if blank == 0 else words)
        if name not in self.documents:
            held = ", ".join(map(str, self.documents.columns))
            raise ValueError(f"documents have no '{name}'; they have {held}")
        return _coded(name, self.documents[name].astype(str).to_numpy()[self.document])

    def routes(self, condition: str) -> Routes:
        """The routes under a condition; they may cover only the first tokens."""
        return Routes(self.folder, condition)


def documents_read(corpus: Corpus, seed: int) -> DataFrame:
    """The corpus' documents in the order in which they are read, without their texts' hashes."""
    return corpus.documents.iloc[corpus.order(seed)].reset_index(drop=True).drop(columns="hash")


def own_labels(
    labellers: Mapping[str, Labeller], model: LanguageModel, corpus: Corpus, config: StreamConfig, text: DataFrame
) -> dict[str, np.ndarray]:
    """Label of each routed token by each of the user's own labellers; `text` has the tokens' `document`.

    Text is read once more for labels of words and matches, the model is not run.
    """
    found: dict[str, np.ndarray] = {}
    for name, labeller in labellers.items():
        if isinstance(labeller, Mapping):
            found[name] = own.of_documents(documents_read(corpus, config.seed), labeller)[text["document"]]
            continue
        read = corpus.tokenize(
            model.tokenizer,
            n_tokens=config.n_tokens,
            tokens_per_document=tokens_each(corpus, config),
            tagger=labeller,
            seed=config.seed,
        )
        found[name] = own.of_tokens(read)
        if len(found[name]) != len(text):
            raise ValueError(f"labels '{name}' are of {len(found[name]):,} tokens, but {len(text):,} were routed")
        if (found[name] == own.OTHER).all():
            raise ValueError(f"labels '{name}' ({labeller.name}) name no token of the text; nothing to compare")
    return found


class Used(NamedTuple):
    """The tokens of a layer that count for one way to label, in the form `specialization.association` takes."""

    rows: Int[np.ndarray, " n"]
    """Row of each token (of each slot, where some slots are empty)."""
    experts: Int[np.ndarray, "..."]
    """(n, k), or one entry a slot where some slots are empty."""
    tokens: Int[np.ndarray, " n"] | None
    """Which slots are of one token, where some are empty."""


def used(routes: Routes, layer: int, code: Int[np.ndarray, " n_tokens"], most: int) -> Used:
    """The first `most` ordinary tokens that have a label."""
    n = min(routes.n_tokens, len(code))
    rows = np.flatnonzero(routes.kept(layer)[:n] & (code[:n] >= 0))[:most]
    experts = routes.experts(layer)[rows]
    if (experts >= 0).all():
        return Used(rows, experts, None)
    token, slot = np.nonzero(experts >= 0)
    return Used(rows[token], experts[token, slot], token)


def _positions(in_window: Int[np.ndarray, " n"]) -> Labelled:
    """Ranges of positions in the window, by powers of two, in order."""
    at = in_window.astype(np.int64)
    bins = np.where(at < 4, at, np.floor(np.log2(np.maximum(at, 1))).astype(np.int64) + 2)
    held, code = np.unique(bins, return_inverse=True)
    return Labelled("position", code, [position_label(int(b)) for b in held])


def _coded(name: str, values: np.ndarray) -> Labelled:
    code, words = pd.factorize(values, sort=True)
    return Labelled(name, code, [str(word) for word in words])
