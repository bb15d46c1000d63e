"""The text on which experts are judged: half of the blocks of documents to fit on, half to score on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.corpus import Corpus
from data.tokens import TokenizedDocument
from probes.models import LanguageModel
from probes.stream import N_BLOCKS, StreamConfig, TokenBatch, batches, tokens_each

ALL = "all"
"""The word class that stands for every token."""


@dataclass(frozen=True)
class Scored:
    """Windows of one half, with what is known of each next-token prediction."""

    batches: tuple[TokenBatch, ...]
    classes: tuple[str, ...]
    """Word classes that occur, `all` first."""

    def label(self, number: int, of: str) -> Int[Tensor, "batch next_position"]:
        """Class (index into `classes`) of the token read at a position, or of the token predicted there."""
        batch, at = self.batches[number], {name: i for i, name in enumerate(self.classes)}
        found = torch.zeros(batch.ids.shape, dtype=torch.long)
        for row, window in enumerate(batch.windows):
            found[row, : len(window)] = torch.tensor([at.get(str(name), 0) for name in window.word_class])
        return found[:, :-1] if of == "read" else found[:, 1:]

    def real(self, number: int) -> Bool[Tensor, "batch next_position"]:
        """Positions whose next token is text, not padding."""
        batch = self.batches[number]
        lengths = torch.tensor([len(window) for window in batch.windows])
        return torch.arange(1, batch.ids.shape[1]) < lengths[:, None]

    def block(self, number: int) -> Int[Tensor, " batch"]:
        """Resampling block of each window."""
        return torch.tensor([window.document_index % N_BLOCKS for window in self.batches[number].windows])

    @property
    def n_tokens(self) -> int:
        """Predictions scored."""
        return sum(int(self.real(i).sum()) for i in range(len(self.batches)))


def halves(
    model: LanguageModel, corpus: Corpus, config: StreamConfig, tagger: Any = None, fit_tokens: int | None = None
) -> tuple[Scored, Scored]:
    """(to fit on, to score on): documents in turn, so that no document lies in both.

    Each has half of `config.n_tokens`.  With `fit_tokens` the documents to fit on are read further, evenly, until that
    many are held, untagged.  Raises ValueError if the text has but one document, or too few tokens to fit on.
    """
    if model.tokenizer is None:
        raise ValueError(f"{model.title} came without a tokenizer, so text cannot be fed to it; pass tokenizer=")
    each = tokens_each(corpus, config)
    documents = list(
        corpus.tokenize(
            model.tokenizer, n_tokens=config.n_tokens, tokens_per_document=each, tagger=tagger, seed=config.seed
        )
    )
    if len(documents) < 2:
        raise ValueError(f"'{corpus.name}' gives {len(documents)} document; experts are fitted and scored on different")
    names = sorted({str(name) for document in documents for name in document.word_class} - {""})
    classes = (ALL, *names)
    fitted, scored = documents[::2], documents[1::2]
    if fit_tokens is not None:
        text = config.window - 1
        share = -(-fit_tokens // ((len(corpus) + 1) // 2))
        longer = corpus.tokenize(model.tokenizer, tokens_per_document=-(-share // text) * text, seed=config.seed)
        fitted = list(_first(islice(longer, 0, None, 2), fit_tokens))
        held = sum(map(len, fitted))
        if held < fit_tokens:
            raise ValueError(
                f"every other document of '{corpus.name}' gives {held:,} tokens; choose fit_tokens at most so, "
                f"not {fit_tokens}"
            )
    fit, score = (tuple(batches(half, model, config)) for half in (fitted, scored))
    return Scored(fit, classes), Scored(score, classes)


def _first(documents: Iterable[TokenizedDocument], n_tokens: int) -> Iterator[TokenizedDocument]:
    left = n_tokens
    for document in documents:
        yield document.head(left)
        left -= len(document)
        if left <= 0:
            return


class Damage:
    """Sums of loss changes by (block of documents, word class), and how many predictions they are sums of."""

    def __init__(self, n_classes: int):
        self.sums = np.zeros((N_BLOCKS, n_classes))
        self.counts = np.zeros((N_BLOCKS, n_classes))

    def add(
        self,
        change: Float[Tensor, "batch next_position"],
        label: Int[Tensor, "batch next_position"],
        real: Bool[Tensor, "batch next_position"],
        block: Int[Tensor, " batch"],
    ) -> None:
        """Take in one batch; class 0 takes every prediction."""
        rows = block[:, None].expand_as(label)[real].numpy()
        value, column = change[real].double().numpy(), label[real].numpy()
        for at in (np.zeros_like(column), column):
            if at is column:
                known = column > 0
                rows, value, at = rows[known], value[known], column[known]
            np.add.at(self.sums, (rows, at), value)
            np.add.at(self.counts, (rows, at), 1)
