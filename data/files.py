"""Files that are either old or new, never half; that know when they were damaged; written by one process at a time."""

import contextlib
import errno
import hashlib
import math
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from safetensors import SafetensorError

T = TypeVar("T")


class RunError(ValueError):
    """A run that cannot be read or written; the message is one sentence for a person."""


@contextlib.contextmanager
def replacing(path: Path, *, sealed: bool = False) -> Iterator[Path]:
    """A temporary path, for a file or a folder, that takes the place of `path` when the block ends well.

    `sealed` keeps the SHA-256 (of each file of a folder) in a hidden neighbour, which `reading` and `check_folder`
    compare.  RunError if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            yield temporary
            if temporary.is_dir():
                for file in sorted(temporary.iterdir()) if sealed else ():
                    _seal(file, file)
                shutil.rmtree(path, ignore_errors=True)
            elif sealed:
                _seal(temporary, path)
            os.replace(temporary, path)
        finally:
            _remove(temporary)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    except SafetensorError as error:  # how it tells of a full disk
        raise RunError(f"cannot write {path}: {str(error).splitlines()[0]}") from error


def reading(path: Path, read: Callable[[Path], T]) -> T:
    """`read(path)`; RunError naming the file if it is missing, unreadable or not as it was written."""
    if not path.exists():
        raise RunError(f"{path.name} is missing from run '{path.parent.name}'")
    try:
        if not unbroken(path):
            raise ValueError("its bytes changed since it was written")
        return read(path)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RunError(f"{path} cannot be read ({reason}); delete that file or the run and measure again") from error


def mapped(path: Path, shape: tuple[int, ...], kind: type) -> np.memmap:
    """A new .npy file of this shape, mapped for writing; OSError if the disk has no room for it."""
    found = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
    with path.open("r+b") as file:
        _take_room(file.fileno(), path.stat().st_size)
    return found


def scratch(shape: tuple[int, ...], kind: type) -> np.memmap:
    """Zeros in a temporary file that goes with the array; RunError if the disk has no room for them."""
    n_bytes = math.prod(shape) * np.dtype(kind).itemsize
    try:
        # unlinked at once: the space is free again when the array is
        with tempfile.TemporaryFile(prefix="sparsescope-") as file:
            _take_room(file.fileno(), n_bytes)
            return np.memmap(file, dtype=kind, mode="w+", shape=shape)
    except OSError as error:
        raise RunError(
            f"no room for {n_bytes / 1e6:,.1f} MB in {tempfile.gettempdir()} ({error.strerror or error}); "
            "free some, or set TMPDIR to a folder on a larger disk"
        ) from error


def _take_room(file: int, n_bytes: int) -> None:
    """Take a file's room at once: on a disk that fills up later, writing to mapped memory ends the process unheard."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    try:
        os.posix_fallocate(file, 0, n_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):  # a file system that cannot
            raise


@contextlib.contextmanager
def only_writer(folder: Path, *, nested: bool = False) -> Iterator[None]:
    """Keep every other process and thread from writing to the folder during the block.

    The lock is the system's (`flock`) and dies with its process, so a killed run leaves nothing to clean up; the file
    `.lock` only says who holds it.  RunError naming that process if the folder is taken; `nested` is content if it is
    this very process, or the one that started it.
    """
    try:
        import fcntl
    except ImportError:  # not a Unix system: writers are trusted to be alone
        yield
        return
    with appended(folder / ".lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            if nested and holder.startswith((f"process {os.getpid()} ", f"process {os.getppid()} ")):
                yield
                return
            raise RunError(f"run '{folder.name}' is being written by {holder}; wait for it or stop it") from error
        try:
            lock.truncate(0)
            lock.write(f"process {os.getpid()} since {time.strftime('%H:%M:%S')}")
            lock.flush()
            yield
        finally:
            with contextlib.suppress(OSError):  # the folder may be gone by now: it was deleted under its lock
                lock.truncate(0)


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process is in a block for this path: for a file that is read, changed and written again."""
    try:
        import fcntl
    except ImportError:  # not a Unix system: writers are trusted to be alone
        yield
        return
    with appended(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def appended(path: Path) -> IO[str]:
    """The file opened to be read and added to; RunError if it cannot be, or is a link: run folders change hands."""
    try:
        return open(path, "a+", encoding="utf-8", opener=_without_links)
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror or str(error)
        raise RunError(f"cannot write {path}: {reason}") from error


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def sweep(folder: Path) -> None:
    """Remove what a killed writer left behind, temporary or half deleted; call it as the only writer."""
    for path in (*folder.glob(".*.tmp"), *folder.glob(".*.deleted")):
        _remove(path)


def unbroken(path: Path) -> bool:
    """Whether the file's bytes are those it was sealed with; a file without a seal counts as whole."""
    for _ in range(3):  # a writer may exchange file and seal between our two looks
        neighbour = _seal_of(path)
        known = neighbour.read_text(encoding="ascii", errors="replace").split() if neighbour.exists() else None
        if known is None or _sum(path) in known:
            return True
    return False


def check_folder(folder: Path) -> None:
    """RunError naming the first file in the folder whose bytes are not those it was sealed with."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and not unbroken(path):
            raise RunError(
                f"{path} cannot be read (its bytes changed since it was written); delete it and make it again"
            )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _seal(temporary: Path, path: Path) -> None:
    # New and old sums are listed before the file is exchanged: a kill in between, even a few in a row, leaves a file
    # that is known.
    neighbour = _seal_of(path)
    old = neighbour.read_text(encoding="ascii", errors="replace").split()[:3] if neighbour.exists() else []
    with replacing(neighbour) as other:
        other.write_text("\n".join([_sum(temporary), *old]) + "\n", encoding="ascii")


def _seal_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
