"""Real work, small enough to be done and killed many times, each time in a process of its own.

The kinds are those of `app.jobs.WORK`, done through `carry_out` as a job is, and `train`, which fills a folder of its
own.  A moment is an event of the work: a step that it reports, or a file put in its place (before and after).  The
process kills itself at the event that was drawn, or a few milliseconds later, wherever the work is by then.
"""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from app import jobs
from app.redo import CLOCKS
from app.telling import sentence
from data import runs
from data.runs import Run
from toymodels import language, training

SPARSITY = {"n_tokens": 3_000, "controls": ["random_init"], "control_tokens": 1_500, "dtype": "float32"}
EXPERTS = {"n_tokens": 4_500, "control_tokens": 2_100, "permutations": 4, "word_classes": False}
SECRET = {"n_tokens": 1_500, "n_experts": 4, "n_active": 8, "steps": 25, "loss_tokens": 300}
SWEEP = {
    "base": {"n_features": 4, "d_hidden": 2, "steps": 300, "batch_size": 32, "model": "untied"},
    "grid": {"feature_probability": [1.0, 0.1], "d_hidden": [1, 2]},
    "seeds": 2,
    "snapshots": 3,
}
TRAIN = {"d_model": 16, "d_mlp": 32, "n_heads": 2, "vocab_size": 300, "window": 16, "batch_size": 4, "steps": 30}
KINDS = ("stream", "sweep", "train", "secret", "experts")


def of_kind(kind: str, inputs: Path) -> tuple[str, dict[str, Any]]:
    """The kind of run and its settings."""
    texts = {"corpus": str(inputs / "texts")}
    return {
        "stream": ("probe.sparsity", {"model": str(inputs / "dense"), **texts, **SPARSITY}),
        "experts": ("probe.experts", {"model": str(inputs / "mixture"), **texts, **EXPERTS}),
        "secret": ("probe.secret", {"model": str(inputs / "dense"), **texts, **SECRET}),
        "sweep": ("toy.sweep", SWEEP),
        "train": ("train", {**texts, **TRAIN, "snapshots": 5}),
    }[kind]


class Refused(Exception):
    """The work ended with this sentence."""


class Killer:
    """Counts the events of this process, and ends it at the one that was drawn."""

    def __init__(self, at: int | None, late: float):
        self.seen, self._at, self._late = 0, at, late

    def event(self) -> None:
        self.seen += 1
        if self.seen == self._at:
            if not self._late:
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Thread(target=self._soon, daemon=True).start()

    def _soon(self) -> None:
        time.sleep(self._late)
        os.kill(os.getpid(), signal.SIGKILL)

    def progress(self, done: float, total: float, note: str = "") -> None:
        self.event()

    def replacing(self, replace: Callable[..., None]) -> Callable[..., None]:
        def counted(source: Any, target: Any) -> None:
            told = Path(target).name in ("progress.json", ".progress.json.sha256")  # written by the clock
            if not told:
                self.event()
            replace(source, target)
            if not told:
                self.event()

        return counted


def child(kind: str, inputs: Path, place: Path, told: Path, at: int | None, late: float) -> None:
    """Do the work in `place`, or what is left of it; `told` gets the number of events when it is done."""
    torch.set_num_threads(1)
    training.SAVED_EVERY = 0.0  # a stack this small would never be saved half way
    killer = Killer(at, late)
    os.replace = killer.replacing(os.replace)
    name, settings = of_kind(kind, inputs)
    try:
        if kind == "train":
            language.train(language.LanguageConfig.model_validate(settings), place / "run", progress=killer.progress)
        else:
            run = runs.create("run", settings, kind=name, root_folder=place)
            jobs.carry_out(run, jobs.work_of(name), killer.progress)
    except (ValueError, OSError) as error:  # what a verb or a page shows
        told.write_text(sentence(error))
        sys.exit(1)
    told.write_text(str(killer.seen))


def forks() -> Any:
    """Processes of their own, forked from a server that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.preload"])
    return context


def do(kind: str, inputs: Path, place: Path, at: int | None = None, late: float = 0.0) -> int | None:
    """Events of the work, done in a process of its own; None if that was killed; Refused with what it said."""
    told = inputs / f"{kind}.told"
    told.unlink(missing_ok=True)
    process = forks().Process(target=child, args=(kind, inputs, place, told, at, late))
    process.start()
    process.join()
    if process.exitcode == -signal.SIGKILL:
        return None
    if process.exitcode:
        raise Refused(told.read_text() if told.exists() else f"ended with {process.exitcode} and no sentence")
    return int(told.read_text())


def results(kind: str, place: Path) -> dict[str, Any]:
    """All that the work left, by name: frames without durations, arrays, weights."""
    folder = place / "run"
    if kind == "train":
        weights = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}
        return {"snapshots": json.loads((folder / "snapshots.json").read_text()), **weights}
    run = Run(folder)
    clocks = partial(pd.DataFrame.drop, columns=list(CLOCKS), errors="ignore")
    frames: dict[str, Any] = {name: clocks(run.table(name)) for name in run.table_names()}
    return frames | {f"{name}/{key}": a for name in run.tensor_names() for key, a in run.tensors(name).items()}


def unequal(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Names under which the two hold something else, bit for bit."""
    names = first.keys() | second.keys()
    return sorted(n for n in names if n not in first or n not in second or not _same(first[n], second[n]))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, pd.DataFrame):
        return a.equals(b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(a == b)
