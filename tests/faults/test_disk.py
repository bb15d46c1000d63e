"""A disk that is full, a folder that cannot be written, and a second process: a sentence, and nothing is lost."""

import errno
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from app.cli import cli
from data.files import RunError, only_writer, scratch
from probes.secret.pairs import Pairs, under
from tests.faults.work import KINDS, Refused, do, forks, results, unequal

Whole = Callable[[str], tuple[Path, int]]
PAGES = Path(__file__).parents[2] / "app" / "pages"


def mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 200 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)):
        pytest.skip("this user may not mount a disk to fill")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_told_and_with_more_room_it_goes_on(kind: str, inputs: Path, whole: Whole, disk: Path) -> None:
    size = sum(p.stat().st_size for p in whole(kind)[0].rglob("*") if p.is_file())
    assert mount("-o", f"remount,size={size // 3000}k", str(disk)), "a third of what is needed"
    with pytest.raises(Refused, match="No space left on device"):
        do(kind, inputs, disk)
    assert mount("-o", "remount,size=100m", str(disk))
    assert do(kind, inputs, disk) is not None
    assert not unequal(results(kind, disk), results(kind, whole(kind)[0]))
    assert not list((disk / "run").glob(".*.tmp"))


def make_rows(condition: str, n: int, place: Path, told: Path) -> None:
    """Inputs or outputs of a layer in a temporary file at `place`; `told` gets their spread, or why there are none."""
    tempfile.tempdir = str(place)
    real = Pairs.of(torch.randn(n, 64), torch.randn(n, 64))
    try:
        made = under(condition, real, lambda rows: rows)  # type: ignore[arg-type]
        told.write_text(str(float(made.y.std())))
    except ValueError as error:
        told.write_text(str(error))


@pytest.mark.parametrize("condition", ["random_teacher", "gaussian", "shuffled"])
def test_a_full_disk_for_temporary_files_is_told(condition: str, disk: Path, tmp_path: Path) -> None:
    """Writing to memory mapped from a file that the disk cannot hold would end the process without a word."""
    told = {}
    for n in (100, 1_000):  # up to 51 and 512 kB on a disk of 200
        process = forks().Process(target=make_rows, args=(condition, n, disk, tmp_path / "told"))
        process.start()
        process.join()
        assert process.exitcode == 0
        told[n] = (tmp_path / "told").read_text()
    assert float(told[100]) == pytest.approx(1, abs=0.1)
    assert told[1_000].startswith(f"no room for 0.3 MB in {disk} (No space left on device); free some, or set TMPDIR")
    assert not list(disk.iterdir())


def test_a_file_system_that_cannot_take_room_beforehand_is_used_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> Callable[..., None]:
        def fallocate(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return fallocate

    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.EOPNOTSUPP))
    assert scratch((3, 2), np.float32).tolist() == [[0.0, 0.0]] * 3
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.ENOSPC))
    with pytest.raises(RunError, match=r"no room for 0\.0 MB in"):
        scratch((3, 2), np.float32)


@pytest.mark.parametrize("kind", ["sweep", "train"])
def test_a_read_only_folder_is_told_and_later_it_goes_on(kind: str, inputs: Path, whole: Whole, disk: Path) -> None:
    place, events = whole(kind)
    assert mount("-o", "remount,size=100m", str(disk))
    assert do(kind, inputs, disk, at=round(0.6 * events)) is None
    assert mount("-o", "remount,ro", str(disk))
    with pytest.raises(Refused, match="Read-only file system"):
        do(kind, inputs, disk)
    assert mount("-o", "remount,rw", str(disk))
    assert do(kind, inputs, disk) is not None
    assert not unequal(results(kind, disk), results(kind, place))


@pytest.mark.parametrize("kind", ["stream", "train"])
def test_a_second_process_is_told_who_the_first_is(kind: str, inputs: Path, whole: Whole, tmp_path: Path) -> None:
    place, events = whole(kind)
    assert do(kind, inputs, tmp_path, at=round(0.4 * events)) is None
    with only_writer(tmp_path / "run"), pytest.raises(Refused, match=r"being written by process \d+ since"):
        do(kind, inputs, tmp_path)
    assert do(kind, inputs, tmp_path) is not None
    assert not unequal(results(kind, tmp_path), results(kind, place))


def test_verbs_and_pages_tell_a_read_only_folder(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(disk / "runs"))
    assert mount("-o", "remount,ro", str(disk))
    told = CliRunner().invoke(cli, ["toy", "sweep", "--steps", "10", "--grid", "d_hidden=1,2"])
    assert told.exit_code == 2 and "Read-only file system" in told.stderr and told.stderr.count("\n") == 1
    page = AppTest.from_file(str(PAGES / "coherence.py"), default_timeout=60).run()
    page.text_input[0].set_value("frame:mercedes")
    page.button[0].click().run()
    assert not page.exception
    assert "Read\\-only file system" in page.error[0].value
