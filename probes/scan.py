"""Every pair of columns compared once: the largest |cosines| of each, exactly, in memory that grows with F alone.

The upper triangle of V^T V is computed tile by tile.  Each tile serves both its rows and its columns, and is forgotten.
"""

import time
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.progress import Progress, silent
from data.runs import Run
from probes.columns import Columns
from probes.heaps import Heaps
from probes.scan_device import Sorted

STRIP, TILE = 512, 2048
"""Rows and columns of a tile: small enough for the last-level cache, large enough for the matrix product."""

WIDE_STRIP = 2048
"""Rows of a tile where columns are read and scaled anew for each, so that there are few such readings."""

KEPT = 2**27
"""Bytes up to which the unit columns are kept; beyond, each tile scales its own."""

EVERY = 20.0
"""Seconds of work that a killed scan may lose."""

CHECKPOINT = "coherence-scan"
"""Name of the file in a run folder that holds a scan under way; a fingerprint of the dictionary follows."""


class Nearest(NamedTuple):
    """For each column the k others of largest |cosine|, largest first, and whether the cosine is below zero."""

    values: Float[Tensor, "n_features k"]
    others: Int[Tensor, "n_features k"]
    negative: Bool[Tensor, "n_features k"]


@runtime_checkable
class Book(Protocol):
    """What keeps the k largest entries of each column: `Heaps` on a CPU, `Sorted` on an accelerator."""

    def offer(self, signed: Tensor, top: int, left: int) -> None:
        """Take what matters of a tile whose entry (i, j) is the cosine of columns `top + i` and `left + j`, j > i."""
        ...

    def state(self) -> tuple[Tensor, Tensor]:
        """The k largest of each column so far, in no order, and whose they are (~j for a negative cosine)."""
        ...

    def restore(self, values: Tensor, others: Tensor) -> None:
        """Go on from a `state`."""
        ...


def nearest(
    columns: Columns,
    k: int,
    *,
    dtype: torch.dtype = torch.float32,
    progress: Progress = silent,
    checkpoint: Run | None = None,
    strip: int | None = None,
    tile: int = TILE,
    compiled: bool = True,
) -> Nearest:
    """The k columns of largest |<v_i, v_j>|, j != i, for every i; k <= F - 1.

    Cost: F^2 d multiply-adds (half of the full product) and 8 k bytes a column.  `progress` is told the number of
    pairs done, and may raise `Cancelled`; with `checkpoint` the state is kept every `EVERY` seconds in a file of the
    run named after the dictionary's fingerprint, and a later call on the same dictionary and k goes on from there.
    `compiled=False` keeps the books in torch operations, which dictionaries on an accelerator do in any case.
    """
    n, device = columns.n_features, columns.device
    if not 1 <= k < n:
        raise ValueError(f"k={k} neighbours need at least k+1={k + 1} columns; the dictionary has {n}")
    book: Book = Heaps(n, k, dtype) if compiled and device.type == "cpu" else Sorted(n, k, dtype, device)
    held = _Checkpoint(checkpoint, columns, k, dtype) if checkpoint else None
    start = held.resume(book) if held else 0
    keeps = n * columns.d_model * torch.finfo(dtype).bits // 8 <= KEPT
    if keeps:
        columns = columns.keep(dtype)
    strip = strip or (STRIP if keeps else WIDE_STRIP)
    room = torch.empty(0 if columns.is_complex else min(strip, n) * min(tile, n), dtype=dtype, device=device)
    total = n * (n - 1) / 2
    for top in range(start, n, strip):
        bottom = min(top + strip, n)
        rows = columns.block(top, bottom, dtype).mH.contiguous()
        for left in range(top, n, tile):
            right = min(left + tile, n)
            progress(_pairs(top, n) + (bottom - top) * (left - top), total, "pairs of columns")
            others = columns.block(left, right, dtype)
            if columns.is_complex:
                book.offer(torch.mm(rows, others).abs(), top, left)
            else:
                out = room[: len(rows) * others.shape[1]].view(len(rows), others.shape[1])
                book.offer(torch.mm(rows, others, out=out), top, left)
        if held:
            held.keep(book, bottom)
    progress(total, total, "pairs of columns")
    found, whose = book.state()
    values, order = found.sort(dim=1, descending=True)
    whose = whose.gather(1, order)
    return Nearest(values, torch.where(whose < 0, ~whose, whose), whose < 0)


class _Checkpoint:
    """The scan of one dictionary under way, in a file of its own."""

    def __init__(self, run: Run, columns: Columns, k: int, dtype: torch.dtype):
        self.run = run
        self.name = f"{CHECKPOINT}-{columns.fingerprint()}-{k}-{torch.finfo(dtype).bits}"
        self.at = time.monotonic()

    def resume(self, book: Book) -> int:
        """The first column whose strip is still to be done."""
        if self.name not in self.run.tensor_names():
            return 0
        state = self.run.tensors(self.name)
        book.restore(torch.from_numpy(state["values"]), torch.from_numpy(state["others"]))
        return int(state["done"][0])

    def keep(self, book: Book, done: int) -> None:
        """Write the state if the last one is old."""
        if time.monotonic() - self.at < EVERY:
            return
        values, others = (part.cpu().numpy() for part in book.state())
        self.run.save_tensors(self.name, {"done": np.array([done]), "values": values, "others": others})
        self.at = time.monotonic()


def forget(run: Run) -> None:
    """Remove from a run the scans under way, once what they were for is written."""
    for file in run.path.glob(f"*{CHECKPOINT}-*"):  # the hidden seals as well
        file.unlink(missing_ok=True)


def _pairs(top: int, n: int) -> float:
    return n * (n - 1) / 2 - (n - top) * (n - top - 1) / 2
