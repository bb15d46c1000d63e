"""Pieces of work side by side, each in a process with one thread, heard of through a pipe.

Two processes of one thread do more in a second than one process of two: most of a measurement is too small to share.
And numbers do not depend on how many processors there are.  A process takes the next piece when it is done with one,
so that libraries are loaded once; one that dies takes only its own piece along, and all end with who started them.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, NamedTuple

from app.telling import sentence
from data.progress import Progress

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
EVERY = 0.2
"""Seconds between two words of a process on how far it is."""
MOST = 4
"""Processes at once, however many processors there are."""
ROOM = 2 * 2**30
"""Bytes of memory that a process is given."""


@dataclass(frozen=True)
class Piece:
    """Work to be done somewhere; it is sent there, so `work` is a function of a module, or a `partial` of one."""

    name: str
    work: Callable[[Progress], object]
    after: str = ""
    """Piece that must have ended, well or not, before this one begins."""


class Told(NamedTuple):
    """What was heard of a piece."""

    name: str
    state: str
    """begun, running, done or failed."""
    share: float = 0.0
    """Of its work that is done."""
    note: str = ""
    """What it does now, or why it failed."""


def at_once() -> int:
    """Processes that this machine has processors and memory for."""
    import psutil

    known: Any = getattr(os, "sched_getaffinity", None)
    processors = len(known(0)) if known else os.cpu_count() or 1
    return max(1, min(processors, MOST, psutil.virtual_memory().available // ROOM))


def carried_out(pieces: Sequence[Piece], workers: int) -> Generator[Told, None, None]:
    """Do all pieces, `workers` of them at a time, in their order where `after` does not delay one.

    Closing the iterator, or an error while it waits, ends what is still being done.
    """
    waiting, hired = list(pieces), list[_Worker]()
    try:
        while waiting or any(worker.piece for worker in hired):
            for piece in _ready(waiting, hired):
                free = next((worker for worker in hired if not worker.piece), None)
                if free is None and len(hired) < workers:
                    hired.append(free := _Worker())
                if free is None:
                    break
                waiting.remove(piece)
                free.give(piece)
                yield Told(piece.name, "begun")
            heard = connection.wait([worker.line for worker in hired])
            for worker in [worker for worker in hired if worker.line in heard]:
                told, alive = worker.told()
                if not alive:
                    hired.remove(worker)
                    worker.end()
                if told is not None:
                    yield told
    finally:
        for worker in hired:
            worker.end()


def _ready(waiting: Sequence[Piece], hired: "Sequence[_Worker]") -> list[Piece]:
    unfinished = {piece.name for piece in waiting} | {worker.piece.name for worker in hired if worker.piece}
    return [piece for piece in waiting if piece.after not in unfinished]


class _Worker:
    """A process that does one piece after another."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.line, theirs = context.Pipe()
        self.piece: Piece | None = None
        self.process = context.Process(target=_work, args=(theirs,))
        with _one_thread():
            self.process.start()
        theirs.close()

    def give(self, piece: Piece) -> None:
        """Have it do the piece."""
        self.line.send(piece)
        self.piece = piece

    def told(self) -> tuple[Told | None, bool]:
        """What it says now of its piece, if it has one, and whether it lives."""
        alive, name = True, self.piece.name if self.piece else None
        try:
            said = self.line.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            alive, said = False, ("failed", 0.0, f"its process ended with code {self.process.exitcode}; out of memory?")
        if said[0] != "running":
            self.piece = None
        return (None if name is None else Told(name, *said)), alive

    def end(self) -> None:
        """Stop it, whatever it does."""
        self.process.terminate()
        self.process.join(5)
        self.process.kill()
        self.process.join()
        self.line.close()


def _work(line: Any) -> None:
    """The process of a worker: every piece that comes through the line, until nobody is at its other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; who started this one ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            piece: Piece = line.recv()
        except EOFError:
            return
        try:
            piece.work(_relay(line))
            line.send(("done", 1.0, ""))
        except Exception as error:
            traceback.print_exc()
            line.send(("failed", 0.0, sentence(error)))


def _relay(line: Any) -> Progress:
    said = -EVERY

    def progress(done: float, total: float, note: str = "") -> None:
        nonlocal said
        if time.monotonic() - said >= EVERY:
            said = time.monotonic()
            line.send(("running", done / total if total else 0.0, note))

    return progress


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers, and nobody else may write meanwhile."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started meanwhile have one thread, for libraries that ask their environment when they are loaded."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
