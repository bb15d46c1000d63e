"""What every verb shares: errors as one sentence, Ctrl-C that says how to go on, a progress line with time left."""

import functools
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from data.progress import Progress  # `data` imports pandas, and `--help` must not wait for that

P = ParamSpec("P")
R = TypeVar("R")

_COUNTED = 500
_ENOUGH = 0.002  # the share of the work after which its time left is worth telling
BAD_INPUT, STOPPED = 2, 130
"""Exit codes: the request cannot be met; stopped by its user (128 + SIGINT)."""


def guard(verb: Callable[P, R]) -> Callable[P, R]:
    """Decorate a verb: ValueError (so RunError too), OSError -> one sentence on stderr and exit 2; Ctrl-C -> 130.

    The sentence is the error's own, so the library must raise errors that teach.  `SPARSESCOPE_TRACEBACK=1` shows the
    traceback instead.  Put it under the typer decorator:  `@verbs.command()` / `@guard` / `def verb(...)`.
    """

    @functools.wraps(verb)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return verb(*args, **kwargs)
        except KeyboardInterrupt:
            _stopped()
        except BrokenPipeError:  # `sparsescope runs | head`: who reads has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except (ValueError, OSError) as error:
            if os.environ.get("SPARSESCOPE_TRACEBACK"):
                raise
            say(f"sparsescope: {sentence(error)}")
            raise typer.Exit(BAD_INPUT) from None
        except Exception as error:
            from data.progress import Cancelled

            if isinstance(error, Cancelled):
                _stopped()
            raise

    return guarded


def _stopped() -> NoReturn:
    say(f"stopped; resume with: {shlex.join(['sparsescope', *sys.argv[1:]])}")
    raise typer.Exit(STOPPED) from None


def sentence(error: Exception) -> str:
    """What an error says to a person, on one line; pydantic's list of complaints becomes `field: complaint; ...`.

    Always text that can be written: an error may quote a name that is no character.
    """
    return _words(error).encode("utf-8", "backslashreplace").decode()


def _words(error: Exception) -> str:
    complaints: Callable[[], list[dict[str, Any]]] | None = getattr(error, "errors", None)
    if type(error).__name__ == "ValidationError" and complaints is not None:
        found = complaints()
        # a bad part makes the whole look too short: what is said of a part is not said again of its whole
        inner = {c["loc"][:depth] for c in found for depth in range(1, len(c["loc"]))}
        return "; ".join(_complaint(c) for c in found if c["loc"] not in inner)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _complaint(said: dict[str, Any]) -> str:
    where, what, given = ".".join(map(str, said["loc"])), str(said["msg"]), said["input"]
    if what.startswith("Input should") and isinstance(given, int | float):
        what = f"{what}, not {given}"
    what = what.removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def say(text: str) -> None:
    """One line on stderr."""
    typer.echo(text, err=True)


@contextmanager
def progress(title: str = "") -> Iterator["Progress"]:
    """A `Progress` callback that draws a bar with rate and time left on stderr, or prints a line every few seconds
    where stderr is not a terminal:  `with progress("sparsity") as tell: sparsity.measure(..., progress=tell)`.
    """
    if sys.stderr.isatty():
        with _bar(title) as tell:
            yield tell
    else:
        yield _Lines(title)


class Pace:
    """Rate and time left of work reported as `done` of `total`; starts again when the work changes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._start = clock()
        self._first = 0.0
        self._last = 0.0
        self._total = -1.0

    def words(self, done: float, total: float) -> str:
        """For example `1,520/s, 12 s left`; empty until something moved, and no rate of shares or of a few parts."""
        now = self._clock()
        if total != self._total or done < self._last:
            self._start, self._first, self._total = now, done, total
        self._last = done
        if done <= self._first or now <= self._start:
            return ""
        rate = (done - self._first) / (now - self._start)
        words = [f"{_short(rate)}/s"] if total >= _COUNTED else []
        if total > done and done - self._first >= total * _ENOUGH:
            words.append(f"{duration((total - done) / rate)} left")
        return ", ".join(words)


def duration(seconds: float) -> str:
    """`8 s`, `2 min 05 s`, `1 h 10 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


@contextmanager
def _bar(title: str) -> Iterator["Progress"]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.fields[pace]}"))
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=None, pace="")
        pace = Pace()

        def tell(done: float, total: float, note: str = "") -> None:
            label = f"{title}: {note}" if title and note else title or note
            label = label.replace("[", "\\[")  # a note may hold text that rich would take for markup
            bars.update(task, completed=done, total=total, description=label, pace=pace.words(done, total))

        yield tell


class _Lines:
    """Progress for a log file: one line at most every `every` seconds, and the last one."""

    def __init__(self, title: str, every: float = 5.0):
        self._title, self._every = title, every
        self._told = -every
        self._pace = Pace()

    def __call__(self, done: float, total: float, note: str = "") -> None:
        pace = self._pace.words(done, total)
        if time.monotonic() - self._told < self._every and done < total:
            return
        self._told = time.monotonic()
        share = f"{done / total:4.0%}" if total else "    "
        say("  ".join(part for part in (self._title, share, note, pace) if part))
