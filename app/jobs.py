"""Long work in its own process, watched through its run folder.

A job is a run folder and a process that fills it: `python -m app.jobs RUN_FOLDER` reads the folder's `settings.json`,
looks up what its `kind` means in `WORK`, and does it.  How far it is stands in `progress.json`, what it printed in
`log.txt`.  Nothing is kept in the memory of who started it, so a job outlives a page reload and a server restart, and
any process can list, watch or cancel it.

States: `new`, `running`, `done`, `failed`, `cancelled` as written by the process, and `died` as told by its absence.
"""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from app.telling import Pace, sentence
from data.files import appended
from data.progress import Cancelled, Progress
from data.runs import Run, RunError, list_runs

Work = Callable[[Run, Progress], object]

WORK = {
    "demo": "app.demo:measure",
    "probe.sparsity": "app.sparsity:work",
    "toy.experiment": "app.toys:do_experiment",
    "toy.sweep": "app.toys:do_sweep",
    "probe.coherence": "app.coherence:work",
    "probe.separability": "app.routers:separate",
    "probe.router": "app.routers:read_routers",
    "probe.keep": "app.laziness:keep",
    "probe.kinds": "app.laziness:kinds",
    "probe.ladder": "app.laziness:ladder",
    "probe.rank": "app.rank:work",
    "probe.memory": "app.memory:work",
    "probe.sae": "app.saes:work",
    "probe.secret": "app.secret:work",
    "probe.experts": "app.routing:work",
    "probe.worth": "app.worth:work",
    "probe.snapshots": "app.snapshots:work",
    "series": "app.series:work",
    "emergence.two_layer": "app.experiments:two_layer",
    "emergence.training": "app.experiments:training",
}
"""Kind of run -> `module:function(run, progress)`.  A run folder names its kind and never code, so that opening a
folder somebody sent cannot run anything that is not listed here."""

LOG = "log.txt"
STOPPED = ("cancelled", "failed", "died")
"""States from which a job can be taken up again."""


def carry_out(run: Run, work: Work, tell: Progress | None = None, every: float = 0.5) -> None:
    """Do `work` here, keeping the run's progress.json true: running while it runs, then done, failed or cancelled.

    `tell` hears of every step as well; progress.json is rewritten at most once in `every` seconds.  Errors pass through
    after they were recorded as one sentence.  RunError if another process is at work on the run.
    """
    pace, written, last = Pace(), -every, (0.0, 0.0, "")
    started = time.time()

    def report(state: str, **more: Any) -> None:
        run.report(state, *last, started=started, **more)

    def progress(done: float, total: float, note: str = "") -> None:
        nonlocal written, last
        last = (done, total, note)
        words = pace.words(done, total)
        if time.monotonic() - written >= every:
            written = time.monotonic()
            report("running", pace=words)
        if tell:
            tell(done, total, note)

    with run.writing(), _terminable():
        report("running")
        try:
            work(run, progress)
        except (Cancelled, KeyboardInterrupt):
            report("cancelled")
            raise
        except Exception as error:
            report("failed", error=sentence(error))
            raise
        last = (last[1] or 1, last[1] or 1, "")
        report("done", seconds=round(time.time() - started, 1))


def start(run: Run, command: Sequence[str] = (sys.executable, "-m", "app.jobs"), wait: float = 15.0) -> int:
    """Start the run's work in a process of its own session; returns its id once it has reported for the first time.

    RunError if the run is being worked on already, if its settings let code that a model brings run (run folders change
    hands, and a button asks nobody), or if the process ends without a word (its log says why).
    """
    if trusts(run.asked):
        raise RunError(
            f"run '{run.name}' lets code that its model brings run; read that code, then give the command of the run "
            "again with --trust-remote-code"
        )
    if state(run) == "running":
        raise RunError(f"run '{run.name}' is already being worked on (process {run.progress.get('pid')})")
    with appended(run.path / LOG) as log:
        process = subprocess.Popen(
            [*command, str(run.path.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline and run.progress.get("pid") != process.pid:
        if process.poll() is not None and run.progress.get("pid") != process.pid:
            run.report("failed", pid=process.pid, error="the job ended before it began; its log says why")
            raise RunError(f"run '{run.name}' could not be started: {log_tail(run, 1).strip() or 'no log was written'}")
        time.sleep(0.05)
    return process.pid


def trusts(settings: Any) -> bool:
    """Whether settings, however deep, say that code which a model brings may run."""
    if isinstance(settings, Mapping):
        return bool(settings.get("trust_remote_code")) or any(map(trusts, settings.values()))
    return isinstance(settings, list) and any(map(trusts, settings))


def state(run: Run) -> str:
    """What is going on with the run: what its progress.json says, or `died` if it says running and nobody runs it."""
    told = run.progress
    if told["state"] == "running" and not _alive(told):
        return "died"
    return str(told["state"])


def describe(run: Run) -> str:
    """The run's state as one sentence for a person."""
    told, now = run.progress, state(run)
    if now == "died":
        return "its process ended without saying why (killed, or the machine went down); start it again to go on"
    if now == "failed":
        return f"failed: {told.get('error', 'no reason was recorded')}"
    if now == "running":
        return ", ".join(part for part in (told.get("note"), told.get("pace")) if part) or "starting"
    if now == "cancelled":
        return "cancelled; start it again to go on from the last whole shard"
    return {"done": "finished", "new": "not measured yet"}.get(now, now)


def cancel(run: Run, patience: float = 8.0) -> str:
    """Stop the run's process (SIGTERM, then SIGKILL after `patience` seconds) and return the state it is left in."""
    told = run.progress
    if state(run) == "running":
        if told["pid"] == os.getpid():
            raise RunError(f"run '{run.name}' is worked on by this very process; stop it with Ctrl-C")
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(told["pid"])
            family = [*process.children(recursive=True), process]
            process.terminate()
            _, stubborn = psutil.wait_procs([process], timeout=patience)
            for one in family if stubborn else family[:-1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(family, timeout=2)
        after = run.progress
        if after["state"] == "running":
            run.report("cancelled", after["done"], after["total"], after["note"], pid=after["pid"])
    return state(run)


def jobs(root_folder: Path | None = None) -> list[Run]:
    """Runs that a process of their own has worked on, or any process is working on, newest first."""
    return [run for run in list_runs(root_folder) if (run.path / LOG).exists() or is_running(run)]


def log_tail(run: Run, lines: int = 200) -> str:
    """The last lines of what the job printed (at most 64 KiB)."""
    path = run.path / LOG
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65536))
        return "\n".join(file.read().decode("utf-8", errors="replace").splitlines()[-lines:])


def is_running(run: Run) -> bool:
    """Whether a process works on the run; False as well where its progress.json cannot be read."""
    with contextlib.suppress(RunError):
        return state(run) == "running"
    return False


def _alive(told: dict[str, Any]) -> bool:
    """Whether the process that wrote this progress lives; a later process that got its number does not count."""
    try:
        process = psutil.Process(told["pid"])
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= told["at"] + 1
    except (psutil.Error, KeyError):
        return False


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into `Cancelled`, wherever the work is; only a process's main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Cancelled

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m app.jobs RUN_FOLDER`: do the run's work; 0 done, 1 failed, 130 cancelled."""
    (folder,) = sys.argv[1:] if arguments is None else arguments
    run = Run(Path(folder))
    try:
        carry_out(run, work_of(run.kind))
    except (Cancelled, KeyboardInterrupt):
        print("cancelled")
        return 130
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def work_of(kind: str) -> Work:
    """What a kind of run means; imported only when the work begins, so that the first report comes at once.

    The work raises RunError for a kind that is not in `WORK`.
    """

    def work(run: Run, progress: Progress) -> object:
        if kind not in WORK:
            raise RunError(f"nothing here measures a run of kind '{kind}'; known kinds: {', '.join(sorted(WORK))}")
        module, function = WORK[kind].split(":")
        found: Work = getattr(importlib.import_module(module), function)
        return found(run, progress)

    return work


if __name__ == "__main__":
    sys.exit(main())
