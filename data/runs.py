"""The only reader and writer of run folders.

A run is a folder `ROOT/NAME/` that holds

    settings.json      what was asked for (a Config, as JSON, plus `kind`)
    provenance.json    versions, seed, commit, model and corpus hashes, when and where
    progress.json      state (running / done / failed / cancelled), done, total, rate, note, error
    TABLE.parquet      tidy frames, zstd
    NAME.safetensors   tensors (float32 or integers; bfloat16 has no numpy type and is refused)

Every file is written to a temporary neighbour and renamed, so that a reader sees the old file or the new one.
"""

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pandas import DataFrame

from data.config import Config, digest
from data.tables import Tables

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_VERSIONED = (
    "sparsescope",
    "torch",
    "transformers",
    "transformer-lens",
    "sae-lens",
    "numpy",
    "pandas",
    "spacy",
)


class RunError(ValueError):
    """A run that cannot be read or written; the message is one sentence for a person."""


def root() -> Path:
    """Folder of runs: `$SPARSESCOPE_RUNS`, else `./runs`."""
    return Path(os.environ.get("SPARSESCOPE_RUNS", "runs"))


def check_name(name: str) -> str:
    """`name` if it is a plain file name, else RunError: no separators, no leading dot, at most 128 characters."""
    if not _NAME.match(name) or ".." in name:
        raise RunError(f"'{name}' is not a run name; use letters, digits, '.', '_' and '-' (at most 128)")
    return name


class Run:
    """One run folder."""

    def __init__(self, path: Path):
        self.path = Path(path)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for."""
        return self._json("settings.json")

    @property
    def kind(self) -> str:
        """What made the run, e.g. `probe.sparsity` or `demo`."""
        return self.settings.get("kind", "unknown")

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, seed, commit, hashes."""
        return self._json("provenance.json")

    @property
    def progress(self) -> dict[str, Any]:
        """State and how far the work is; `{"state": "new"}` before it starts."""
        return self._json("progress.json") if (self.path / "progress.json").exists() else {"state": "new"}

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
        return _reading(self.path / f"{check_name(name)}.parquet", lambda p: pd.read_parquet(p, columns=columns))

    def tables(self) -> Tables:
        """All frames of the run."""
        return Tables({name: self.table(name) for name in self.table_names()})

    def save_table(self, name: str, frame: DataFrame) -> None:
        """Write a frame as zstd parquet."""
        with _replacing(self.path / f"{check_name(name)}.parquet") as temporary:
            frame.to_parquet(temporary, compression="zstd", index=False)

    def save_tables(self, tables: Mapping[str, DataFrame]) -> None:
        """Write several frames."""
        for name, frame in tables.items():
            self.save_table(name, frame)

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """Arrays by key from NAME.safetensors."""
        from safetensors.numpy import load_file

        return _reading(self.path / f"{check_name(name)}.safetensors", load_file)

    def save_tensors(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write arrays as NAME.safetensors."""
        from safetensors.numpy import save_file

        with _replacing(self.path / f"{check_name(name)}.safetensors") as temporary:
            save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, temporary)

    def delete(self) -> None:
        """Remove the folder and all in it."""
        if self.path.is_symlink() or not (self.path / "settings.json").exists():
            raise RunError(f"{self.path} is not a run folder (no settings.json); nothing was deleted")
        shutil.rmtree(self.path)

    def _json(self, name: str) -> dict[str, Any]:
        return _reading(self.path / name, lambda p: json.loads(p.read_text(encoding="utf-8")))

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        with _replacing(self.path / name) as temporary:
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

    `hashes` holds model and corpus hashes by name.  RunError if the folder holds other settings.
    """
    path = (root_folder or root()) / check_name(name)
    asked = settings.model_dump(mode="json") if isinstance(settings, Config) else dict(settings)
    asked = json.loads(json.dumps({"kind": kind, **asked}, default=str))
    run = Run(path)
    if (path / "settings.json").exists():
        if digest(run.settings) != digest(asked):
            differing = sorted(k for k in asked | run.settings if asked.get(k) != run.settings.get(k))
            raise RunError(
                f"run '{name}' exists with other settings ({', '.join(differing)}); choose another name or delete it"
            )
        return run
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the run folder {path}: {error.strerror}") from error
    run._write_json("provenance.json", provenance(seed=seed, settings=asked, hashes=hashes))
    run._write_json("settings.json", asked)
    return run


def open_run(name_or_path: str | Path, root_folder: Path | None = None) -> Run:
    """The run of this name under the root folder, or at this path."""
    path = Path(name_or_path)
    if not (path / "settings.json").exists():
        path = (root_folder or root()) / check_name(str(name_or_path))
    if not (path / "settings.json").exists():
        raise RunError(f"no run '{name_or_path}' (no {path / 'settings.json'}); `sparsescope runs` lists the runs")
    return Run(path)


def list_runs(root_folder: Path | None = None) -> list[Run]:
    """All runs below the root folder, newest first."""
    found = [Run(p.parent) for p in (root_folder or root()).glob("*/settings.json")]
    return sorted(found, key=lambda run: (run.path / "settings.json").stat().st_mtime, reverse=True)


def compare(first: Run, second: Run) -> DataFrame:
    """Settings that differ between two runs: columns `setting, first, second`."""
    a, b = _flat(first.settings), _flat(second.settings)
    rows = [(k, a.get(k), b.get(k)) for k in sorted(a | b) if a.get(k) != b.get(k)]
    return DataFrame(rows, columns=["setting", "first", "second"]).astype(str)


def provenance(
    *, seed: int | None, settings: Mapping[str, Any], hashes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """All that is needed to make the run again: versions, seed, commit, settings digest, hashes, machine, time."""
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings_digest": digest(settings),
        "seed": seed,
        "commit": _commit(),
        "hashes": dict(hashes or {}),
        "versions": {name: v for name in _VERSIONED if (v := _version(name))},
        "python": sys.version.split()[0],
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    here = Path(__file__).resolve().parent
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
        return found.stdout.strip() or None
    return None


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, item in value.items():
        out |= _flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return out


def _reading(path: Path, read: Callable[[Path], T]) -> T:
    if not path.exists():
        raise RunError(f"{path.name} is missing from run '{path.parent.name}'")
    try:
        return read(path)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RunError(f"{path} cannot be read ({reason}); delete that file or the run and measure again") from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends well."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
