"""Bytes that changed, and halves of files: each is told in one sentence that names the file."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from app.cli import cli
from data import Run
from data.routed import Routes, TokenTable
from probes import open_model
from probes.secret.cache import KIND as INPUTS
from probes.secret.cache import read_inputs
from tests.faults.work import KINDS, Refused, do, results, unequal
from toymodels import language

Whole = Callable[[str], tuple[Path, int]]
PAGES = Path(__file__).parents[2] / "app" / "pages"
UNREAD = {".lock", ".inputs", "log.txt"}


def read_all(kind: str, folder: Path) -> None:
    """Everything that the folder holds, the way the rest of the house reads it."""
    if kind == "train":
        language.train(language.settings(folder), folder)
        open_model(folder / language.snapshots(folder)["folder"][0])
        return
    run = Run(folder)
    assert run.settings and run.provenance and run.progress
    run.tables()
    for name in run.tensor_names():
        run.tensors(name)
    if (folder / "routes.parquet").exists():
        assert Routes(folder).n_tokens == len(TokenTable(folder))
    if run.kind == INPUTS:
        read_inputs(run, run.settings["layers"][0])


def complaint(kind: str, folder: Path) -> str:
    """What is said when all is read; nothing where all is well."""
    try:
        read_all(kind, folder)
    except ValueError as error:
        return str(error)
    return ""


def damaged(path: Path, seed: int) -> list[bytes]:
    """The file with a bit flipped (last, somewhere) and the file cut in half."""
    content, rng = path.read_bytes(), random.Random(seed)
    # rows that are captured lie in a file with room for more: what is behind them means nothing
    end = len(content) // 2 if path.suffix == ".npy" else len(content)
    places = [end - 1, rng.randrange(end)]
    flipped = [content[:i] + bytes([content[i] ^ (1 << rng.randrange(8))]) + content[i + 1 :] for i in places]
    return [*flipped, content[: len(content) // 2]]


def check_every_file(kind: str, folder: Path) -> int:
    read_all(kind, folder)
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in UNREAD]
    files = [p for p in files if not p.parent.name.startswith("step-") or p.parent.name == "step-000000"]
    for number, path in enumerate(files):
        content = path.read_bytes()
        for altered in damaged(path, number):
            path.write_bytes(altered)
            told = complaint(kind, folder)
            # a sum may hold older ones as well, and ends with a line's end
            assert told or path.suffix == ".sha256", f"a change of {path.name} is not told"
            if told:
                assert "\n" not in told and path.name.removeprefix(".").removesuffix(".sha256") in told
        path.write_bytes(content)
    read_all(kind, folder)
    return len(files)


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_a_run_is_told_when_it_changed(kind: str, whole: Whole, tmp_path: Path) -> None:
    shutil.copytree(whole(kind)[0] / "run", tmp_path / "run")
    assert check_every_file(kind, tmp_path / "run") >= 6


def test_every_file_of_captured_inputs_is_told_when_it_changed(inputs: Path, tmp_path: Path) -> None:
    from data.corpus import open_corpus
    from probes import secret
    from probes.stream import StreamConfig

    model = open_model(inputs / "dense")
    run = secret.capture(model, open_corpus(inputs / "texts"), [1], StreamConfig(n_tokens=500), root=tmp_path)
    assert check_every_file("inputs", run.path) >= 12


@pytest.mark.parametrize("kind", ["stream", "secret"])
def test_work_goes_on_from_no_damaged_state(kind: str, inputs: Path, whole: Whole, tmp_path: Path) -> None:
    """Killed half way, a byte of what it saved flipped: told; that file deleted, as the sentence says: the same end."""
    place, events = whole(kind)
    assert do(kind, inputs, tmp_path, round(events * 0.5)) is None
    state = next(p for p in sorted((tmp_path / "run").rglob("*.safetensors")) if "student" not in p.name)
    state.write_bytes(damaged(state, 1)[1])
    with pytest.raises(Refused, match=rf"{state.name} cannot be read .* delete that file or the run"):
        do(kind, inputs, tmp_path)
    if kind == "secret":
        shutil.rmtree(state.parent)
    else:
        state.unlink()
    assert do(kind, inputs, tmp_path) is not None
    assert not unequal(results(kind, tmp_path), results(kind, place))


@pytest.mark.parametrize("file", ["settings.json", "provenance.json", "layers.parquet", "progress.json"])
def test_verbs_tell_damage_and_exit_with_2(
    file: str, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole("stream")[0] / "run", tmp_path / "run")
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path))
    path = tmp_path / "run" / file
    path.write_bytes(damaged(path, 3)[1])
    listed = CliRunner().invoke(cli, ["runs"])
    assert listed.exit_code == 0 and "run" in listed.output
    verbs = [["figures", "run", "--out", str(tmp_path / "out"), "--format", "json"]]
    verbs += [["redo", "run"]] if file != "layers.parquet" and file != "progress.json" else []
    told = [CliRunner().invoke(cli, verb) for verb in verbs]
    for one in told:
        assert one.exit_code in (0, 2), one.output
        assert one.exit_code == 0 or (one.stderr.count("\n") == 1 and file in one.stderr)
    assert any(one.exit_code == 2 for one in told) or file == "progress.json"


@pytest.mark.parametrize("file", ["settings.json", "progress.json"])
def test_pages_tell_damage_and_go_on(file: str, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(whole("stream")[0] / "run", tmp_path / "run")
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path))
    path = tmp_path / "run" / file
    path.write_bytes(damaged(path, 3)[1])
    told = []
    for name in ("overview", "runs", "jobs", "sparsity"):
        page = AppTest.from_file(str(PAGES / f"{name}.py"), default_timeout=120)
        page.query_params["run"] = "run"
        page.run()
        assert not page.exception, name
        told += [one.value for one in (*page.error, *page.warning)]
        told += [str(cell) for frame in page.dataframe for cell in frame.value.to_numpy().flat]
    assert any("cannot be read" in one or "damaged" in one for one in told), told
