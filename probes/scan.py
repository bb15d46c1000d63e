"""Every pair of columns compared once: the largest |cosines| of each, exactly, in memory that grows with F alone.

The upper triangle of V^T V is computed tile by tile.  Each tile serves both its rows and its columns, and is forgotten.
"""

import time
from collections.abc import Iterator
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

DEVICE_TILE = 16384
"""Rows and columns of a tile on an accelerator, where it has to outweigh some hundred steps of bookkeeping: 1 GiB in
float32.  Half the rows where a sixteenth of the free memory is less."""

KEPT = 2**27
"""Bytes up to which the unit columns are kept (on a GPU a quarter of its free memory); beyond, each tile scales its
own."""

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
    tile: int | None = None,
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
    on_cpu, free = device.type == "cpu", torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 4 * KEPT
    size = torch.finfo(dtype).bits // 8
    keeps = n * columns.d_model * size <= (KEPT if on_cpu else free // 4)
    if keeps:
        columns = columns.keep(dtype)
    tile = tile or (TILE if on_cpu else DEVICE_TILE)
    if not strip and not on_cpu:
        strip = DEVICE_TILE if DEVICE_TILE**2 * size <= free // 16 else DEVICE_TILE // 2
    strip = strip or (STRIP if keeps else WIDE_STRIP)
    total = n * (n - 1) / 2
    places = [(top, left) for top in range(start, n, strip) for left in range(top, n, tile)]
    products = _Products(columns, dtype, strip, tile)
    for (top, left), signed in _ahead(products, places) if device.type == "cuda" else products.each(places):
        progress(_pairs(top, n) + (min(top + strip, n) - top) * (left - top), total, "pairs of columns")
        book.offer(signed, top, left)
        if held and left + tile >= n:
            held.keep(book, min(top + strip, n))
    progress(total, total, "pairs of columns")
    found, whose = book.state()
    values, order = found.sort(dim=1, descending=True)
    whose = whose.gather(1, order)
    return Nearest(values, torch.where(whose < 0, ~whose, whose), whose < 0)


class _Products:
    """Tiles of V^T V, in memory that is used again for every second one."""

    def __init__(self, columns: Columns, dtype: torch.dtype, strip: int, tile: int):
        self.columns, self.dtype, self.strip, self.tile = columns, dtype, strip, tile
        n = columns.n_features
        size = 0 if columns.is_complex else min(strip, n) * min(tile, n)
        rooms = 2 if columns.device.type == "cuda" else 1
        self.room = torch.empty(rooms, size, dtype=dtype, device=columns.device)
        self._rows: tuple[int, Tensor] = (-1, self.room)

    def at(self, top: int, left: int, number: int) -> Tensor:
        """The cosines (complex columns: their sizes) of columns from `top` and from `left` on."""
        n = self.columns.n_features
        if self._rows[0] != top:
            block = self.columns.block(top, min(top + self.strip, n), self.dtype)
            self._rows = (top, block.mH.contiguous())
        rows, others = self._rows[1], self.columns.block(left, min(left + self.tile, n), self.dtype)
        if self.columns.is_complex:
            return torch.mm(rows, others).abs()
        room = self.room[number % len(self.room), : len(rows) * others.shape[1]]
        return torch.mm(rows, others, out=room.view(len(rows), others.shape[1]))

    def each(self, places: list[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], Tensor]]:
        """One tile after the other."""
        for number, place in enumerate(places):
            yield place, self.at(*place, number)


def _ahead(products: _Products, places: list[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """The same tiles, each multiplied on a stream of its own while the one before it is looked through.

    Looking through a tile asks the GPU a dozen questions and has it wait for the answers' consequences.
    """
    device = products.columns.device
    here, beside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    beside.wait_stream(here)
    made: list[tuple[Tensor, torch.cuda.Event]] = []
    seen: list[torch.cuda.Event] = []

    def make(number: int) -> None:
        with torch.cuda.stream(beside):
            if number >= 2:  # its memory was last used by the tile before the last
                beside.wait_event(seen[number - 2])
            tile = products.at(*places[number], number)
            tile.record_stream(here)
            made.append((tile, beside.record_event()))

    try:
        for number, place in enumerate(places):
            for coming in range(len(made), min(number + 2, len(places))):
                make(coming)
            tile, done = made[number]
            here.wait_event(done)
            yield place, tile
            seen.append(here.record_event())
            made[number] = (products.room, done)
    finally:
        here.wait_stream(beside)  # a scan that is stopped leaves no product under way into memory that is given back


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
