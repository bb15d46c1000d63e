"""A stack in training, on disk: written while it runs, read to go on."""

import numpy as np
import torch

from data import Run, digest
from toymodels.config import ToyConfig
from toymodels.history import History
from toymodels.results import Snapshots, Toys
from toymodels.stack import Stack

NAME = "checkpoint"


def save(run: Run, stack: Stack, history: History, name: str = NAME) -> None:
    """Write everything needed to go on exactly where this is."""
    arrays = {
        "identity": _identity(stack, history),
        "params": stack.params.numpy(),
        "first": stack.first.numpy(),
        "second": stack.second.numpy(),
        "step": np.array([history.step]),
        "steps": history.steps,
        "active": history.active.astype(np.uint8),
        "window": history.window,
        "interval": history.interval,
        "previous": history.previous,
        "taken_steps": np.array([step for step, _, _ in history.taken], dtype=np.int64),
    }
    if history.taken:
        arrays["taken_params"] = np.stack([flat.numpy() for _, flat, _ in history.taken])
        arrays["taken_loss"] = np.stack([loss for _, _, loss in history.taken])
    run.save_tensors(name, arrays)


def restore(run: Run, stack: Stack, history: History, name: str = NAME) -> None:
    """Go back to what the run folder holds, if it holds anything; ValueError if that is of another stack."""
    if not (run.path / f"{name}.safetensors").exists():
        return
    kept = run.tensors(name)
    if not np.array_equal(kept["identity"], _identity(stack, history)):
        raise ValueError(f"run '{run.name}' holds a training of other settings or seeds; choose another name")
    for key in ("params", "first", "second"):
        getattr(stack, key).copy_(torch.from_numpy(kept[key].copy()))
    history.step = int(kept["step"][0])
    history.active = kept["active"].astype(bool)
    for key in ("steps", "window", "interval", "previous"):
        setattr(history, key, kept[key].copy())
    history.taken = [
        (int(step), torch.from_numpy(kept["taken_params"][i].copy()), kept["taken_loss"][i])
        for i, step in enumerate(kept["taken_steps"])
    ]


def save_toys(run: Run, toys: Toys, name: str = "toys") -> None:
    """Write toys as tensors NAME and, for `toys`, the table `instances`."""
    arrays = {
        "W": toys.W.numpy(),
        "b": toys.b.numpy(),
        "loss": toys.loss.numpy(),
        "seeds": np.array(toys.seeds, dtype=np.int64),
        "steps": np.asarray(toys.steps),
    }
    if toys.V is not None:
        arrays["V"] = toys.V.numpy()
    if toys.snapshots is not None:
        kept = toys.snapshots
        arrays |= {"snapshot_steps": kept.steps, "snapshot_W": kept.W.numpy(), "snapshot_b": kept.b.numpy()}
        arrays["snapshot_loss"] = kept.loss.numpy()
    run.save_tensors(name, arrays)
    if name == "toys":
        run.save_table("instances", toys.table)


def load_toys(run: Run, config: ToyConfig, name: str = "toys") -> Toys:
    """Toys as `save_toys` wrote them."""
    kept = {key: torch.from_numpy(value.copy()) for key, value in run.tensors(name).items()}
    snapshots = None
    if "snapshot_W" in kept:
        snapshots = Snapshots(
            kept["snapshot_steps"].numpy(), kept["snapshot_W"], kept["snapshot_b"], kept["snapshot_loss"]
        )
    seeds = tuple(int(seed) for seed in kept["seeds"])
    return Toys(
        configs=(config,) * len(seeds),
        seeds=seeds,
        W=kept["W"],
        b=kept["b"],
        V=kept.get("V"),
        loss=kept["loss"],
        snapshots=snapshots,
        steps=kept["steps"].numpy(),
    )


def _identity(stack: Stack, history: History) -> np.ndarray:
    settings = [config.model_dump(mode="json") for config in stack.configs]
    text = digest([settings, list(stack.seeds), history.at.tolist()])
    return np.frombuffer(text.encode(), dtype=np.uint8).copy()
