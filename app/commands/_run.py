"""What every verb shares: errors as one sentence, Ctrl-C that says how to go on, a progress line with time left."""

import functools
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

import typer

from app.telling import Pace, sentence

if TYPE_CHECKING:  # `data` imports pandas, and `--help` must not wait for that
    from app.jobs import Work
    from data.config import Config
    from data.progress import Progress
    from data.runs import Run

P = ParamSpec("P")
R = TypeVar("R")

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


def say(text: str) -> None:
    """One line on stderr."""
    typer.echo(text, err=True)


def measured(
    what: str,
    config: "Config",
    work: "Work",
    *,
    kind: str | None = None,
    name: str | None = None,
    seed: int = 0,
    out: Path | None = None,
    again: bool = True,
) -> "Run":
    """Make or take up the run of these settings, do its work under a progress line, and hand the run back.

    Its kind is `kind`, else `probe.WHAT`.  It is the folder `out`, else called `name` among the runs, else
    `WHAT-DIGEST` of its settings.  `again` looks whether a run that is done lacks anything.
    """
    from app import jobs
    from data.runs import create

    folder = out and out.resolve()
    called = folder.name if folder else name or f"{what}-{config.digest()}"
    where = folder and folder.parent
    run = create(called, config, kind=kind or f"probe.{what}", root_folder=where, seed=seed)
    if again or run.progress["state"] != "done":
        with progress(what) as tell:
            jobs.carry_out(run, work, tell)
    return run


def tell_where(run: "Run", page: str) -> None:
    """The last line of a measuring verb: where its tables are, and what shows them."""
    typer.echo(f"run '{run.name}' is measured ({run.path}); `sparsescope app --run {run.name} --page {page}` shows it")


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
