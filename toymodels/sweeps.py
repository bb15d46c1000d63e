"""Grids of settings -> one tidy table; settings of equal shape train in one stack."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas import DataFrame

from data import Progress, Run, silent
from data.progress import within
from toymodels.config import ToyConfig
from toymodels.results import Toy, Toys
from toymodels.training import EngineName, train_stack

Where = Literal["local", "ray"]
Measure = Callable[[Toy], Mapping[str, Any]]


@dataclass(frozen=True)
class Sweep:
    """A finished sweep."""

    table: DataFrame
    """One row a (setting, seed): the grid's columns, then `setting, seed, loss, best, steps, frobenius_squared,
    dimensions_per_feature`, then whatever `measure` added."""
    settings: tuple[ToyConfig, ...]
    """The settings, in the grid's order; the table's column `setting` counts them."""
    toys: tuple[Toys, ...]
    """One stack a setting, all its seeds."""

    def best(self) -> DataFrame:
        """The rows of the best seed of each setting."""
        return self.table[self.table["best"]].reset_index(drop=True)

    def best_toys(self) -> list[Toy]:
        """The best toy of each setting, in the grid's order."""
        return [toys.best() for toys in self.toys]


def sweep(
    grid: Mapping[str, Sequence[Any]],
    *,
    base: ToyConfig | None = None,
    seeds: int | Sequence[int] = 5,
    steps: int | None = None,
    measure: Measure | None = None,
    engine: Where = "local",
    trainer: EngineName = "auto",
    jobs: int | None = None,
    snapshots: int | Sequence[int] = 0,
    progress: Progress = silent,
    run: Run | None = None,
) -> Sweep:
    """Train every combination of the grid's values with every seed.

    `grid` maps names of `ToyConfig` fields to values; `base` holds all other settings.  `measure` turns a toy into
    further columns.  `engine="ray"` spreads the stacks over a Ray cluster (extra `cluster`), `local` over `jobs`
    threads of this machine.  With a `run`, local work is saved there and goes on from there.
    ValueError names a field that does not exist or a value that a setting refuses.
    """
    settings = combinations(grid, base or ToyConfig(), steps)
    chosen = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not chosen:
        raise ValueError("no seeds to train; ask for at least one")
    groups: dict[str, list[int]] = {}
    for i, config in enumerate(settings):
        groups.setdefault(config.stack_key, []).append(i)
    tasks = [[settings[i] for i in members] for members in groups.values()]
    if engine == "ray":
        from toymodels import cluster

        stacks = cluster.train_stacks(tasks, chosen, trainer, snapshots, progress)
    elif engine == "local":
        stacks = _local(tasks, chosen, trainer, jobs, snapshots, progress, run)
    else:
        raise ValueError(f"no engine '{engine}'; choose 'local' or 'ray'")
    by_setting: dict[int, Toys] = {}
    for members, stack in zip(groups.values(), stacks, strict=True):
        for place, i in enumerate(members):
            by_setting[i] = stack.part(slice(place * len(chosen), (place + 1) * len(chosen)))
    toys = tuple(by_setting[i] for i in range(len(settings)))
    frames = [_rows(i, grid, settings[i], toys[i], measure) for i in range(len(settings))]
    return Sweep(pd.concat(frames, ignore_index=True), tuple(settings), toys)


def combinations(grid: Mapping[str, Sequence[Any]], base: ToyConfig, steps: int | None = None) -> list[ToyConfig]:
    """Settings of every combination of the grid's values, the last name varying fastest."""
    unknown = sorted(set(grid) - set(ToyConfig.model_fields))
    if unknown:
        raise ValueError(f"no setting '{unknown[0]}'; there are {', '.join(ToyConfig.model_fields)}")
    empty = [name for name, values in grid.items() if not len(values)]
    if empty:
        raise ValueError(f"the grid has no values for '{empty[0]}'")
    start = base.model_dump() | ({} if steps is None else {"steps": steps})
    found = []
    for values in itertools.product(*grid.values()):
        plain = (v.item() if isinstance(v, np.generic) else v for v in values)
        found.append(ToyConfig.model_validate(start | dict(zip(grid, plain, strict=True))))
    return found


def stack_of(task: Sequence[ToyConfig], seeds: Sequence[int]) -> tuple[list[ToyConfig], list[int]]:
    """Settings and seeds of the instances of one stack: all seeds of a setting stand together."""
    return [config for config in task for _ in seeds], [seed for _ in task for seed in seeds]


def _local(
    tasks: list[list[ToyConfig]],
    seeds: list[int],
    trainer: EngineName,
    jobs: int | None,
    snapshots: int | Sequence[int],
    progress: Progress,
    run: Run | None,
) -> list[Toys]:
    work = [sum(c.steps * c.samples * c.d_hidden * c.n_features for c in task) for task in tasks]
    stacks = []
    for i, task in enumerate(tasks):
        configs, each = stack_of(task, seeds)
        stacks.append(
            train_stack(
                configs,
                each,
                engine=trainer,
                threads=jobs,
                snapshots=snapshots,
                progress=within(progress, sum(work[:i]), sum(work), share=work[i]),
                run=run,
                name=f"checkpoint-{i}",
            )
        )
    return stacks


def _rows(
    setting: int, grid: Mapping[str, Sequence[Any]], config: ToyConfig, toys: Toys, measure: Measure | None
) -> DataFrame:
    table = toys.table
    for place, (name, values) in enumerate(grid.items()):
        value = getattr(config, name)
        plain = all(np.isscalar(v) or v is None for v in values)
        table.insert(place, name, value if plain else str(value))
    table.insert(len(grid), "setting", setting)
    if measure is not None:
        more = DataFrame([dict(measure(toys[i])) for i in range(len(toys))])
        table = pd.concat([table, more], axis=1)
    return table
