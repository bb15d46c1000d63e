"""Which word a subword token belongs to, by the characters they share."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from data.lines import is_text

_PROBE = "a naïve café in 東京 ends"
"""Non-ASCII inside, ASCII at both ends: its last offset is its length in characters or in bytes, as is counted."""

Offsets = Int[np.ndarray, "n_tokens 2"]
Encode = Callable[[str], tuple[Int[np.ndarray, " n_tokens"], Offsets]]


def encoder(tokenizer: Any) -> Encode:
    """A function `text -> (token ids, offsets in characters)` without special tokens.

    Takes a fast tokenizer of transformers, a `tokenizers.Tokenizer`, or any object with `encode(text)` that answers
    with `ids` and `offsets`.  Offsets that count UTF-8 bytes (as some sentencepiece wrappers do) are found out on a
    probe sentence and turned into characters.  ValueError if the tokenizer gives no offsets.
    """
    raw = _raw_encoder(tokenizer)
    _, probe = raw(_PROBE)
    last = int(probe[:, 1].max(initial=0))
    if last == len(_PROBE):
        return lambda text: raw(_whole(text))
    if last == len(_PROBE.encode()):
        return lambda text: _from_bytes(text, *raw(_whole(text)))
    raise ValueError(
        f"offsets of {type(tokenizer).__name__} end at {last} on a text of {len(_PROBE)} characters "
        f"({len(_PROBE.encode())} bytes); they must count characters or UTF-8 bytes"
    )


def _whole(text: str) -> str:
    if not is_text(text):
        raise ValueError("the text holds half a surrogate pair, which no tokenizer takes; replace it")
    return text


def _raw_encoder(tokenizer: Any) -> Encode:
    if callable(tokenizer) and getattr(tokenizer, "is_fast", True):

        def call(text: str) -> tuple[np.ndarray, np.ndarray]:
            # verbose=False: whole documents are longer than the context on purpose; windows cut them.
            out = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
            return _arrays(out["input_ids"], out["offset_mapping"])

        return call
    if hasattr(tokenizer, "encode") and not hasattr(tokenizer, "is_fast"):

        def encode(text: str) -> tuple[np.ndarray, np.ndarray]:
            try:
                out = tokenizer.encode(text, add_special_tokens=False)
            except TypeError:
                out = tokenizer.encode(text)
            if not hasattr(out, "offsets"):
                raise _no_offsets(tokenizer)
            return _arrays(out.ids, out.offsets)

        return encode
    raise _no_offsets(tokenizer)


def _no_offsets(tokenizer: Any) -> ValueError:
    return ValueError(f"{type(tokenizer).__name__} gives no offsets; use the fast tokenizer of this model")


def _arrays(ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(ids, dtype=np.int64), np.asarray(offsets, dtype=np.int64).reshape(-1, 2)


def _from_bytes(text: str, ids: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if text.isascii():
        return ids, offsets
    widths = np.fromiter((len(c.encode("utf-8", "surrogatepass")) for c in text), np.int64, len(text))
    ends = np.cumsum(widths)
    # A token that holds part of a character is given the whole character, as byte-level tokenizers do.
    first = np.searchsorted(ends, offsets[:, 0], side="right")
    last = np.searchsorted(ends, offsets[:, 1], side="left") + 1
    last = np.where(offsets[:, 1] > offsets[:, 0], np.minimum(last, len(text)), first)
    return ids, np.stack([first, last], axis=1)


def trimmed(text: str, offsets: Offsets) -> Offsets:
    """Offsets without the white space at either end; a token of white space alone becomes empty at its end."""
    space = np.fromiter((c.isspace() for c in text), bool, len(text))
    solid = np.flatnonzero(~space)
    if not len(solid):
        return np.repeat(offsets[:, 1:], 2, axis=1)
    after = np.searchsorted(solid, offsets[:, 0], side="left")
    before = np.searchsorted(solid, offsets[:, 1], side="left") - 1
    start = solid[np.minimum(after, len(solid) - 1)]
    end = solid[np.maximum(before, 0)] + 1
    empty = after > before
    return np.stack([np.where(empty, offsets[:, 1], start), np.where(empty, offsets[:, 1], end)], axis=1)


def align(
    text: str, offsets: Offsets, word_start: Int[np.ndarray, " n_words"], word_end: Int[np.ndarray, " n_words"]
) -> Int[np.ndarray, " n_tokens"]:
    """Index of the word that shares most characters with each token; -1 for a token that shares none.

    White space inside a token's offsets does not count (byte-level tokenizers include the leading space).  Between
    equal shares the first word wins.  Words are in order and do not overlap.
    """
    if not len(word_start) or not len(offsets):
        return np.full(len(offsets), -1)
    spans = trimmed(text, offsets)
    first = np.searchsorted(word_end, spans[:, 0], side="right")
    last = np.searchsorted(word_start, spans[:, 1], side="left") - 1
    word = np.where(first <= last, first, -1)
    for token in np.flatnonzero(last > first):
        candidates = np.arange(first[token], last[token] + 1)
        shared = np.minimum(word_end[candidates], spans[token, 1]) - np.maximum(word_start[candidates], spans[token, 0])
        word[token] = candidates[np.argmax(shared)]
    word[spans[:, 0] >= spans[:, 1]] = -1
    return word
