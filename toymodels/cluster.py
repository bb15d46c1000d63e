"""A sweep's stacks on a Ray cluster, through joblib; Ray is imported when asked for and not before."""

from collections.abc import Sequence

from data import Progress
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
    """Train each task with all seeds somewhere on the cluster; ValueError if Ray is not installed.

    A stack is cut at its settings, one piece each, since instances do not depend on what is stacked beside them.
    Connects to the cluster that `ray.init()` finds (`RAY_ADDRESS`), else to this machine's own.
    """
    try:
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise ValueError(
            "engine='ray' needs Ray, which is not installed; pip install 'sparsescope[cluster]'"
        ) from error
    from joblib import Parallel, delayed, parallel_config

    register_ray()
    pieces = [(place, config) for place, task in enumerate(tasks) for config in task]
    parts: list[list[Toys]] = [[] for _ in tasks]
    with parallel_config(backend="ray"):
        work = Parallel(return_as="list")(
            delayed(train_stack)([config] * len(seeds), seeds, engine=trainer, threads=1, snapshots=snapshots)
            for _, config in pieces
        )
    for done, ((place, _), toys) in enumerate(zip(pieces, work, strict=True)):
        parts[place].append(toys)
        progress(done + 1, len(pieces), "stacks gathered from the cluster")
    return [Toys.joined(part) for part in parts]
