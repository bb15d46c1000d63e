"""How often neurons fire by word class and by position: what the mean firing frequency of a layer hides."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pandas import DataFrame
from torch import Tensor

from data.tables import Tables
from data.tokens import SPACE, UNTAGGED
from probes.firing import Firing, Sums, interval
from probes.models import LanguageModel
from probes.sinks import SINK
from probes.stream import N_BLOCKS, Observation, TokenBatch

CLASSES = (
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ"),
    *("SYM", "VERB", "X", SPACE, UNTAGGED),
)
"""Universal parts of speech, white space, and tokens without a tag."""
_CODE: Mapping[str, int] = {name: code for code, name in enumerate(CLASSES)}


def class_codes(tokens: TokenBatch) -> Int[np.ndarray, " n_tokens"]:
    """Place in CLASSES of each token's word class; a class of another scheme counts as X."""
    other = _CODE["X"]
    names = [name for window in tokens.windows for name in window.word_class]
    return np.array([_CODE.get(name, other) for name in names], dtype=np.int64)


def position_bins(position: Int[Tensor, " n_tokens"]) -> Int[Tensor, " n_tokens"]:
    """0, 1, 2, 3, then 4-7, 8-15, ...: the first four positions apart, later ones by powers of two."""
    return torch.where(position < 4, position, torch.log2(position.clamp(min=1).float()).floor().long() + 2)


def position_label(bin: int) -> str:
    """`3`, `4-7`, ..."""
    return str(bin) if bin < 4 else f"{2 ** (bin - 2)}-{2 ** (bin - 1) - 1}"


class Contexts(Sums):
    """Mean firing frequency of a layer's neurons by word class (ordinary tokens) and by position (all but sinks)."""

    sites = ("gate",)
    N_POSITIONS = 18

    def __init__(self, model: LanguageModel, firing: Firing | None = None):
        by_class = (model.n_layers, len(CLASSES), N_BLOCKS)
        by_position = (model.n_layers, self.N_POSITIONS, N_BLOCKS)
        super().__init__(
            class_sums=np.zeros(by_class),
            class_tokens=np.zeros(by_class, dtype=np.int64),
            position_sums=np.zeros(by_position),
            position_tokens=np.zeros(by_position, dtype=np.int64),
        )
        self.firing = firing
        """One that is shown the same batches before this one, whose counts are then not made twice."""
        self._cells: tuple[Any, Tensor, Tensor] = (None, torch.empty(0), torch.empty(0))

    def update(self, seen: Observation) -> None:
        """Add each token's share of firing neurons to its word class and its position."""
        if "gate" not in seen.sites:
            return
        share = self._share(seen).double()
        places, codes = self._cells_of(seen.tokens)
        self._add(
            "position", seen, seen.tokens.on(seen.group.device, "position bin", places), share, seen.group != SINK
        )
        if seen.tokens.windows:
            self._add("class", seen, seen.tokens.on(seen.group.device, "word class", codes), share, seen.kept)

    def _share(self, seen: Observation) -> Float[Tensor, " n_tokens"]:
        """Share of the layer's neurons that fire on each token."""
        gate = seen.sites["gate"]
        if self.firing is not None:
            tokens, layer, counts = self.firing.latest
            if tokens is seen.tokens and layer == seen.layer:
                return counts / gate.shape[1]
        return (gate > 0).float().mean(dim=1)

    def _cells_of(self, tokens: TokenBatch) -> tuple[Int[Tensor, " n_tokens"], Int[Tensor, " n_tokens"]]:
        """Place of each token by position and block, and by word class and block."""
        if self._cells[0] is not tokens:  # the same for every layer of a batch
            places = position_bins(tokens.position).clamp(max=self.N_POSITIONS - 1) * N_BLOCKS + tokens.block
            codes = torch.from_numpy(class_codes(tokens)) * N_BLOCKS + tokens.block if tokens.windows else places
            self._cells = (tokens, places, codes)
        return self._cells[1:]

    def _add(self, what: str, seen: Observation, cell: Tensor, share: Tensor, used: Tensor) -> None:
        shape = (len(CLASSES) if what == "class" else self.N_POSITIONS, N_BLOCKS)
        for name, values in (("sums", share * used), ("tokens", used.long())):
            cells = torch.zeros(shape[0] * shape[1], dtype=values.dtype, device=values.device)
            self.add(f"{what}_{name}", seen.layer, cells.index_add_(0, cell, values).view(shape))

    def tables(self) -> Tables:
        """`word_classes` (layer, word_class, frequency, low, high, n_tokens), `positions` (layer, position, first, ..).

        Intervals: 95%, blocks of documents resampled.  `word_classes` is empty for untagged text; `first` is the
        smallest position of the range.
        """
        tagged = [code for code, name in enumerate(CLASSES) if name != UNTAGGED]
        classes = [row | {"word_class": CLASSES[b]} for b, row in self._rows("class") if b in tagged]
        positions = [
            row | {"position": position_label(b), "first": b if b < 4 else 2 ** (b - 2)}
            for b, row in self._rows("position")
        ]
        found = Tables(positions=DataFrame(positions))
        return Tables(found | {"word_classes": DataFrame(classes)}) if classes else found

    def _rows(self, what: str) -> list[tuple[int, dict[str, Any]]]:
        sums, tokens = self.arrays[f"{what}_sums"], self.arrays[f"{what}_tokens"]
        rows = []
        for layer, place in zip(*np.nonzero(tokens.sum(axis=2)), strict=True):
            s, n = sums[layer, place], tokens[layer, place]
            low, high = interval(s, n)
            found = {"layer": int(layer), "frequency": float(s.sum() / n.sum()), "low": low, "high": high}
            rows.append((int(place), found | {"n_tokens": int(n.sum())}))
        return rows
