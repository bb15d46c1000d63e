"""How far a stack of toy models has come while it trains: steps, losses, snapshots, and who has stopped early."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from toymodels.results import Snapshots, Toys
from toymodels.stack import Stack

WINDOW = 1_000
"""Steps over which early stopping averages the loss."""


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
