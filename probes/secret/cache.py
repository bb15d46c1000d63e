"""The inputs of feed-forward blocks on disk: one pass over the text for any number of layers, resumable.

Outputs are not kept: they are recomputed from the teacher's weights in float32 (`probes.secret.teacher`), so a layer
costs 4 d_model bytes a token.  Tokens are bounded by the disk, not by memory.
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from data import runs
from data.config import Config
from data.corpus import Corpus
from data.files import RunError, mapped, reading, replacing
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
    held = run.tensors("inputs")
    count = int(held["inputs/count"][0])
    if not count:
        raise ValueError(f"run '{run.name}' holds no token past the first positions; read more text")
    sums = dict(zip(_kinds(known), held["inputs/sums"].tolist(), strict=True)) if "inputs/sums" in held else {}

    def column(name: str) -> np.ndarray:
        path = run.path / f"{name}.npy"
        found = reading(path, lambda p: np.load(p, mmap_mode="r", allow_pickle=False))[:count]
        _check(path, found, _kinds(known)[name], sums.get(name))
        return found

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
        shapes = {name: (n, width) if name.startswith("rows") else (n,) for name in _kinds(layers)}
        self._files = {name: _open(folder / f"{name}.npy", shapes[name], kind) for name, kind in _kinds(layers).items()}
        self._sums, self._summed = dict.fromkeys(self._files, 0), 0

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
        for name, file in self._files.items():
            file.flush()
            self._sums[name] = _sum(file[self._summed : self.count], self._sums[name])
        self._summed = self.count
        return {"count": np.array([self.count]), "sums": np.array(list(self._sums.values()), dtype=np.int64)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.count = self._summed = int(state["count"][0])
        self._sums = dict(zip(self._files, state["sums"].tolist(), strict=True))
        for name, file in self._files.items():
            _check(Path(str(file.filename)), file[: self.count], file.dtype.type, self._sums[name])

    def tables(self) -> Tables:
        return Tables()


def _kinds(layers: Iterable[int]) -> dict[str, type]:
    """Number type of each file, by its stem."""
    kinds: dict[str, type] = dict.fromkeys(COLUMNS, np.int64)
    for layer in layers:
        kinds |= {f"group_{layer}": np.int8, f"rows_{layer}": np.float32}
    return kinds


def _open(path: Path, shape: tuple[int, ...], kind: type) -> np.memmap:
    if not path.exists():
        with replacing(path) as temporary:  # half a file would stop every later try
            mapped(temporary, shape, kind)
    if path.is_symlink():
        raise RunError(f"cannot write {path}: it is a link")
    found = reading(path, lambda p: np.lib.format.open_memmap(p, mode="r+"))
    if found.shape != shape:
        raise RunError(f"{path} cannot be read (its shape is {found.shape}, not {shape}); capture the inputs again")
    return found


def _sum(rows: np.ndarray, before: int = 0) -> int:
    return zlib.crc32(np.ascontiguousarray(rows).data, before)


def _check(path: Path, rows: np.ndarray, kind: type, known: int | None) -> None:
    """RunError if the rows are not those that were written; files of an older version come without a sum."""
    if rows.dtype != kind or (known is not None and _sum(rows) != known):
        raise RunError(f"{path} cannot be read (its bytes changed since it was written); capture the inputs again")
