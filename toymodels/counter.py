"""Random numbers that are a function of (seed, stream, step, position), so that nothing depends on what runs beside.

`bits = finish((table[position] ^ xor) * odd)`, with `table` a fixed scrambled counter and the pair (xor, odd) made
from (seed, stream, step) by SplitMix64: 63 bits of key.  It is cheap enough for an inner loop (seven integer
operations an element, all of which vectorise), restarts anywhere, and the compiled kernel draws the same numbers as
plain torch.  Not for cryptography.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt32

VALUES, GATES, DATASET_VALUES, DATASET_GATES, EVALUATION = range(5)
"""Streams: what a draw is for."""
FINISH = 0x846CA68B
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keys(seed: int, stream: int, start: int, stop: int) -> UInt32[np.ndarray, "steps 2"]:
    """The (xor, odd) pair of each step from `start` to `stop - 1`."""
    with np.errstate(over="ignore"):
        base = _mix64(_mix64(np.uint64(seed & (2**64 - 1)) + _GOLDEN) ^ (np.uint64(stream + 1) * _GOLDEN))
        word = _mix64(base + np.arange(start, stop, dtype=np.uint64) * _GOLDEN)
    pair = np.empty((stop - start, 2), dtype=np.uint32)
    pair[:, 0] = word & np.uint64(0xFFFFFFFF)
    pair[:, 1] = (word >> np.uint64(32)) | np.uint64(1)
    return pair


@lru_cache(maxsize=4)
def table(size: int) -> UInt32[np.ndarray, " size"]:
    """The scrambled counter: position -> 32 bits, a bijection."""
    x = np.arange(size, dtype=np.uint32)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(FINISH)
    x ^= x >> np.uint32(16)
    x.setflags(write=False)
    return x


class Draws:
    """Uniform numbers for a stack of instances, into memory that is allocated once."""

    def __init__(self, instances: int, rows: int, columns: int):
        self._table = table(rows * columns).reshape(1, rows, columns)
        self._bits = np.empty((instances, rows, columns), dtype=np.uint32)
        self._scratch = np.empty_like(self._bits)

    def integers(self, pairs: UInt32[np.ndarray, "instances 2"]) -> Int32[np.ndarray, "instances rows columns"]:
        """Integers uniform on [-2^31, 2^31), so that u = integer / 2^32 + 1/2 is on [0, 1]; overwritten by the next."""
        xor, odd = pairs[:, 0, None, None], pairs[:, 1, None, None]
        bits, scratch = self._bits[: len(pairs)], self._scratch[: len(pairs)]
        np.bitwise_xor(self._table, xor, out=bits)
        np.multiply(bits, odd, out=bits)
        np.right_shift(bits, np.uint32(15), out=scratch)
        np.bitwise_xor(bits, scratch, out=bits)
        np.multiply(bits, np.uint32(FINISH), out=bits)
        return bits.view(np.int32)


def _mix64(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
