"""Training toy models: stacked, reproducible instance by instance, resumable, stoppable."""

import time
from collections.abc import Sequence
from typing import Literal

import numpy as np

from data import Progress, Run, silent
from toymodels import checkpoint, evaluation
from toymodels.config import ToyConfig
from toymodels.gradients import Activation
from toymodels.history import History, snapshot_steps
from toymodels.results import Toys
from toymodels.stack import Engine, Stack, TorchEngine

EngineName = Literal["auto", "torch", "numba"]
_BLOCK_SECONDS = 0.25
SAVED_EVERY = 30.0
"""Seconds between two writings of a stack that trains into its run."""


def train(
    config: ToyConfig,
    *,
    seeds: int | Sequence[int] = 1,
    steps: int | None = None,
    engine: EngineName = "auto",
    threads: int | None = None,
    activation: Activation | None = None,
    snapshots: int | Sequence[int] = 24,
    evaluation_samples: int = evaluation.SAMPLES,
    progress: Progress = silent,
    run: Run | None = None,
) -> Toys:
    """Train one toy model a seed and give back all of them; `.best()` is the one with the lowest loss.

    `seeds` is how many (0, 1, ...) or which.  An instance depends on its settings and its seed alone, never on what is
    trained beside it.  `steps` overrides the settings'.  `engine`: `numba` compiles, `torch` does not, `auto` chooses
    the faster that can do these settings.  `activation` replaces the settings' nonlinearity by any function.
    `snapshots` is how many on a logarithmic schedule, or at which steps.  With a `run`, the work is saved there every
    half minute and when stopped, goes on from there, and leaves tensors `toys` and table `instances`.  Raises whatever
    `progress` raises to stop it.
    """
    chosen = range(seeds) if isinstance(seeds, int) else seeds
    if not len(chosen):
        raise ValueError("no seeds to train; ask for at least one")
    if steps is not None:
        config = ToyConfig.model_validate(config.model_dump() | {"steps": steps})
    toys = train_stack(
        [config] * len(chosen),
        list(chosen),
        engine=engine,
        threads=threads,
        activation=activation,
        snapshots=snapshots,
        evaluation_samples=evaluation_samples,
        progress=progress,
        run=run,
    )
    if run is not None:
        checkpoint.save_toys(run, toys)
    return toys


def train_stack(
    configs: Sequence[ToyConfig],
    seeds: Sequence[int],
    *,
    engine: EngineName = "auto",
    threads: int | None = None,
    activation: Activation | None = None,
    snapshots: int | Sequence[int] = 24,
    evaluation_samples: int = evaluation.SAMPLES,
    progress: Progress = silent,
    run: Run | None = None,
    name: str = checkpoint.NAME,
) -> Toys:
    """`train` for instances whose settings differ in numbers only (equal `stack_key`), such as a sweep's.

    `name` is that of the checkpoint in the run folder.  Raises ValueError if they differ in shape or kind.
    """
    if len({config.stack_key for config in configs}) > 1:
        raise ValueError("these settings differ in shape or kind and cannot train in one stack; use `sweep`")
    stack = Stack(configs, seeds)
    mover = choose_engine(stack, engine, threads, activation)
    history = History(stack, snapshot_steps(configs[0].steps, snapshots))
    if run is not None:
        checkpoint.restore(run, stack, history, name)
    rate = _loop(stack, history, mover, progress, run, name)
    loss = evaluation.evaluate(
        configs, seeds, stack.views(stack.params), samples=evaluation_samples, activation=activation
    )
    return history.toys(loss.float(), rate, mover.name)


def choose_engine(stack: Stack, engine: EngineName, threads: int | None, activation: Activation | None) -> Engine:
    """The engine of this name, or the faster one; ValueError if the compiled one cannot do these settings."""
    if engine == "torch":
        return TorchEngine(stack, activation)
    from toymodels import compiled

    refusal = compiled.refusal(stack.configs[0], activation)
    if refusal is None:
        if engine == "numba" or compiled.pays(stack.configs[0]):
            return compiled.NumbaEngine(stack, threads)
    elif engine == "numba":
        raise ValueError(refusal)
    return TorchEngine(stack, activation)


def _loop(stack: Stack, history: History, mover: Engine, progress: Progress, run: Run | None, name: str) -> float:
    """Advance to the end in blocks of about a quarter second; instance-steps a second."""
    config, k = stack.configs[0], len(stack.seeds)
    total, done, saved = config.steps * k, int(history.steps.sum()), time.monotonic()
    begun, first, block = time.perf_counter(), done, 16
    history.snapshot()
    try:
        while history.step < config.steps and history.active.any():
            active = np.flatnonzero(history.active)
            stop = min(history.next_stop(), history.step + block)
            size, before = stop - history.step, time.perf_counter()
            history.note(active, stop, *mover.advance(active, history.step, stop))
            now = time.perf_counter()
            block = max(1, min(4 * block, int(size * _BLOCK_SECONDS / max(now - before, 1e-6)) + 1))
            done = int(history.steps.sum()) + int((config.steps - history.steps[~history.active]).sum())
            progress(done, total, f"{(done - first) / (now - begun):,.0f} instance-steps/s")
            if run is not None and time.monotonic() - saved > SAVED_EVERY:
                checkpoint.save(run, stack, history, name)
                saved = time.monotonic()
    except BaseException:
        if run is not None:
            checkpoint.save(run, stack, history, name)
        raise
    if run is not None:
        checkpoint.save(run, stack, history, name)
    return (int(history.steps.sum()) - first) / max(time.perf_counter() - begun, 1e-9)
