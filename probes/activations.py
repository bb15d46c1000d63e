"""A site's activations on disk: one row a token, memory-mapped, so that any number of tokens fits any machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.corpus import Corpus
from data.files import mapped
from data.progress import Progress, silent
from data.tables import Tables
from probes import stream
from probes.models import LanguageModel
from probes.models.sites import ROUTED_SITES, check_sites
from probes.sinks import KEPT
from probes.stream import Observation, StreamConfig

HELD_OUT = 5
"""Every fifth block of documents is kept for measuring; no document is in both parts."""


@dataclass(frozen=True, eq=False)
class Activations:
    """Rows of one site, in the order in which they were read."""

    rows: Float[np.ndarray, "n_tokens width"]
    """Memory-mapped float32."""
    block: Int[np.ndarray, " n_tokens"]
    """Resampling block of each row's document."""

    @property
    def width(self) -> int:
        """Numbers a token."""
        return self.rows.shape[1]

    @property
    def held_out(self) -> Bool[np.ndarray, " n_tokens"]:
        """Rows kept for measuring."""
        return held_out(self.block)

    def take(self, index: Int[np.ndarray, " n"]) -> Float[Tensor, "n width"]:
        """Copies of these rows, in this order."""
        return torch.from_numpy(np.ascontiguousarray(self.rows[index]))

    def chunks(self, index: Int[np.ndarray, " n"], size: int = 4_096) -> Iterator[tuple[np.ndarray, Tensor]]:
        """`index` in pieces, each with its rows."""
        for begin in range(0, len(index), size):
            part = index[begin : begin + size]
            yield part, self.take(part)


def held_out(block: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether blocks belong to the measured part."""
    return np.asarray(block) % HELD_OUT == 0


def check_site(site: str) -> None:
    """ValueError unless `site` is one vector a token."""
    check_sites((site,))
    if site in ROUTED_SITES or site == "attention_pattern":
        raise ValueError(f"site '{site}' is not one vector a token; choose block_output, ffn_output, neurons, ...")


@contextmanager
def cached(
    model: LanguageModel,
    corpus: Corpus,
    site: str,
    layer: int,
    config: StreamConfig,
    *,
    folder: Path | None = None,
    progress: Progress = silent,
) -> Iterator[Activations]:
    """One pass over the text; a site's vectors of every ordinary token (no first positions, no attention sinks).

    The file lies in `folder` (default: the system's temporary folder) and is removed at the end of the block.
    Raises ValueError for a site that is no vector, a layer that is not there or lacks the site, or too little text.
    """
    check_site(site)
    if not 0 <= layer < model.n_layers:
        raise ValueError(f"layer {layer} is not in 0..{model.n_layers - 1} of {model.title}")
    with TemporaryDirectory(prefix=".activations-", suffix=".tmp", dir=folder) as place:
        recorder = _Recorder(site, config.n_tokens, Path(place) / "rows.npy")
        stream.run(model, corpus, {"rows": recorder}, config, layers=[layer], stage="activations", progress=progress)
        if recorder.rows is None or not recorder.count:
            raise ValueError(f"layer {layer} of {model.title} showed no '{site}' of an ordinary token; read more text")
        yield Activations(recorder.rows[: recorder.count], recorder.block[: recorder.count])
        del recorder


class _Recorder:
    """Writes the rows of one layer's site to a memory-mapped file."""

    def __init__(self, site: str, n_tokens: int, path: Path):
        self.sites = (site,)
        self.rows: np.ndarray | None = None
        self.block = np.zeros(n_tokens, dtype=np.int64)
        self.count = 0
        self._path = path

    def update(self, seen: Observation) -> None:
        tensor = seen.sites.get(self.sites[0])
        if tensor is None:
            return
        if self.rows is None:
            shape = (len(self.block), tensor.shape[1])
            self.rows = mapped(self._path, shape, np.float32)
        kept = seen.group.cpu() == KEPT
        end = self.count + int(kept.sum())
        self.rows[self.count : end] = tensor[kept.to(tensor.device)].float().cpu().numpy()
        self.block[self.count : end] = seen.tokens.block[kept].numpy()
        self.count = end

    def merge(self, other: "_Recorder") -> None:
        raise NotImplementedError("rows on disk are not merged")

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        return

    def tables(self) -> Tables:
        return Tables()
