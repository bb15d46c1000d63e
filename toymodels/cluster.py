"""A sweep's stacks on a Ray cluster."""

from collections.abc import Sequence
from typing import Any

from data import Progress
from data.cluster import gathered
from toymodels.config import ToyConfig
from toymodels.results import Toys
from toymodels.training import EngineName, train_stack


def train_stacks(
    tasks: Sequence[Sequence[ToyConfig]],
    seeds: Sequence[int],
    trainer: EngineName,
    snapshots: int | Sequence[int],
    progress: Progress,
) -> list[Toys]:
    """Train each task with all seeds somewhere on the cluster (`data.cluster`).

    A stack is cut at its settings, one piece each, since instances do not depend on what is stacked beside them.
    """
    pieces = [(place, config) for place, task in enumerate(tasks) for config in task]
    parts: list[list[Toys]] = [[] for _ in tasks]
    settings = {"seeds": list(seeds), "engine": trainer, "snapshots": snapshots}
    for done, ((place, _), toys) in enumerate(gathered(_train, pieces, shared=settings)):
        parts[place].append(toys)
        progress(done + 1, len(pieces), "stacks gathered from the cluster")
    return [Toys.joined(part) for part in parts]


def _train(shared: dict[str, Any], piece: tuple[int, ToyConfig]) -> Toys:
    seeds = shared["seeds"]
    return train_stack(
        [piece[1]] * len(seeds), seeds, engine=shared["engine"], threads=1, snapshots=shared["snapshots"]
    )
