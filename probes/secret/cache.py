"""The inputs of feed-forward blocks on disk: one pass over the text for any number of layers, resumable.

Outputs are not kept: they are recomputed from the teacher's weights in float32 (`probes.secret.teacher`), so a layer
costs 4 d_model bytes a token.  Tokens are bounded by the disk, not by memory.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from data import runs
from data.config import Config
from data.corpus import Corpus
from data.progress import Progress, silent
from data.runs import Run
from data.tables import Tables
from probes import stream
from probes.activations import Activations
from probes.models import LanguageModel
from probes.sinks import KEPT
from probes.stream import N_BLOCKS, Observation, StreamConfig

KIND = "secret.inputs"
COLUMNS = ("token", "previous", "document")


class CacheConfig(Config):
    """Which layers of which model read which text."""

    layers: tuple[int, ...]
    """Layers whose inputs are kept."""
    model: str = ""
    """Title of the model."""
    corpus: str = ""
    """Name of the corpus."""
    read: StreamConfig = StreamConfig(n_tokens=100_000)
    """Text read; the first positions of a window are not kept."""


@dataclass(frozen=True, eq=False)
class Inputs(Activations):
    """Inputs of one layer, every token past the first positions; `rows` and `block` as in `Activations`."""

    sink: np.ndarray
    """Whether the token is an attention sink in this layer."""
    document: Int[np.ndarray, " n_tokens"]
    """Place of the token's document in the order of reading."""
    token: Int[np.ndarray, " n_tokens"]
    previous: Int[np.ndarray, " n_tokens"]
    """The token before it in its window."""


def capture(
    model: LanguageModel,
    corpus: Corpus,
    layers: Iterable[int],
    config: StreamConfig | None = None,
    *,
    name: str = "secret-inputs",
    root: Path | None = None,
    progress: Progress = silent,
) -> Run:
    """Read the text once and keep the inputs of these layers' feed-forward blocks in a run folder.

    A killed capture goes on at its last whole shard; a finished one is taken as it is.  Raises ValueError for layers
    that are not there, RunError if the folder was begun with another model, text or settings.
    """
    chosen = tuple(sorted(set(layers)))
    if not chosen or chosen[0] < 0 or chosen[-1] >= model.n_layers:
        raise ValueError(f"layers {list(chosen)} are not all in 0..{model.n_layers - 1} of {model.title}")
    read = config or StreamConfig(n_tokens=100_000)
    settings = CacheConfig(layers=chosen, model=model.title, corpus=corpus.name, read=read)
    hashes = {"model": model.fingerprint, "corpus": corpus.hash}
    run = runs.create(name, settings, kind=KIND, root_folder=root, seed=read.seed, hashes=hashes)
    with run.writing():
        if run.progress["state"] == "done":
            return run
        recorder = _Recorder(run.path, chosen, read, model.d_model)

        def told(done: float, total: float, note: str = "") -> None:
            run.report("running", done, total, note)
            progress(done, total, note)

        given = {"inputs": recorder}
        stream.run(model, corpus, given, read, layers=chosen, saved_in=run, stage="inputs", progress=told)
        run.report("done", read.n_tokens, read.n_tokens, f"{recorder.count:,} tokens, {len(chosen)} layers")
    return run


def read_inputs(run: Run, layer: int) -> Inputs:
    """What `capture` kept of a layer, memory-mapped; ValueError if the layer is not there or nothing was kept."""
    known = run.settings.get("layers", [])
    if run.kind != KIND or layer not in known:
        raise ValueError(f"run '{run.name}' holds no inputs of layer {layer}; it holds layers {known}")
    count = int(run.tensors("inputs")["inputs/count"][0])
    if not count:
        raise ValueError(f"run '{run.name}' holds no token past the first positions; read more text")

    def column(name: str) -> np.ndarray:
        return np.load(run.path / f"{name}.npy", mmap_mode="r")[:count]

    document = np.asarray(column("document"))
    return Inputs(
        rows=column(f"rows_{layer}"),
        block=document % N_BLOCKS,
        sink=np.asarray(column(f"group_{layer}")) != KEPT,
        document=document,
        token=np.asarray(column("token")),
        previous=np.asarray(column("previous")),
    )


class _Recorder:
    """Writes rows as they come; its state is how many there are, so that resuming goes on behind them."""

    sites = ("ffn_input",)

    def __init__(self, folder: Path, layers: tuple[int, ...], read: StreamConfig, width: int):
        self.count, self._first, self._layers = 0, read.first_positions, layers
        # a document begun is read to its share, and batches are whole windows
        n = read.n_tokens + read.window
        kinds: dict[str, tuple[tuple[int, ...], type]] = dict.fromkeys(COLUMNS, ((n,), np.int64))
        kinds |= {f"group_{layer}": ((n,), np.int8) for layer in layers}
        kinds |= {f"rows_{layer}": ((n, width), np.float32) for layer in layers}
        self._files = {name: _open(folder / f"{name}.npy", *kind) for name, kind in kinds.items()}

    def update(self, seen: Observation) -> None:
        kept = seen.tokens.position >= self._first
        end = self.count + int(kept.sum())
        here = slice(self.count, end)
        rows: Float[torch.Tensor, "n d_model"] = seen.sites["ffn_input"]
        self._files[f"rows_{seen.layer}"][here] = rows[kept.to(rows.device)].float().cpu().numpy()
        self._files[f"group_{seen.layer}"][here] = seen.group.cpu()[kept].numpy()
        if seen.layer == self._layers[-1]:
            ids = seen.tokens.ids
            before = torch.cat([ids[:, :1], ids[:, :-1]], dim=1)
            document = np.concatenate([np.full(len(w), w.document_index) for w in seen.tokens.windows])
            self._files["token"][here] = seen.tokens.flat(ids)[kept].numpy()
            self._files["previous"][here] = seen.tokens.flat(before)[kept].numpy()
            self._files["document"][here] = document[kept.numpy()]
            self.count = end

    def merge(self, other: "_Recorder") -> None:
        raise NotImplementedError("rows on disk are not merged")

    def state(self) -> dict[str, np.ndarray]:
        for file in self._files.values():
            file.flush()
        return {"count": np.array([self.count], dtype=np.int64)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.count = int(state["count"][0])

    def tables(self) -> Tables:
        return Tables()


def _open(path: Path, shape: tuple[int, ...], kind: type) -> np.memmap:
    if path.exists():
        return np.lib.format.open_memmap(path, mode="r+")
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
