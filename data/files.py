"""Files that are either old or new, never half; that know when they were damaged; written by one process at a time."""

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class RunError(ValueError):
    """A run that cannot be read or written; the message is one sentence for a person."""


@contextlib.contextmanager
def replacing(path: Path, *, sealed: bool = False) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends well; RunError if it cannot be written.

    `sealed` keeps the file's SHA-256 in a hidden neighbour, which `reading` compares.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            yield temporary
            if sealed:
                _seal(temporary, path)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def reading(path: Path, read: Callable[[Path], T]) -> T:
    """`read(path)`; RunError naming the file if it is missing, unreadable or not as it was written."""
    if not path.exists():
        raise RunError(f"{path.name} is missing from run '{path.parent.name}'")
    try:
        if not _unbroken(path):
            raise ValueError("its bytes changed since it was written")
        return read(path)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RunError(f"{path} cannot be read ({reason}); delete that file or the run and measure again") from error


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep every other process and thread from writing to the folder during the block.

    The lock is the system's (`flock`) and dies with its process, so a killed run leaves nothing to clean up; the file
    `.lock` only says who holds it.  RunError naming that process if the folder is taken.
    """
    try:
        import fcntl
    except ImportError:  # not a Unix system: writers are trusted to be alone
        yield
        return
    path = folder / ".lock"
    try:
        lock = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise RunError(f"run '{folder.name}' is being written by {holder}; wait for it or stop it") from error
        try:
            lock.truncate(0)
            lock.write(f"process {os.getpid()} since {time.strftime('%H:%M:%S')}")
            lock.flush()
            yield
        finally:
            with contextlib.suppress(OSError):  # the folder may be gone by now: it was deleted under its lock
                lock.truncate(0)


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed writer left behind; call it as the only writer."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _seal(temporary: Path, path: Path) -> None:
    # Old and new sum are both listed before the file is exchanged: a kill in between leaves a file that is known.
    seal = _seal_of(path)
    old = seal.read_text(encoding="ascii").split()[:1] if seal.exists() else []
    with replacing(seal) as other:
        other.write_text("\n".join([_sum(temporary), *old]) + "\n", encoding="ascii")


def _unbroken(path: Path) -> bool:
    for _ in range(3):  # a writer may exchange file and seal between our two looks
        seal = _seal_of(path)
        known = seal.read_text(encoding="ascii", errors="replace").split() if seal.exists() else []
        if not known or _sum(path) in known:
            return True
    return False


def _seal_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
