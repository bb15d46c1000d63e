"""The bookkeeping of a scan in torch operations alone, for dictionaries on an accelerator."""

import torch
from jaxtyping import Int
from torch import Tensor

GROUP = 8
"""Entries whose maximum stands for them while a line's first bar is found."""

SPARE = 24
"""Entries a column collects before they are sorted into its k largest."""


class Sorted:
    """The k largest entries offered so far for each column, and up to `SPARE` more that wait to be sorted in.

    An entry is looked at closely only if it beats the smallest of the k largest found so far for its row (or column),
    which after the first strip of tiles almost none does.  `probes.heaps.Heaps` does the same compiled, on a CPU.
    """

    def __init__(self, n: int, k: int, dtype: torch.dtype, device: torch.device):
        self.k = k
        self.values = torch.full((n, k + SPARE), -1, dtype=dtype, device=device)
        self.others = torch.full((n, k + SPARE), -1, dtype=torch.int32, device=device)
        self.filled = torch.full((n,), k, dtype=torch.int32, device=device)
        self.bar = torch.full((n,), -1, dtype=dtype, device=device)
        """What an entry must exceed to matter: the k-th largest at the last sorting."""

    def offer(self, signed: Tensor, top: int, left: int) -> None:
        """Take what matters of a tile whose entry (i, j) is the cosine of columns `top + i` and `left + j`, j > i."""
        tile = signed.abs()
        if left < top + len(tile):
            _forget_lower(tile, top, left)
        rows, columns = slice(top, top + len(tile)), slice(left, left + tile.shape[1])
        hits = _beating(tile, self.bar[rows], self.bar[columns])
        if hits is None:  # no bar yet, or one that means little: raise it from the tile itself
            for side, where in ((1, rows), (0, columns)):
                if tile.shape[side] >= GROUP * self.k:
                    self.bar[where] = torch.maximum(self.bar[where], _kth_of_groups(tile, self.k, side))
            hits = _beating(tile, self.bar[rows], self.bar[columns])
        if hits is None:
            self._sort_in(tile, signed, top, left)
            return
        values = tile.view(-1).index_select(0, hits)
        negative = signed.view(-1).index_select(0, hits) < 0
        i, j = _row_and_column(hits, tile.shape[1])
        for own, base, their, shift in ((i, top, j, left), (j, left, i, top)):
            keep = _true(values > self.bar[base:].index_select(0, own))
            own, order = own.index_select(0, keep).sort()
            keep = keep.index_select(0, order)
            other = _signed(their.index_select(0, keep) + shift, negative.index_select(0, keep))
            self._take(own + base, other, values.index_select(0, keep))

    def state(self) -> tuple[Tensor, Tensor]:
        """The k largest of each column so far, in no order, and whose they are (~j for a negative cosine)."""
        for part in torch.arange(len(self.bar), device=self.bar.device).split(4096):
            self.settle(part)
        return self.values[:, : self.k], self.others[:, : self.k]

    def restore(self, values: Tensor, others: Tensor) -> None:
        """Go on from a `state`."""
        self.values[:, : self.k] = values.to(self.values)
        self.others[:, : self.k] = others.to(self.others)
        self.state()

    def settle(self, where: Int[Tensor, " n"]) -> None:
        """Put the k largest of these columns first, and make room behind them."""
        top, at = self.values.index_select(0, where).topk(self.k, dim=1, sorted=False)
        others = self.others.index_select(0, where).gather(1, at)
        self.values[:, : self.k].index_copy_(0, where, top)
        self.others[:, : self.k].index_copy_(0, where, others)
        self.values[:, self.k :].index_fill_(0, where, -1)
        self.filled.index_fill_(0, where, self.k)
        self.bar.index_copy_(0, where, torch.maximum(top.amin(1), self.bar.index_select(0, where)))

    def _take(self, place: Tensor, others: Tensor, values: Tensor) -> None:
        """Append entries, sorted by the column `place` they are for; settle where the room is used up."""
        if not len(place):
            return
        who, line, counts = torch.unique_consecutive(place, return_inverse=True, return_counts=True)
        most = int(counts.max())
        self.settle(who[self.filled.index_select(0, who) + counts > self.k + SPARE])
        rank = torch.arange(len(place), device=place.device) - (counts.cumsum(0) - counts).index_select(0, line)
        for begin in range(0, most, SPARE):
            if begin:  # more than SPARE at once for one column: a portion at a time
                self.settle(who[counts > begin])
            part = None if most <= SPARE else ((rank >= begin) & (rank < begin + SPARE)).nonzero().view(-1)
            to, their, given, r = (x if part is None else x[part] for x in (place, others, values, rank))
            at = to * (self.k + SPARE) + self.filled.index_select(0, to) + (r - begin)
            self.values.view(-1).index_copy_(0, at, given)
            self.others.view(-1).index_copy_(0, at, their.int())
            self.filled.index_add_(0, who, (counts - begin).clamp_(0, SPARE).int())

    def _sort_in(self, tile: Tensor, signed: Tensor, top: int, left: int) -> None:
        """The slow way, for tiles where nearly every entry matters (all cosines equal, say)."""
        for size, sign, base, other in ((tile, signed, top, left), (tile.t(), signed.t(), left, top)):
            for first in range(0, len(size), 256):
                part = size[first : first + 256].contiguous()
                values, at = part.topk(min(self.k, part.shape[1]), dim=1)
                others = _signed(at + other, sign[first : first + 256].gather(1, at) < 0)
                where = torch.arange(base + first, base + first + len(part), device=tile.device)
                self._take(where.repeat_interleave(at.shape[1]), others.reshape(-1), values.reshape(-1))


def _signed(index: Tensor, negative: Tensor) -> Tensor:
    """Keep the sign of a cosine with the column it belongs to: i or -i - 1."""
    return torch.where(negative, ~index, index)


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
    """Flat positions where an entry beats the bar of its row or of its column; None when most do.

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
        if len(group) * 4 > max(groups.numel(), 64):  # bars of unlike height stand together: look at each entry
            over = torch.gt(tile, torch.minimum(row_bar[:, None], column_bar)).view(-1)
            return _true(over) if int(over.sum()) * 4 <= max(tile.numel(), 64) else None
        corner = group + _row_and_column(group, width)[0] * ((GROUP - 1) * width)
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
    return (words.index_select(0, inside >> 3) << 3) + (inside & 7)


def _row_and_column(flat: Tensor, width: int) -> tuple[Tensor, Tensor]:
    if width & (width - 1) == 0:  # shifting is ten times faster than dividing
        row = flat >> (width.bit_length() - 1)
        return row, flat & (width - 1)
    row = flat.div(width, rounding_mode="floor")
    return row, flat - row * width


def _forget_lower(tile: Tensor, top: int, left: int) -> None:
    """Put -1 on the diagonal and below it: a column is not its own neighbour, and a pair is seen from one side."""
    within = tile[:, : max(0, top + len(tile) - left)]
    row = torch.arange(top, top + len(tile), device=tile.device)[:, None]
    column = torch.arange(left, left + within.shape[1], device=tile.device)
    within.masked_fill_(column <= row, -1)
