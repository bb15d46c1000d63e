"""One pass over a corpus: batches of windows through the model, one layer at a time to mergeable accumulators.

    text -> shards of whole documents -> windows -> batches -> model.observe -> accumulators -> tables

Memory does not grow with the number of tokens: an accumulator keeps sums, counts and histograms.  After every shard
the accumulators' state is written to the run folder, so a killed pass resumes at its last whole shard and, because
shards and batches are cut the same way every time and sums are kept in float64, ends with the same tables bit for
bit.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.config import Config
from data.corpus import Corpus
from data.files import only_writer
from data.progress import Progress, silent
from data.runs import Run
from data.tables import Tables
from data.tokens import TokenizedDocument, Window
from probes import shards
from probes.models import LanguageModel
from probes.sinks import KEPT, find_sinks

Where = Literal["local", "ray"]
"""On what a pass runs: this process, or a Ray cluster."""
N_BLOCKS = 64
"""Documents fall into this many blocks, the units that are resampled for intervals (with fewer documents: one each)."""
N_FOLDS = 8
"""Groups of documents that are left out in turn, where what is measured is no ratio of sums over tokens."""


class StreamConfig(Config):
    """What text is read, and in which pieces."""

    n_tokens: int = 20_000
    """Text tokens to read; begin tokens are not counted."""
    tokens_per_document: int | None = None
    """Tokens taken from the start of each document; None: so few that the tokens come from as many documents as the
    corpus has, but at least 1,020, in whole windows."""
    window: int = 256
    """Positions a window holds; each begins with the model's document token."""
    batch_tokens: int = 2_048
    """Tokens that go through the model together; a large GPU wants 16,384 or more."""
    shard_tokens: int = 8_192
    """Tokens after which, at the end of the document, the state is saved."""
    first_positions: int = 4
    """Positions at the start of a window that are told apart (attention sinks live there)."""
    sink_ratio: float = 100.0
    """A token whose FFN output energy exceeds this many times the median of its batch is an attention sink."""
    seed: int = 0
    """Order of the documents."""


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of a batch, padding left out; arrays and tensors have one entry a token."""

    ids: Int[Tensor, "n_windows n_positions"]
    """What the model is given; short windows are filled with token 0 on the right, which no earlier token sees."""
    present: Int[Tensor, " n_tokens"] | None
    """Places of the tokens in the flattened ids; None when there is no padding."""
    windows: tuple[Window, ...]
    """Text, word classes, domains and document of each window."""
    position: Int[Tensor, " n_tokens"]
    """Position in the window, from 0 (the document token)."""
    block: Int[Tensor, " n_tokens"]
    """Resampling block of the token's document, 0 to N_BLOCKS - 1."""
    moved: dict[tuple[str, torch.device], Tensor] = field(default_factory=dict, repr=False, compare=False)
    """Copies on other devices: once a batch, as making one waits for the device."""

    def flat(self, tensor: Tensor) -> Tensor:
        """One row a token from a site's tensor (batch, position, ...)."""
        rows = tensor.flatten(0, 1)
        return rows if self.present is None else rows[self.on(rows.device, "present", self.present)]

    def on(self, device: torch.device, name: str, tensor: Tensor) -> Tensor:
        """`tensor`, which is this batch's and called `name`, on the device."""
        if tensor.device != device and (name, device) not in self.moved:
            self.moved[name, device] = tensor.to(device)
        return tensor if tensor.device == device else self.moved[name, device]

    @cached_property
    def fold(self) -> Int[Tensor, " n_tokens"]:
        """Fold of each token's document."""
        return self.block % N_FOLDS

    @cached_property
    def start(self) -> int:
        """Where a sample of every n-th token begins (modulo n): by the text, so that no position is always seen."""
        return int(self.ids.sum())

    def __len__(self) -> int:
        return len(self.position)


@dataclass(frozen=True)
class Observation:
    """One layer's sites for one batch, padding left out."""

    layer: int
    sites: Mapping[str, Tensor]
    """Site -> (tokens, width)."""
    group: Int[Tensor, " n_tokens"]
    """KEPT, SINK (an attention sink past the first positions) or FIRST (among the first positions)."""
    energy: Float[Tensor, " n_tokens"]
    """Squared norm of the FFN output."""
    tokens: TokenBatch

    @property
    def block(self) -> Int[Tensor, " n_tokens"]:
        """Resampling block of each token, where the group lies."""
        return self.tokens.on(self.group.device, "block", self.tokens.block)

    @property
    def fold(self) -> Int[Tensor, " n_tokens"]:
        """Fold of each token's document, where the group lies."""
        return self.tokens.on(self.group.device, "fold", self.tokens.fold)

    @cached_property
    def kept(self) -> Bool[Tensor, " n_tokens"]:
        """Whether the token is an ordinary one."""
        return self.group == KEPT

    @property
    def position(self) -> Int[Tensor, " n_tokens"]:
        """Position of each token in its window, where the group lies."""
        return self.tokens.on(self.group.device, "position", self.tokens.position)


@runtime_checkable
class Accumulator(Protocol):
    """Sums over tokens that can be merged, saved and turned into tables."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites it looks at."""
        ...

    def update(self, seen: Observation) -> None:
        """Take in one layer of one batch."""
        ...

    def merge(self, other: Any) -> None:
        """Add what another one of the same shape has seen."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """All it knows, as arrays."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become the one that gave `state`."""
        ...

    def tables(self) -> Tables:
        """What it found."""
        ...


@dataclass(frozen=True)
class Passed:
    """How much a pass has read."""

    n_tokens: int
    n_documents: int
    shards: int


def run(
    model: LanguageModel,
    corpus: Corpus,
    accumulators: Mapping[str, Accumulator],
    config: StreamConfig,
    *,
    layers: Iterable[int] | None = None,
    tagger: Any = None,
    saved_in: Run | None = None,
    stage: str = "stream",
    engine: Where = "local",
    progress: Progress = silent,
    after_shard: Callable[[Passed], None] | None = None,
) -> Passed:
    """Show every token of the corpus' selection to every accumulator, layer by layer.

    With `saved_in`, state is written as STAGE.safetensors after each shard and taken up from there; `after_shard` is
    called then, with tables ready to be drawn.  No other process may write there meanwhile (RunError).  A progress
    callback that raises stops the pass between two batches.
    `engine="ray"` gives the shards to a Ray cluster (`data.cluster`): for accumulators that merge, the same counts, and
    the same sums to rounding.
    """
    if model.tokenizer is None:
        raise ValueError(f"{model.title} came without a tokenizer, so text cannot be fed to it; pass tokenizer=")
    if engine not in get_args(Where):
        raise ValueError(f"no engine '{engine}'; choose {' or '.join(get_args(Where))}")
    with nullcontext() if saved_in is None else only_writer(saved_in.path, nested=True):
        blank = shards.empty(accumulators, model) if engine == "ray" else {}
        passed = _restore(accumulators, saved_in, stage)
        started, before = time.monotonic(), passed.n_tokens

        def tell(done: float, total: float, note: str = "") -> None:
            rate = done / max(time.monotonic() - started, 1e-9)
            progress(before + done, total, f"{stage}: {rate:,.0f} tokens/s")

        left = islice(_shards(model, corpus, config, tagger), passed.shards, None)
        if engine == "ray":
            seen = shards.merged(model, left, accumulators, blank, config, layers, tell)
        else:
            seen = _one_after_the_other(model, left, accumulators, config, layers, tell)
        for shard in seen:
            n = sum(len(document) for document in shard)
            passed = Passed(passed.n_tokens + n, passed.n_documents + len(shard), passed.shards + 1)
            _save(accumulators, passed, saved_in, stage)
            if after_shard is not None:
                after_shard(passed)
    return passed


def _one_after_the_other(
    model: LanguageModel,
    left: Iterable[list[TokenizedDocument]],
    accumulators: Mapping[str, Accumulator],
    config: StreamConfig,
    layers: Iterable[int] | None,
    tell: Progress,
) -> Iterator[list[TokenizedDocument]]:
    done = 0
    for shard in left if model.device.type == "cpu" else shards.ahead(left):
        for batch in batches(shard, model, config):
            show(model, [batch], accumulators, config, layers)
            done += sum(len(w) - 1 for w in batch.windows)
            tell(done, config.n_tokens)
        yield shard


def begin(model: LanguageModel, corpus: Corpus, accumulators: Mapping[str, Accumulator], config: StreamConfig) -> None:
    """Show the first batch alone: to accumulators that settle something on it, before they are copied for a cluster."""
    for shard in islice(_shards(model, corpus, config, None), 1):
        show(model, islice(batches(shard, model, config), 1), accumulators, config)


def show(
    model: LanguageModel,
    given: Iterable[TokenBatch],
    accumulators: Mapping[str, Accumulator],
    config: StreamConfig,
    layers: Iterable[int] | None = None,
) -> None:
    """Put batches through the model and show every layer to every accumulator."""
    sites = tuple(dict.fromkeys(("ffn_output", *(s for a in accumulators.values() for s in a.sites))))
    for batch in given:
        _observe(model, batch, sites, accumulators, config, layers)


def batches(shard: list[TokenizedDocument], model: LanguageModel, config: StreamConfig) -> Iterator[TokenBatch]:
    """Windows of a shard, longest first so that little is padded, a batch at a time."""
    windows = [w for d in shard for w in d.windows(config.window, begin_token_id=model.document_token)]
    windows.sort(key=len, reverse=True)
    held: list[Window] = []
    for window in windows:
        if held and (len(held) + 1) * len(held[0]) > config.batch_tokens:
            yield _batch(held)
            held = []
        held.append(window)
    if held:
        yield _batch(held)


def _batch(windows: list[Window]) -> TokenBatch:
    longest = max(len(w) for w in windows)
    ids = torch.zeros(len(windows), longest, dtype=torch.long)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = torch.from_numpy(np.asarray(window.token_ids, dtype=np.int64))
    lengths = torch.tensor([len(w) for w in windows])
    real = torch.arange(longest) < lengths[:, None]
    block = torch.tensor([w.document_index % N_BLOCKS for w in windows])
    return TokenBatch(
        ids=ids,
        present=None if bool(real.all()) else real.flatten().nonzero().squeeze(1),
        windows=tuple(windows),
        position=torch.arange(longest).expand_as(real)[real],
        block=block[:, None].expand_as(real)[real],
    )


def _observe(
    model: LanguageModel,
    batch: TokenBatch,
    sites: tuple[str, ...],
    accumulators: Mapping[str, Accumulator],
    config: StreamConfig,
    layers: Iterable[int] | None,
) -> None:
    def visit(layer: int, tensors: dict[str, Tensor]) -> None:
        flat = {site: batch.flat(tensor) for site, tensor in tensors.items()}
        position = batch.on(flat["ffn_output"].device, "position", batch.position)
        energy, group = find_sinks(flat["ffn_output"], position, config.first_positions, config.sink_ratio)
        seen = Observation(layer, flat, group, energy, batch)
        for accumulator in accumulators.values():
            accumulator.update(seen)

    model.observe(batch.ids, sites, visit, layers=layers)


def tokens_each(corpus: Corpus, config: StreamConfig) -> int:
    """Tokens taken from the start of each document: what the settings say, or their default (see `StreamConfig`)."""
    share = max(1020, -(-config.n_tokens // len(corpus)))
    text = config.window - 1
    return config.tokens_per_document or -(-share // text) * text


def _shards(
    model: LanguageModel, corpus: Corpus, config: StreamConfig, tagger: Any
) -> Iterator[list[TokenizedDocument]]:
    return corpus.shards(
        model.tokenizer,
        tokens_per_shard=config.shard_tokens,
        n_tokens=config.n_tokens,
        tokens_per_document=tokens_each(corpus, config),
        tagger=tagger,
        seed=config.seed,
    )


def _save(accumulators: Mapping[str, Accumulator], passed: Passed, saved_in: Run | None, stage: str) -> None:
    if saved_in is None:
        return
    counts = np.array([passed.n_tokens, passed.n_documents, passed.shards], dtype=np.int64)
    arrays = {f"{name}/{key}": v for name, a in accumulators.items() for key, v in a.state().items()}
    saved_in.save_tensors(stage, arrays | {"passed": counts})


def _restore(accumulators: Mapping[str, Accumulator], saved_in: Run | None, stage: str) -> Passed:
    if saved_in is None or stage not in saved_in.tensor_names():
        return Passed(0, 0, 0)
    arrays = saved_in.tensors(stage)
    for name, accumulator in accumulators.items():
        accumulator.restore({k.removeprefix(f"{name}/"): v for k, v in arrays.items() if k.startswith(f"{name}/")})
    return Passed(*arrays["passed"].tolist())
