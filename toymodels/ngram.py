"""Interpolated Kneser-Ney n-grams: what a language model must beat to have learned more than short runs of tokens.

    p_n(w | h) = max(c(h w) - D_n, 0) / c(h) + D_n N(h) / c(h) * p_{n-1}(w | h without its first token)

with c the count of the n-gram at the highest order and, below it, the number of different tokens seen before it;
N(h) the number of different tokens seen after h; D_n = n_1 / (n_1 + 2 n_2) from the n-grams counted once and twice.
Order 1 is smoothed with the uniform distribution; an unseen history passes to the shorter one unchanged.
Sources: Kneser & Ney 1995; Chen & Goodman 1999, section 3 (interpolated, one discount for each order).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class _Order:
    """One order's counts; codes are sorted, so that they can be looked up by bisection."""

    grams: np.ndarray
    counts: np.ndarray
    histories: np.ndarray
    totals: np.ndarray
    followers: np.ndarray
    discount: float


class KneserNey:
    """The n-gram model of a text; `order` 1 is the unigram.  Counting takes a second for a million tokens."""

    def __init__(self, text: Int[np.ndarray, " n_tokens"], vocab_size: int, order: int = 5):
        whole = isinstance(order, int) and isinstance(vocab_size, int)
        if not whole or order < 1 or vocab_size < 2 or order > 63 or float(vocab_size) ** order >= 2**63:
            raise ValueError(
                f"order={order} over vocab_size={vocab_size} tokens does not fit 63 bits; choose a lower order"
            )
        if np.ndim(text) != 1 or len(text) < order:
            raise ValueError(f"a text of shape {np.shape(text)} holds no run of {order}; give more text")
        self.vocab_size, self.order = vocab_size, order
        text = _tokens(text, 1, vocab_size)[None]
        orders = []
        for n in range(1, order):
            runs = np.unique(self._codes(text, n + 1)[0])
            grams, preceding = np.unique(runs % vocab_size**n, return_counts=True)
            orders.append(_counted(grams, preceding, vocab_size))
        grams, counts = np.unique(self._codes(text, order)[0], return_counts=True)
        self._orders = (*orders, _counted(grams, counts, vocab_size))

    def loss(self, rows: Int[np.ndarray, "rows length"]) -> Float[np.ndarray, "rows next_token"]:
        """Nats of each token but the first of a row, given at most `order - 1` tokens before it in its row."""
        rows = _tokens(rows, 2, self.vocab_size)
        p = np.full((rows.shape[0], rows.shape[1] - 1), 1.0 / self.vocab_size)
        for n, counted in enumerate(self._orders, start=1):
            first = max(n - 2, 0)  # tokens nearer to the row's start have no history of n - 1 tokens
            codes = self._codes(rows, n)[:, 1:] if n == 1 else self._codes(rows, n)
            p[:, first:] = self._interpolated(counted, codes, p[:, first:])
        return -np.log(p)

    def _interpolated(self, counted: _Order, codes: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        total, seen = _look_up(counted.histories, counted.totals, codes // self.vocab_size)
        followers, _ = _look_up(counted.histories, counted.followers, codes // self.vocab_size)
        count, _ = _look_up(counted.grams, counted.counts, codes)
        total = np.where(seen, total, 1)
        own = np.maximum(count - counted.discount, 0) / total
        return np.where(seen, own + counted.discount * followers / total * shorter, shorter)

    def _codes(self, rows: np.ndarray, n: int) -> np.ndarray:
        """Every run of n tokens of each row, read as a number with `vocab_size` digits."""
        length = rows.shape[1] - n + 1
        codes = np.zeros((rows.shape[0], length), dtype=np.int64)
        for place in range(n):
            codes = codes * self.vocab_size + rows[:, place : place + length]
        return codes


def _counted(grams: np.ndarray, counts: np.ndarray, vocab_size: int) -> _Order:
    histories, begin = np.unique(grams // vocab_size, return_index=True)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / (once + 2 * twice) if once else 0.5
    followers = np.diff(np.append(begin, len(grams)))
    return _Order(grams, counts, histories, np.add.reduceat(counts, begin), followers, discount)


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found = keys[place] == wanted
    return np.where(found, values[place], 0), found


def _tokens(ids: Int[np.ndarray, "..."], dims: int, vocab_size: int) -> Int[np.ndarray, "..."]:
    ids = np.asarray(ids)
    if ids.ndim != dims or ids.dtype.kind not in "iu" or (ids.size and not 0 <= ids.min() <= ids.max() < vocab_size):
        raise ValueError(f"tokens are whole numbers from 0 to {vocab_size - 1} in {dims} dimension(s)")
    return ids.astype(np.int64)
