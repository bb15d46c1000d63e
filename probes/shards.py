"""Shards of a text cut ahead of the model, and shards on a Ray cluster.

On a cluster a worker shows one to empty accumulators, and they are merged in reading order.

Counts are those of a pass in one process; sums of floats are added in another order, and agree to rounding.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from data.cluster import gathered
from data.progress import Progress
from data.tokens import TokenizedDocument
from probes.models import LanguageModel

if TYPE_CHECKING:
    from probes.stream import StreamConfig

Shard = list[TokenizedDocument]
States = dict[str, dict[str, np.ndarray]]


def ahead(shards: Iterable[Shard]) -> Iterator[Shard]:
    """The same, each cut into tokens while the one before it is read: to a GPU cutting is as long as reading."""
    given = iter(shards)
    with ThreadPoolExecutor(1) as beside:
        coming = beside.submit(next, given, None)
        while (shard := coming.result()) is not None:
            coming = beside.submit(next, given, None)
            yield shard


def empty(accumulators: Mapping[str, Any], model: LanguageModel) -> dict[str, Any]:
    """Copies of accumulators that have seen nothing yet; the model in them is the same one."""
    return copy.deepcopy(dict(accumulators), {id(model): model})


def merged(
    model: LanguageModel,
    shards: Iterable[Shard],
    accumulators: Mapping[str, Any],
    blank: Mapping[str, Any],
    config: "StreamConfig",
    layers: Iterable[int] | None,
    tell: Progress,
) -> Iterator[Shard]:
    """Each shard, in reading order, once the accumulators hold what a worker saw in it."""
    shared = (model, dict(blank), config, None if layers is None else list(layers))
    part = empty(blank, model)
    done = 0
    for shard, states in gathered(_seen, shards, shared=shared, gpus=float(model.device.type == "cuda")):
        for name, accumulator in accumulators.items():
            part[name].restore(states[name])
            accumulator.merge(part[name])
        done += sum(len(document) for document in shard)
        tell(done, config.n_tokens)
        yield shard


def _seen(shared: tuple[Any, ...], shard: Shard) -> States:
    """What the accumulators know after this shard alone; they came through shared memory, which is read-only."""
    from probes import stream  # which imports this module

    model, blank, config, layers = shared
    accumulators = empty(blank, model)
    stream.show(model, stream.batches(shard, model, config), accumulators, config, layers)
    return {name: dict(accumulator.state()) for name, accumulator in accumulators.items()}
