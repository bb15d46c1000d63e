"""Documents as tokens, and tokens as the windows a language model reads."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Int
from pandas import DataFrame

if TYPE_CHECKING:
    from data.wordclass import Words

SPACE = "SPACE"
"""Word class of a token of white space alone (the name spaCy gives it)."""

UNTAGGED = ""
"""Word class of a token where nothing was tagged: no tagger was given, or it is the begin token."""

BEGIN = -1
"""`position_in_document` and `sentence` of a begin token; `sentence` of a token without a tagger."""


@dataclass(frozen=True)
class Window:
    """Consecutive tokens of one document, as a model reads them; the arrays have one entry a position in the window.

    If a begin token was asked for it stands at position 0 with text, word class and fine tag empty and sentence and
    position in the document -1.
    """

    document: str
    """Name of the document."""
    document_index: int
    """Place of the document in the order in which documents are read, from 0."""
    domain: str
    token_ids: Int[np.ndarray, " n_positions"]
    text: np.ndarray
    """The characters each token covers, leading space included (object array of str)."""
    position_in_document: Int[np.ndarray, " n_positions"]
    """Count of text tokens before this one in its document."""
    sentence: Int[np.ndarray, " n_positions"]
    """Sentence within the document, from 0."""
    word_class: np.ndarray
    """Universal tag of the word the token belongs to (object array of str)."""
    fine: np.ndarray
    """Fine tag of that word (Penn tags from spaCy; XPOS from CoNLL-U)."""

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True)
class TokenizedDocument:
    """The tokens of one document; the arrays have one entry a token and hold no special tokens."""

    document: str
    document_index: int
    domain: str
    token_ids: Int[np.ndarray, " n_tokens"]
    text: np.ndarray
    sentence: Int[np.ndarray, " n_tokens"]
    word_class: np.ndarray
    fine: np.ndarray
    metadata: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.token_ids)

    def head(self, n_tokens: int) -> "TokenizedDocument":
        """The first `n_tokens` tokens."""
        cut = slice(0, n_tokens)
        return TokenizedDocument(
            self.document,
            self.document_index,
            self.domain,
            self.token_ids[cut],
            self.text[cut],
            self.sentence[cut],
            self.word_class[cut],
            self.fine[cut],
            self.metadata,
        )

    def windows(self, window: int = 256, *, begin_token_id: int | None) -> Iterator[Window]:
        """All tokens, `window` positions at a time; each window begins with `begin_token_id` unless that is None.

        The begin token counts: a window of 256 holds it and 255 tokens of text.  The last window is shorter.
        """
        bare = begin_token_id is None
        step = window if bare else window - 1
        if step < 1:
            raise ValueError(f"window={window} leaves no room for text; choose window >= 2")
        for start in range(0, len(self), step):
            cut = slice(start, start + step)
            n = len(self.token_ids[cut])
            yield Window(
                self.document,
                self.document_index,
                self.domain,
                _led(begin_token_id, self.token_ids[cut], bare),
                _led("", self.text[cut], bare),
                _led(BEGIN, np.arange(start, start + n), bare),
                _led(BEGIN, self.sentence[cut], bare),
                _led(UNTAGGED, self.word_class[cut], bare),
                _led(UNTAGGED, self.fine[cut], bare),
            )


def _led(first: Any, rest: np.ndarray, bare: bool) -> np.ndarray:
    return rest if bare else np.concatenate([np.array([first], dtype=rest.dtype), rest])


def shards(documents: Iterable[TokenizedDocument], n_tokens: int) -> Iterator[list[TokenizedDocument]]:
    """Whole documents in groups of at least `n_tokens` tokens (the last may hold fewer), in order, lazily.

    Where a shard ends depends on the documents before it alone, so the first shards of a longer pass are those of a
    shorter one.
    """
    held: list[TokenizedDocument] = []
    size = 0
    for document in documents:
        held.append(document)
        size += len(document)
        if size >= n_tokens:
            yield held
            held, size = [], 0
    if held:
        yield held


def assemble(
    name: str,
    index: int,
    domain: str,
    metadata: Mapping[str, Any],
    text: str,
    ids: np.ndarray,
    offsets: np.ndarray,
    words: "Words | None",
) -> TokenizedDocument:
    """Join token ids and offsets with the words of the text (None: untagged)."""
    from data.alignment import align

    surface = np.array([text[a:b] for a, b in offsets.tolist()] + [""], dtype=object)[:-1]
    sentence = np.full(len(ids), BEGIN)
    word_class = np.full(len(ids), UNTAGGED, dtype=object)
    fine = word_class.copy()
    if words is not None:
        word = align(text, offsets, words.start, words.end)
        found = word >= 0
        blank = np.array([not s.strip() for s in surface], dtype=bool)
        word_class[:] = np.where(blank, SPACE, "X")
        fine[:] = np.where(blank, "_SP", "")
        word_class[found] = words.universal[word[found]]
        fine[found] = words.fine[word[found]]
        sentence = _sentences(word, offsets, words)
    return TokenizedDocument(name, index, domain, ids, surface, sentence, word_class, fine, metadata)


def _sentences(word: np.ndarray, offsets: np.ndarray, words: "Words") -> np.ndarray:
    """Sentence of each token: its word's, else that of the last word that began before the token."""
    if not len(words.start):
        return np.zeros(len(word), dtype=np.int64)
    before = np.maximum(np.searchsorted(words.start, offsets[:, 0], side="right") - 1, 0)
    return words.sentence[np.where(word >= 0, word, before)].astype(np.int64)


def token_frame(documents: Iterable[TokenizedDocument]) -> DataFrame:
    """Arrow-backed frame, one row a token: `document, sentence, position, token_id, text, word_class, fine, domain`.

    `position` counts text tokens in the document from 0; `sentence` is missing where nothing was tagged, and so are
    `word_class` and `fine`.
    """
    parts = [_part(d) for d in documents]
    table = pa.concat_tables(parts) if parts else _part(None)
    return table.to_pandas(types_mapper=pd.ArrowDtype)


_SCHEMA = pa.schema(
    [
        ("document", pa.string()),
        ("sentence", pa.int32()),
        ("position", pa.int32()),
        ("token_id", pa.int32()),
        ("text", pa.string()),
        ("word_class", pa.string()),
        ("fine", pa.string()),
        ("domain", pa.string()),
    ]
)


def _part(document: TokenizedDocument | None) -> pa.Table:
    if document is None:
        return _SCHEMA.empty_table()
    n = len(document)
    untagged = document.word_class == UNTAGGED
    return pa.Table.from_arrays(
        [
            pa.array([document.document] * n, pa.string()),
            pa.array(document.sentence, pa.int32(), mask=document.sentence == BEGIN),
            pa.array(np.arange(n), pa.int32()),
            pa.array(document.token_ids, pa.int32()),
            pa.array(document.text, pa.string()),
            pa.array(document.word_class, pa.string(), mask=untagged),
            pa.array(document.fine, pa.string(), mask=untagged),
            pa.array([document.domain] * n, pa.string()),
        ],
        schema=_SCHEMA,
    )
