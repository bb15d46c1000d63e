"""Every pair of columns compared once: the largest |cosines| of each column, exactly, in memory that grows with F alone.

The upper triangle of V^T V is computed tile by tile.  Each tile serves both its rows and its columns; an entry is
looked at closely only if it beats the smallest of the k largest found so far for its row (or column), which after the
first strip of tiles almost none does.
"""


from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.progress import Progress, silent
from data.runs import Run
from probes.columns import Columns

STRIP, TILE = 2048, 2048
"""Rows and columns of a tile: small enough for the last-level cache, large enough for the matrix product."""

GROUP = 8
"""Entries whose maximum stands for them while a line's first bar is found."""

SPARE = 48
"""Entries a column collects before they are sorted into its k largest."""

CHECKPOINT = "coherence-scan"
"""Name of the file in a run folder that holds a scan under way."""


class Nearest(NamedTuple):
    """For each column the k others of largest |cosine|, largest first."""

    values: Float[Tensor, "n_features k"]
    others: Int[Tensor, "n_features k"]


def nearest(
    columns: Columns,
    k: int,
    *,
    dtype: torch.dtype = torch.float32,
    progress: Progress = silent,
    checkpoint: Run | None = None,
    strip: int = STRIP,
    tile: int = TILE,
) -> Nearest:
    """The k columns of largest |<v_i, v_j>|, j != i, for every i; k <= F - 1.

    Cost: F^2 d multiply-adds (half of the full product) and 8 k bytes a column.  `progress` is told the number of
    pairs done, and may raise `Cancelled`; with `checkpoint` the state is kept after every strip, and a later call on
    the same dictionary and k goes on from there (ValueError if the file belongs to another dictionary).
    """
    n = columns.n_features
    if not 1 <= k < n:
        raise ValueError(f"k={k} neighbours need at least k+1={k + 1} columns; the dictionary has {n}")
    best = _Best(n, k, dtype, columns.device)
    key = _key(columns, k, dtype, strip) if checkpoint else None
    start = _resume(checkpoint, key, best) if checkpoint and key is not None else 0
    room = torch.empty(0 if columns.is_complex else strip * tile, dtype=dtype, device=columns.device)
    total = n * (n - 1) / 2
    for top in range(start, n, strip):
        bottom = min(top + strip, n)
        rows = columns.block(top, bottom, dtype).mH.contiguous()
        for left in range(top, n, tile):
            right = min(left + tile, n)
            progress(_pairs(top, n) + (bottom - top) * (left - top), total, "pairs of columns")
            others = columns.block(left, right, dtype)
            if columns.is_complex:
                cosines = torch.mm(rows, others).abs()
            else:
                cosines = room[: (bottom - top) * (right - left)].view(bottom - top, right - left)
                torch.mm(rows, others, out=cosines).abs_()
            if left < bottom:  # a column is not its own neighbour, and a pair on the diagonal tile is seen once a side
                _forget_lower(cosines, top, left, bottom)
            best.offer(cosines, top, left)
        if checkpoint and key is not None:
            best.settle(slice(None))
            _keep(checkpoint, key, best, bottom)
    progress(total, total, "pairs of columns")
    best.settle(slice(None))
    return Nearest(best.values[:, :k].contiguous(), best.others[:, :k].contiguous())


class _Best:
    """The k largest entries offered so far for each column, and up to `SPARE` more that wait to be sorted in."""

    def __init__(self, n: int, k: int, dtype: torch.dtype, device: torch.device):
        self.k = k
        self.values = torch.full((n, k + SPARE), -1, dtype=dtype, device=device)
        self.others = torch.full((n, k + SPARE), -1, dtype=torch.int32, device=device)
        self.filled = torch.full((n,), k, dtype=torch.int32, device=device)
        self.bar = torch.full((n,), -1, dtype=dtype, device=device)
        """What an entry must exceed to matter: the k-th largest at the last sorting."""

    def offer(self, tile: Tensor, top: int, left: int) -> None:
        """Take what matters of `tile`, whose entry (i, j) is the |cosine| of columns `top + i` and `left + j`."""
        rows, columns = slice(top, top + len(tile)), slice(left, left + tile.shape[1])
        hits = _beating(tile, self.bar[rows], self.bar[columns])
        if hits is None:  # no bar yet, or one that means little: raise it from the tile itself
            for side, where in ((1, rows), (0, columns)):
                if tile.shape[side] >= GROUP * self.k:
                    self.bar[where] = torch.maximum(self.bar[where], _kth_of_groups(tile, self.k, side))
            hits = _beating(tile, self.bar[rows], self.bar[columns])
        if hits is None:
            self._sort_in(tile, top, left)
            return
        values = tile.view(-1).index_select(0, hits)
        i = hits // tile.shape[1]
        j = hits - i * tile.shape[1]
        for own, base, their, shift in ((i, top, j, left), (j, left, i, top)):
            keep = _true(values > self.bar[base:].index_select(0, own))
            own, their, taken = (x.index_select(0, keep) for x in (own, their, values))
            own, order = own.sort()
            self._take(base + own, shift + their.index_select(0, order), taken.index_select(0, order))

    def settle(self, where: slice | Tensor) -> None:
        """Sort what waits into the k largest."""
        values, others = self.values[where], self.others[where]
        top, at = values.topk(self.k, dim=1)
        values[:, : self.k], others[:, : self.k] = top, others.gather(1, at)
        values[:, self.k :] = -1
        self.bar[where] = torch.maximum(top[:, -1], self.bar[where])
        self.filled[where] = self.k
        if isinstance(where, Tensor):
            self.values[where], self.others[where] = values, others

    def _take(self, place: Tensor, others: Tensor, values: Tensor) -> None:
        """Append entries, sorted by the column `place` they are for; sort in where the room is used up."""
        if not len(place):
            return
        who, counts = torch.unique_consecutive(place, return_counts=True)
        full = self.filled[who] + counts > self.values.shape[1]
        if full.any():
            self.settle(who[full])
        first = counts.cumsum(0) - counts
        rank = torch.arange(len(place), device=place.device) - torch.repeat_interleave(first, counts)
        for begin in range(0, int(counts.max()), SPARE):
            part = (rank >= begin) & (rank < begin + SPARE)
            if begin:  # more than SPARE at once for one column: a portion at a time
                self.settle(who[counts > begin])
            at = self.filled[place[part]] + rank[part] - begin
            self.values[place[part], at] = values[part]
            self.others[place[part], at] = others[part].int()
            self.filled[who] += (counts - begin).clamp(0, SPARE).int()

    def _sort_in(self, tile: Tensor, top: int, left: int) -> None:
        """The slow way, for tiles where nearly every entry matters (all cosines equal, say)."""
        for base, other, part in (*_slices(tile, top, left), *_slices(tile.t(), left, top)):
            where = torch.arange(base, base + len(part), device=tile.device)
            values, others = part.contiguous().topk(min(self.k, part.shape[1]), dim=1)
            count = torch.full_like(where, values.shape[1])
            self._take(
                torch.repeat_interleave(where, count), (others + other).reshape(-1), values.reshape(-1)
            )


def _slices(tile: Tensor, base: int, other: int) -> Iterator[tuple[int, int, Tensor]]:
    for at in range(0, len(tile), 256):
        yield base + at, other, tile[at : at + 256]


def _kth_of_groups(tile: Tensor, k: int, dim: int) -> Tensor:
    """Just below the k-th largest of the maxima of groups of entries: at least k entries of the line beat it."""
    size = tile.shape[dim] // GROUP * GROUP
    if dim == 1:
        maxima = tile[:, :size].unflatten(1, (-1, GROUP)).amax(2)
    else:
        maxima = tile[:size].unflatten(0, (-1, GROUP)).amax(1).t().contiguous()
    kth = maxima.topk(k, dim=1, sorted=False).values.amin(1)
    return torch.nextafter(kth, torch.full_like(kth, -2))


def _beating(tile: Tensor, row_bar: Tensor, column_bar: Tensor) -> Int[Tensor, " hits"] | None:
    """Flat positions where an entry beats the bar of its row or of its column; None when so many do that sorting is cheaper.

    Eight rows at a time are held against the lowest of their bars: one pass over the tile serves both sides.
    """
    height, width = tile.shape
    flat = tile.view(-1)
    whole = height // GROUP * GROUP
    found = []
    if whole:
        groups = tile[:whole].unflatten(0, (-1, GROUP)).amax(1)
        lowest = torch.minimum(row_bar[:whole].view(-1, GROUP).amin(1)[:, None], column_bar)
        group = _true(torch.gt(groups, lowest).view(-1))
        if len(group) * 5 > max(groups.numel() * 3, 64):
            return None
        g = group // width
        corner = group + g * ((GROUP - 1) * width)
        at = (corner[:, None] + width * torch.arange(GROUP, device=tile.device)).view(-1)
        bar = lowest.view(-1).index_select(0, group)
        inside = torch.gt(flat.index_select(0, at).view(-1, GROUP), bar[:, None]).view(-1)
        found.append(at.index_select(0, _true(inside)))
    if whole < height:
        over = tile[whole:] > torch.minimum(row_bar[whole:, None], column_bar)
        found.append(_true(over.view(-1)) + whole * width)
    return torch.cat(found)


def _true(mask: Tensor) -> Tensor:
    """Positions of the flags that are set, in order.

    Eight flags are read as one number: nearly all are zero, and finding the others this way is several times faster.
    """
    if len(mask) % 8:
        return mask.nonzero().view(-1)
    words = mask.view(torch.int64).nonzero().view(-1)
    inside = mask.view(-1, 8).index_select(0, words).view(-1).nonzero().view(-1)
    return words.index_select(0, inside // 8) * 8 + inside % 8


def _forget_lower(tile: Tensor, top: int, left: int, bottom: int) -> None:
    """Put -1 on the diagonal and below it, where the pair was or will be seen from its other side."""
    row = torch.arange(top, bottom, device=tile.device)[:, None]
    column = torch.arange(left, left + tile.shape[1], device=tile.device)
    tile.masked_fill_(column <= row, -1)


def _pairs(top: int, n: int) -> float:
    return n * (n - 1) / 2 - (n - top) * (n - top - 1) / 2


def _key(columns: Columns, k: int, dtype: torch.dtype, strip: int) -> np.ndarray:
    shape = [columns.d_model, columns.n_features, k, strip, torch.finfo(dtype).bits]
    return np.concatenate([np.array(shape, dtype=np.float64), columns.fingerprint().numpy()])


def _resume(checkpoint: Run, key: np.ndarray, best: _Best) -> int:
    if not (checkpoint.path / f"{CHECKPOINT}.safetensors").exists():
        return 0
    state = checkpoint.tensors(CHECKPOINT)
    if state["key"].shape != key.shape or not np.allclose(state["key"], key, rtol=1e-9):
        raise ValueError(
            f"the unfinished scan in run '{checkpoint.name}' belongs to another dictionary; use another run"
        )
    best.values.copy_(torch.from_numpy(state["values"]))
    best.others.copy_(torch.from_numpy(state["others"]))
    best.settle(slice(None))
    return int(state["done"][0])


def _keep(checkpoint: Run, key: np.ndarray, best: _Best, done: int) -> None:
    state = {"key": key, "done": np.array([done]), "values": best.values.cpu().numpy()}
    checkpoint.save_tensors(CHECKPOINT, state | {"others": best.others.cpu().numpy()})


