"""Jobs: real processes, watched, cancelled, killed and found dead."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from app import jobs
from data import Cancelled, Run, RunError
from data.runs import create

WORKS = """
import sys, time
def quick(run, progress):
    progress(3, 4, "<b>nearly</b>")
    progress(4, 4, "there")
    print("said something")
def endless(run, progress):
    i = 0
    while True:
        i += 1
        progress(i, 10**9, "counting")
        time.sleep(0.01)
def deaf(run, progress):
    progress(1, 2, "sleeping")
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass
def wrong(run, progress):
    raise ValueError("k=9 exceeds n=4; choose k <= 4")
"""


@pytest.fixture
def launch(tmp_path: Path):
    (tmp_path / "works.py").write_text(WORKS)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from app import jobs; "
        "jobs.WORK.update({k: f'works:{k}' for k in ('quick', 'endless', 'deaf', 'wrong')}); sys.exit(jobs.main())"
    )
    started: list[Run] = []

    def go(kind: str, name: str = "a") -> Run:
        run = create(name, {}, kind=kind, root_folder=tmp_path / "runs")
        jobs.start(run, command=(sys.executable, "-c", code))
        started.append(run)
        return run

    yield go
    for run in started:
        if jobs.state(run) == "running":
            psutil.Process(run.progress["pid"]).kill()


def wait_for(run: Run, *states: str, seconds: float = 20) -> str:
    deadline = time.monotonic() + seconds
    while jobs.state(run) not in states and time.monotonic() < deadline:
        time.sleep(0.05)
    return jobs.state(run)


def test_a_job_reports_finishes_and_leaves_a_log(launch) -> None:
    run = launch("quick")
    assert wait_for(run, "done") == "done"
    assert run.progress["done"] == run.progress["total"] == 4
    assert jobs.log_tail(run).strip() == "said something"
    assert [r.name for r in jobs.jobs(run.path.parent)] == ["a"]


def test_an_error_becomes_its_sentence_and_the_traceback_goes_to_the_log(launch) -> None:
    run = launch("wrong")
    assert wait_for(run, "failed") == "failed"
    assert jobs.describe(run) == "failed: k=9 exceeds n=4; choose k <= 4"
    assert "Traceback" in jobs.log_tail(run)


def test_cancel_stops_the_process_and_it_can_be_started_again(launch) -> None:
    run = launch("endless")
    pid = run.progress["pid"]
    assert jobs.state(run) == "running"
    with pytest.raises(RunError, match="already being worked on"):
        jobs.start(run)
    assert jobs.cancel(run) == "cancelled"
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert jobs.state(launch("endless")) == "running"


def test_cancel_ends_a_process_that_does_not_listen(launch) -> None:
    run = launch("deaf")
    jobs.cancel(run, patience=0.5)
    assert jobs.state(run) == "cancelled"
    assert not jobs._alive(run.progress | {"at": time.time()})


def test_a_killed_job_is_told_from_a_running_one(launch) -> None:
    run = launch("endless")
    os.kill(run.progress["pid"], signal.SIGKILL)
    assert wait_for(run, "died") == "died"
    assert "start it again" in jobs.describe(run)


def test_a_reused_process_number_is_not_mistaken_for_the_job(tmp_path: Path) -> None:
    run = create("a", {}, kind="quick", root_folder=tmp_path)
    run.report("running", at=time.time() - 10**6)  # this test's own process, which began after that
    assert jobs.state(run) == "died"
    run.report("running")
    assert jobs.state(run) == "running"


def test_a_job_outlives_who_started_it(tmp_path: Path) -> None:
    (tmp_path / "works.py").write_text(WORKS)
    child = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from app import jobs; "
        "jobs.WORK['endless'] = 'works:endless'; sys.exit(jobs.main())"
    )
    starter = (
        "import sys; from pathlib import Path; from app import jobs; from data.runs import create; "
        f"run = create('a', {{}}, kind='endless', root_folder=Path({str(tmp_path)!r})); "
        f"jobs.start(run, command=(sys.executable, '-c', {child!r}))"
    )
    subprocess.run([sys.executable, "-c", starter], check=True)
    run = Run(tmp_path / "a")
    assert jobs.state(run) == "running"
    assert jobs.cancel(run) == "cancelled"


def test_a_folder_cannot_name_code_to_run(tmp_path: Path) -> None:
    run = create("a", {}, kind="os:system", root_folder=tmp_path)
    jobs.start(run)
    assert wait_for(run, "failed") == "failed"
    assert "nothing here measures a run of kind 'os:system'" in jobs.describe(run)


def test_work_done_here_is_recorded_like_a_job(tmp_path: Path) -> None:
    run = create("a", {}, kind="x", root_folder=tmp_path)
    heard = []
    jobs.carry_out(run, lambda run, progress: progress(1, 2, "half"), lambda *a: heard.append(a))
    assert heard == [(1, 2, "half")]
    assert run.progress["state"] == "done"

    def stop(run, progress):
        raise Cancelled

    with pytest.raises(Cancelled):
        jobs.carry_out(run, stop)
    assert run.progress["state"] == "cancelled"
