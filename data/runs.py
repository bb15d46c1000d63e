"""The only reader and writer of run folders.

A run is a folder `ROOT/NAME/` that holds

    settings.json      what was asked for (a Config, as JSON, plus `kind`)
    provenance.json    versions, seed, commit, model and corpus hashes, when and where
    progress.json      state (running / done / failed / cancelled), done, total, rate, note, error
    TABLE.parquet      tidy frames, zstd
    NAME.safetensors   tensors (float32 or integers; bfloat16 has no numpy type and is refused)

Every file is written to a temporary neighbour and renamed, so that a reader sees the old file or the new one, and has
its SHA-256 in another, so that a flipped bit is told and not measured.  Work that writes holds `with run.writing():`,
which no two processes can.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from data.config import Config, digest
from data.files import RunError, only_writer, reading, replacing, sweep
from data.lines import is_text
from data.provenance import provenance
from data.tables import Tables

__all__ = [
    "Run",
    "RunError",
    "check_name",
    "compare",
    "create",
    "known_runs",
    "list_runs",
    "open_run",
    "provenance",
    "root",
]

SHIPPED = Path(__file__).parent / "bundled" / "runs"
"""Runs that come with the installation, so that there is something true to look at before anything is measured."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def root() -> Path:
    """Folder of runs: `$SPARSESCOPE_RUNS`, else `./runs`."""
    return Path(os.environ.get("SPARSESCOPE_RUNS", "runs"))


def _plain(name: str) -> bool:
    return bool(_NAME.match(name)) and ".." not in name


def check_name(name: str) -> str:
    """`name` if it is a plain file name, else RunError: no separators, no leading dot, at most 128 characters."""
    if not _plain(name):
        raise RunError(f"'{name}' is not a run name; use letters, digits, '.', '_' and '-' (at most 128)")
    return name


class Run:
    """One run folder."""

    def __init__(self, path: Path):
        self.path = Path(path)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name or self.path.resolve().name

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for."""
        return self._json("settings.json")

    @property
    def kind(self) -> str:
        """What made the run, e.g. `probe.sparsity` or `demo`."""
        return str(self.settings.get("kind", "unknown"))

    @property
    def asked(self) -> dict[str, Any]:
        """The settings without the kind: what the Config of the run's work is made from."""
        return {name: value for name, value in self.settings.items() if name != "kind"}

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, seed, commit, hashes."""
        return self._json("provenance.json")

    @property
    def progress(self) -> dict[str, Any]:
        """State and how far the work is; `{"state": "new"}` before it starts."""
        if not (self.path / "progress.json").exists():
            return {"state": "new"}
        told = self._json("progress.json")
        if not isinstance(told.get("state"), str):
            raise RunError(f"{self.path / 'progress.json'} names no state; delete that file and measure again")
        return told

    def report(self, state: str, done: float = 0, total: float = 0, note: str = "", **more: Any) -> None:
        """Write progress.json; `state` is one of running, done, failed, cancelled."""
        now = {
            "state": state,
            "done": done,
            "total": total,
            "note": note,
            "pid": os.getpid(),
            "at": time.time(),
        }
        self._write_json("progress.json", now | more)

    def table_names(self) -> list[str]:
        """Names of the frames in the folder."""
        return sorted(p.stem for p in self.path.glob("*.parquet"))

    def table(self, name: str, columns: list[str] | None = None) -> DataFrame:
        """The frame called `name`; RunError says which file is missing or damaged."""
        return reading(self.path / f"{check_name(name)}.parquet", lambda p: pd.read_parquet(p, columns=columns))

    def tables(self) -> Tables:
        """All frames of the run."""
        return Tables({name: self.table(name) for name in self.table_names()})

    def save_table(self, name: str, frame: DataFrame) -> None:
        """Write a frame as zstd parquet, without its index; RunError if a column has no parquet type."""
        path = self.path / f"{check_name(name)}.parquet"
        with replacing(path, sealed=True) as temporary:
            try:
                frame.to_parquet(temporary, compression="zstd", index=False)
            except (ValueError, TypeError, NotImplementedError) as error:
                raise RunError(f"table '{name}' cannot be written to {path} ({_first_line(error)})") from error

    def save_tables(self, tables: Mapping[str, DataFrame]) -> None:
        """Write several frames."""
        for name, frame in tables.items():
            self.save_table(name, frame)

    def tensor_names(self) -> list[str]:
        """Names of the tensor files in the folder."""
        return sorted(p.stem for p in self.path.glob("*.safetensors"))

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """Arrays by key from NAME.safetensors."""
        from safetensors.numpy import load_file

        return reading(self.path / f"{check_name(name)}.safetensors", load_file)

    def save_tensors(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write arrays as NAME.safetensors; RunError for a type it lacks (object, complex, bfloat16)."""
        from safetensors.numpy import save_file

        path = self.path / f"{check_name(name)}.safetensors"
        try:
            plain = {key: np.asarray(value) for key, value in arrays.items()}
        except (TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{path.name} keeps arrays only ({_first_line(error)})") from error
        for key, value in plain.items():
            if not is_text(key):
                raise RunError(f"{key!r} is half a character and no name for an array of {path.name}")
            if value.dtype.kind not in "fiub":
                raise RunError(f"array '{key}' of {path.name} is {value.dtype}; give float32, integers or bool")
        with replacing(path, sealed=True) as temporary:
            save_file({key: np.asarray(value, order="C") for key, value in plain.items()}, temporary)

    @contextlib.contextmanager
    def writing(self) -> Iterator["Run"]:
        """Be the only writer during the block; RunError naming the other process if there is one."""
        with only_writer(self.path):
            sweep(self.path)
            yield self

    def delete(self) -> None:
        """Remove the folder and all in it; RunError if it is a link, no run folder, or being written."""
        if self.path.is_symlink():
            raise RunError(f"{self.path} is a link, not a run folder; nothing was deleted")
        if not (self.path / "settings.json").exists():
            raise RunError(f"{self.path} is not a run folder (no settings.json); nothing was deleted")
        with only_writer(self.path):
            # Renamed first: if removing stops half way, no half run is listed.
            doomed = self.path.with_name(f".{self.name}.{secrets.token_hex(4)}.deleted")
            try:
                os.rename(self.path, doomed)
                shutil.rmtree(doomed)
            except OSError as error:
                raise RunError(f"cannot delete {self.path}: {error.strerror or error}") from error

    def _json(self, name: str) -> dict[str, Any]:
        return reading(self.path / name, _object)

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        with replacing(self.path / name, sealed=True) as temporary:
            temporary.write_text(json.dumps(value, indent=1, default=str), encoding="utf-8")


def create(
    name: str,
    settings: Config | Mapping[str, Any],
    *,
    kind: str,
    root_folder: Path | None = None,
    seed: int | None = None,
    hashes: Mapping[str, str] | None = None,
) -> Run:
    """Make a run folder, or reopen the one of this name if its settings are the same (that is how work resumes).

    `hashes` holds model and corpus hashes by name.  RunError if the folder holds other settings, was begun with another
    model or corpus, or is a link.
    """
    path = (root_folder or root()) / check_name(name)
    asked = settings.model_dump(mode="json") if isinstance(settings, Config) else dict(settings)
    asked = json.loads(json.dumps({"kind": kind, **asked}, default=str))
    run = Run(path)
    if path.is_symlink():
        raise RunError(f"{path} is a link; choose another name")
    if (path / "settings.json").exists():
        if digest(run.settings) != digest(asked):
            differing = sorted(k for k in asked | run.settings if asked.get(k) != run.settings.get(k))
            raise RunError(
                f"run '{name}' exists with other settings ({', '.join(differing)}); choose another name or delete it"
            )
        begun: dict[str, str] = run.provenance.get("hashes", {})
        for what, value in (hashes or {}).items():
            if begun.get(what, value) != value:
                raise RunError(f"run '{name}' was begun with another {what}; choose another name or delete it")
        return run
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the run folder {path}: {error.strerror}") from error
    run._write_json("provenance.json", provenance(seed=seed, settings=asked, hashes=hashes))
    run._write_json("settings.json", asked)
    return run


def open_run(name_or_path: str | Path, root_folder: Path | None = None) -> Run:
    """The run of this name under the root folder or among those that ship, else the run folder at this path.

    RunError if there is none.
    """
    path = Path(name_or_path)
    for folder in (root_folder or root(), SHIPPED):
        if _plain(str(name_or_path)) and _is_run(folder / path):
            return Run(folder / path)
    if not _is_run(path) and isinstance(name_or_path, Path):
        raise RunError(f"no run at {path} (it has no settings.json); `sparsescope runs` lists the runs")
    if not _is_run(path):
        path = (root_folder or root()) / check_name(str(name_or_path))
        raise RunError(f"no run '{name_or_path}' (no {path / 'settings.json'}); `sparsescope runs` lists the runs")
    return Run(path)


def list_runs(root_folder: Path | None = None) -> list[Run]:
    """All runs below the root folder, newest first."""
    found = []
    for path in (root_folder or root()).glob("*/settings.json"):
        # A run may be deleted while we look; hidden folders are runs half deleted.
        with contextlib.suppress(FileNotFoundError):
            if _plain(path.parent.name):
                found.append((path.stat().st_mtime, path.parent))
    return [Run(path) for _, path in sorted(found, reverse=True)]


def known_runs() -> list[Run]:
    """The runs below the root folder, newest first, then by name those that ship unless one of its name hides them."""
    own, shipped = list_runs(), sorted(list_runs(SHIPPED), key=lambda run: run.name)  # as installed, no order in time
    return own + [run for run in shipped if run.name not in {one.name for one in own}]


def compare(first: Run, second: Run) -> DataFrame:
    """Settings that differ between two runs: columns `setting, first, second`."""
    a, b = _flat(first.settings), _flat(second.settings)
    rows = [(k, a.get(k), b.get(k)) for k in sorted(a | b) if a.get(k) != b.get(k)]
    return DataFrame(rows, columns=["setting", "first", "second"]).astype(str)


def _is_run(path: Path) -> bool:
    try:
        return (path / "settings.json").exists()
    except OSError:  # a name too long for any file
        return False


def _object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not an object")
    return value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, item in value.items():
        out |= _flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return out
