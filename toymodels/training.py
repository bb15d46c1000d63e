"""Training toy models: stacked, reproducible instance by instance, resumable, stoppable."""

import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from data import Progress, Run, silent
from toymodels import checkpoint, evaluation
from toymodels.config import ToyConfig
from toymodels.gradients import Activation
from toymodels.results import Snapshots, Toys
from toymodels.stack import Engine, Stack, TorchEngine

EngineName = Literal["auto", "torch", "numba"]
WINDOW = 1_000
"""Steps over which early stopping averages the loss."""
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


def snapshot_steps(steps: int, snapshots: int | Sequence[int]) -> Int[np.ndarray, " snapshots"]:
    """0, then about `snapshots` steps in geometric progression up to `steps`; or the steps asked for, in order."""
    if isinstance(snapshots, int):
        asked = np.round(np.geomspace(1, steps, max(snapshots, 1))) if snapshots else np.array([])
        return np.unique(np.concatenate([[0, steps], asked]).astype(np.int64))
    return np.unique(np.clip(np.asarray(snapshots, dtype=np.int64), 0, steps))


class History:
    """How far a stack has come: step, who still trains, losses, snapshots."""

    def __init__(self, stack: Stack, at: Int[np.ndarray, " snapshots"]):
        k = len(stack.seeds)
        self.stack, self.at, self.step = stack, at, 0
        self.steps = np.zeros(k, dtype=np.int64)
        self.active = np.ones(k, dtype=bool)
        self.window = np.zeros((2, k))
        self.interval = np.zeros((2, k))
        self.taken: list[tuple[int, torch.Tensor, np.ndarray]] = []
        self.previous = np.full(k, np.inf)

    def next_stop(self) -> int:
        """The next step at which something is to be noted."""
        window = (self.step // WINDOW + 1) * WINDOW
        later = self.at[self.at > self.step]
        return int(min(self.stack.configs[0].steps, window, later[0] if len(later) else window))

    def note(
        self, active: Int[np.ndarray, " active"], stop: int, loss: Float[np.ndarray, " active"], count: int
    ) -> None:
        """Steps up to `stop` are done, with these sums of `count` batch losses."""
        for sums in (self.window, self.interval):
            sums[0, active] += loss
            sums[1, active] += count
        self.steps[active] = stop
        self.step = stop
        self.snapshot()
        if stop % WINDOW == 0:
            self._stop_early()

    def snapshot(self) -> None:
        """Keep the weights if this is a step to keep."""
        if self.step in self.at and (not self.taken or self.taken[-1][0] != self.step):
            with np.errstate(invalid="ignore"):
                mean = self.interval[0] / self.interval[1]
            self.taken.append((self.step, self.stack.params.clone(), mean))
            self.interval = np.zeros_like(self.interval)

    def _stop_early(self) -> None:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self.window[0] / self.window[1]
        for i in np.flatnonzero(self.active):
            least = self.stack.configs[i].early_stop
            if least is not None and mean[i] > self.previous[i] * (1 - least):
                self.active[i] = False
        self.previous, self.window = mean, np.zeros_like(self.window)

    def toys(self, loss: torch.Tensor, rate: float, engine: str) -> Toys:
        """The finished stack."""
        stack, kept = self.stack, [self.stack.views(flat) for _, flat, _ in self.taken]
        snapshots = None
        if kept:
            snapshots = Snapshots(
                steps=np.array([step for step, _, _ in self.taken]),
                W=torch.stack([views["W"] for views in kept]),
                b=torch.stack([views["b"] for views in kept]),
                loss=torch.as_tensor(np.stack([mean for _, _, mean in self.taken])).float(),
            )
        final = {name: value.clone() for name, value in stack.views(stack.params).items()}
        return Toys(
            configs=stack.configs,
            seeds=stack.seeds,
            W=final["W"],
            b=final["b"],
            V=final.get("V"),
            loss=loss,
            snapshots=snapshots,
            steps=self.steps.copy(),
            rate=rate,
            engine=engine,
        )


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
