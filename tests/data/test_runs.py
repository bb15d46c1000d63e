"""Run folders: written whole or not at all, never silently damaged, never outside their root."""

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data import files, runs
from data.config import Config
from data.runs import Run, RunError, create, list_runs, open_run


class Settings(Config):
    layers: int = 2
    name: str = "tiny"


FRAME = pd.DataFrame({"layer": np.arange(50), "value": np.linspace(0, 1, 50), "word_class": ["VERB", "NOUN"] * 25})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = create("first", Settings(), kind="test", root_folder=tmp_path, seed=3, hashes={"corpus": "c0"})
    run.save_table("layers", FRAME)
    run.save_tensors("state", {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7)})
    return run


def test_what_was_saved_comes_back(run: Run) -> None:
    again = open_run("first", run.path.parent)
    pd.testing.assert_frame_equal(again.table("layers"), FRAME, check_dtype=False)
    assert again.table("layers", columns=["value"]).columns.tolist() == ["value"]
    np.testing.assert_array_equal(again.tensors("state")["w"], [[0, 1, 2], [3, 4, 5]])
    assert again.tensors("state")["n"].shape == ()
    assert again.settings == {"kind": "test", "layers": 2, "name": "tiny"}
    assert again.provenance["seed"] == 3 and again.provenance["versions"]["numpy"] == np.__version__
    assert again.table_names() == ["layers"] and set(again.tables()) == {"layers"}


def test_the_same_settings_reopen_and_others_are_refused(run: Run) -> None:
    root = run.path.parent
    assert create("first", Settings(), kind="test", root_folder=root, hashes={"corpus": "c0"}).table_names() == [
        "layers"
    ]
    with pytest.raises(RunError, match=r"other settings \(layers\)"):
        create("first", Settings(layers=3), kind="test", root_folder=root)
    with pytest.raises(RunError, match=r"other settings \(kind\)"):
        create("first", Settings(), kind="else", root_folder=root)
    with pytest.raises(RunError, match="another corpus"):
        create("first", Settings(), kind="test", root_folder=root, hashes={"corpus": "c1"})


@pytest.mark.parametrize(
    "name", ["..", "../first", "a/b", "/etc", ".hidden", "", "a\n", "a..b", "x" * 129, "a b", "a\0b"]
)
def test_names_stay_inside_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="not a run name"):
        create(name, Settings(), kind="test", root_folder=tmp_path / "runs")
    with pytest.raises(RunError, match="not a run name"):
        open_run(name, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["../secret", "a/b", ".settings"])
def test_table_and_tensor_names_stay_inside_the_run(run: Run, name: str) -> None:
    for act in (run.table, run.tensors, lambda n: run.save_table(n, FRAME), lambda n: run.save_tensors(n, {})):
        with pytest.raises(RunError, match="not a run name"):
            act(name)


def test_nothing_is_written_or_deleted_through_a_link(run: Run, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run.path)
    with pytest.raises(RunError, match="is a link"):
        create("link", Settings(), kind="test", root_folder=tmp_path)
    with pytest.raises(RunError, match="is a link"):
        Run(tmp_path / "link").delete()
    pd.testing.assert_frame_equal(run.table("layers"), FRAME, check_dtype=False)


def test_deleting_follows_no_link_inside_the_run(run: Run, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("x")
    (run.path / "link").symlink_to(outside)
    run.delete()
    assert not run.path.exists() and (outside / "keep").read_text() == "x"
    assert list(tmp_path.glob(".first*")) == []


def test_only_run_folders_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(RunError, match=r"no settings.json"):
        Run(tmp_path / "mine").delete()
    assert (tmp_path / "mine").is_dir()


def test_every_flipped_byte_of_a_table_or_tensor_is_told(run: Run) -> None:
    for file, read in (
        ("layers.parquet", lambda: run.table("layers")),
        ("state.safetensors", lambda: run.tensors("state")),
    ):
        path = run.path / file
        whole = path.read_bytes()
        for at in range(0, len(whole), 23):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            with pytest.raises(RunError, match=f"{file} cannot be read"):
                read()
        path.write_bytes(whole)
        read()


@pytest.mark.parametrize("file", ["layers.parquet", "state.safetensors"])
@pytest.mark.parametrize("sealed", [True, False])
def test_a_cut_file_is_told_with_and_without_its_sum(run: Run, file: str, sealed: bool) -> None:
    path = run.path / file
    if not sealed:
        (run.path / f".{file}.sha256").unlink()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunError, match=f"{file} cannot be read"):
        run.table("layers") if file.endswith("parquet") else run.tensors("state")


@pytest.mark.parametrize("text", ['{"state": "run', "", "[1, 2]", "\x00\x00"])
def test_half_a_json_is_told(run: Run, text: str) -> None:
    for file in ("settings.json", "provenance.json", "progress.json"):
        (run.path / file).write_text(text)
        with pytest.raises(RunError, match=f"{file} cannot be read"):
            getattr(run, file.removesuffix(".json"))


def test_a_missing_file_is_named(run: Run) -> None:
    with pytest.raises(RunError, match=r"neurons.parquet is missing from run 'first'"):
        run.table("neurons")
    (run.path / "provenance.json").unlink()
    with pytest.raises(RunError, match=r"provenance.json is missing"):
        run.provenance
    with pytest.raises(RunError, match="no run 'second'"):
        open_run("second", run.path.parent)


def test_a_kill_between_sum_and_file_leaves_the_old_file_readable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(source: Path, target: Path) -> None:
        if Path(target).name == "layers.parquet":
            raise KeyboardInterrupt
        os.rename(source, target)

    monkeypatch.setattr(files.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run.save_table("layers", FRAME.head(3))
    monkeypatch.undo()
    assert len(run.table("layers")) == 50
    run.save_table("layers", FRAME.head(4))
    assert len(run.table("layers")) == 4
    assert not list(run.path.glob(".*.tmp"))


def limited(tmp_path: Path, body: str) -> str:
    """Standard output of `body`, run where no file may grow beyond 2 kB (what a full disk looks like to a writer)."""
    program = """
        import resource, numpy as np, pandas as pd
        from pathlib import Path
        from data.runs import Run, RunError
        run = Run(Path("first"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            BODY
        except RunError as error:
            print(error)
    """
    code = textwrap.dedent(program).replace("BODY", body)
    where = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=where, capture_output=True, text=True).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs a file size limit")
def test_a_full_disk_is_one_sentence_and_keeps_the_old_file(run: Run, tmp_path: Path) -> None:
    values = "np.random.default_rng(0).random(5000)"
    assert "cannot write first/layers.parquet" in limited(
        tmp_path, f'run.save_table("layers", pd.DataFrame({{"x": {values}}}))'
    )
    assert "cannot write first/state.safetensors" in limited(tmp_path, f'run.save_tensors("state", {{"x": {values}}})')
    assert "cannot write first/progress.json" in limited(tmp_path, 'run.report("running", note="x" * 5000)')
    assert len(run.table("layers")) == 50 and set(run.tensors("state")) == {"w", "n"}
    assert not list(run.path.glob(".*.tmp"))


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot make the run folder"):
        create("x", Settings(), kind="test", root_folder=tmp_path / "file")
    run = create("x", Settings(), kind="test", root_folder=tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "replace", refuse)
    for act in (lambda: run.report("running"), lambda: run.save_table("t", FRAME)):
        with pytest.raises(RunError, match=r"cannot write .*: Permission denied"):
            act()
    assert not list(run.path.glob(".*.tmp"))


@pytest.mark.skipif(os.name != "posix", reason="needs Unix permissions")
def test_a_read_only_folder_is_one_sentence() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        run = create("x", Settings(), kind="test", root_folder=root)
        run.save_table("layers", FRAME)
        root.chmod(0o555)
        run.path.chmod(0o555)
        user = os.geteuid()
        if user == 0:  # root may write anywhere, so somebody else tries
            os.seteuid(65534)
        try:
            with pytest.raises(RunError, match=r"cannot write .*progress.json: Permission denied"):
                run.report("running")
            with pytest.raises(RunError, match=r"cannot write .*Permission denied"), run.writing():
                pass
            with pytest.raises(RunError, match="cannot make the run folder"):
                create("y", Settings(), kind="test", root_folder=root)
            with pytest.raises(RunError, match="Permission denied"):
                run.delete()
            assert len(run.table("layers")) == 50
        finally:
            os.seteuid(user)
            root.chmod(0o755)
            run.path.chmod(0o755)


def test_types_that_cannot_be_stored_are_refused_by_name(run: Run) -> None:
    with pytest.raises(RunError, match=r"array 'x' of bad.safetensors is object"):
        run.save_tensors("bad", {"x": np.array(["a", None], dtype=object)})
    with pytest.raises(RunError, match="table 'mixed' cannot be written"):
        run.save_table("mixed", pd.DataFrame({"x": [1, "a", {}]}))
    assert run.table_names() == ["layers"]


def test_a_second_writer_is_told_who_the_first_is(run: Run) -> None:
    with run.writing():
        with pytest.raises(RunError, match=rf"run 'first' is being written by process {os.getpid()}"), run.writing():
            pytest.fail("two writers at once")
        with pytest.raises(RunError, match="being written"):
            run.delete()
    with run.writing():
        pass


def test_a_killed_writer_leaves_no_lock_and_its_rubbish_is_swept(run: Run, tmp_path: Path) -> None:
    code = """
        import os
        from pathlib import Path
        from data.runs import Run
        run = Run(Path("first"))
        with run.writing():
            (run.path / ".layers.parquet.ab.tmp").write_text("half")
            print("locked", flush=True)
            input()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    with pytest.raises(RunError, match=f"process {process.pid}"), run.writing():
        pytest.fail("two writers at once")
    process.kill()
    process.wait()
    with run.writing():
        assert not list(run.path.glob(".*.tmp"))


def test_runs_are_listed_newest_first_and_damaged_ones_too(run: Run, tmp_path: Path) -> None:
    second = create("second", Settings(layers=9), kind="test", root_folder=tmp_path)
    os.utime(run.path / "settings.json", (1, 1))
    (tmp_path / "other").mkdir()
    (tmp_path / ".first.ab.deleted").mkdir()
    (tmp_path / ".first.ab.deleted" / "settings.json").write_text("{}")
    assert [r.name for r in list_runs(tmp_path)] == ["second", "first"]
    assert list_runs(tmp_path / "nowhere") == []
    table = runs.compare(run, second)
    assert table.to_dict("records") == [{"setting": "layers", "first": "2", "second": "9"}]


def test_nested_settings_are_compared_leaf_by_leaf(tmp_path: Path) -> None:
    a = create("a", {"model": {"name": "x", "dtype": "fp32"}}, kind="k", root_folder=tmp_path)
    b = create("b", {"model": {"name": "x", "dtype": "bf16"}, "n": 1}, kind="k", root_folder=tmp_path)
    assert runs.compare(a, b)["setting"].tolist() == ["model.dtype", "n"]


def test_a_name_wins_over_a_folder_of_that_name_here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    create("first", Settings(layers=5), kind="here", root_folder=here)
    monkeypatch.chdir(here)
    assert open_run("first", tmp_path).kind == "test"
    assert open_run("first", tmp_path / "empty").kind == "here"
    assert open_run(run.path).kind == "test"


def test_the_root_is_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path / "elsewhere"))
    create("x", Settings(), kind="test")
    assert json.loads((tmp_path / "elsewhere" / "x" / "settings.json").read_text())["kind"] == "test"


def test_progress_is_new_then_what_was_reported(run: Run) -> None:
    assert run.progress == {"state": "new"}
    run.report("running", 3, 10, "layer 1", rate=2.5)
    assert run.progress["state"] == "running" and run.progress["rate"] == 2.5 and run.progress["pid"] == os.getpid()


def test_the_commit_is_that_of_this_project_and_no_other(tmp_path: Path) -> None:
    from data.provenance import _commit

    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(tmp_path)]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "site-packages").mkdir()
    assert _commit(tmp_path) == head and _commit(tmp_path / "site-packages") is None
