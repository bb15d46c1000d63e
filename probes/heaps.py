"""The bookkeeping of a scan, compiled: for each column a heap of the k largest |cosines| met so far.

The heap's root, the smallest of the k, is the bar that an entry must beat.  Entries are held against the bars of their
row and their column in vector instructions, `BLOCK` at a time, and only a block in which one beats its bar is read
again: for F random columns about k ln(F / k) entries a column do.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

BLOCK = 32


class Heaps:
    """The k largest |entries| offered so far for each of n columns, and whose they are; on the CPU."""

    def __init__(self, n: int, k: int, dtype: torch.dtype):
        kind = np.float64 if dtype == torch.float64 else np.float32
        self.values = np.full((n, k), -1, dtype=kind)
        self.others = np.full((n, k), -1, dtype=np.int32)
        self.bar = np.full(n, -1, dtype=kind)

    def offer(self, signed: Tensor, top: int, left: int) -> None:
        """Take what matters of a tile whose entry (i, j) is the cosine of columns `top + i` and `left + j`, j > i."""
        _offer(signed.numpy(), top, left, self.values, self.others, self.bar)

    def state(self) -> tuple[Tensor, Tensor]:
        """The k largest of each column so far, in no order, and whose they are (~j for a negative cosine)."""
        return torch.from_numpy(self.values), torch.from_numpy(self.others)

    def restore(self, values: Tensor, others: Tensor) -> None:
        """Go on from a `state`."""
        order = values.argsort(1)  # an ascending list is a heap
        self.values[:] = values.gather(1, order).numpy()
        self.others[:] = others.gather(1, order).numpy()
        self.bar[:] = self.values[:, 0]


@njit(nogil=True, cache=True)
def _push(heap: np.ndarray, whose: np.ndarray, value: float, other: int) -> None:
    """Put an entry in the place of the heap's smallest."""
    size, at, one = np.uint64(len(heap)), np.uint64(0), np.uint64(1)
    while True:
        child = at + at + one
        if child >= size:
            break
        if child + one < size and heap[child + one] < heap[child]:
            child = child + one
        if heap[child] >= value:
            break
        heap[at], whose[at] = heap[child], whose[child]
        at = child
    heap[at], whose[at] = value, other


@njit(nogil=True, cache=True)
def _offer(tile: np.ndarray, top: int, left: int, values: np.ndarray, others: np.ndarray, bar: np.ndarray) -> None:
    bars = bar[left : left + tile.shape[1]]
    for i in range(tile.shape[0]):
        row = top + i
        own = bar[row]
        begin = max(0, row + 1 - left)  # not itself, and each pair from one side
        while begin < tile.shape[1]:
            part, other_bars = tile[i, begin : begin + BLOCK], bars[begin : begin + BLOCK]
            over = np.int32(0)
            for j in range(len(part)):  # no branch, so that it becomes vector instructions
                lower = own if own < other_bars[j] else other_bars[j]
                over += np.int32(abs(part[j]) > lower)
            if over:
                for j in range(len(part)):
                    value, column = abs(part[j]), left + begin + j
                    if value > own:
                        _push(values[row], others[row], value, ~column if part[j] < 0 else column)
                        own = bar[row] = values[row, 0]
                    if value > other_bars[j]:
                        _push(values[column], others[column], value, ~row if part[j] < 0 else row)
                        other_bars[j] = values[column, 0]
            begin += BLOCK
