"""The audit of pinned packages, against a service of our own."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import audit

DETAILS: dict[str, dict[str, Any]] = {"OLD-1": {"withdrawn": "2020"}, "BAD-1": {"summary": "runs anything"}}


class Service(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        vulns = {"bad": [{"id": "BAD-1"}], "old": [{"id": "OLD-1"}]}
        self.answer({"results": [{"vulns": vulns.get(q["package"]["name"], [])} for q in asked]})

    def do_GET(self) -> None:
        self.answer(DETAILS[self.path.rsplit("/", 1)[1]])

    def answer(self, body: Any) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def service() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize(
    ("pinned", "code", "says"),
    [
        ("good==1.0\nold==2  # withdrawn\n", 0, "2 packages of pins.txt audited: 0 known vulnerabilities"),
        ("good==1.0\nbad==3+cpu\n", 1, "bad 3: BAD-1 runs anything"),
    ],
)
def test_a_known_vulnerability_fails(
    service: str, pinned: str, code: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pins.txt").write_text(pinned)
    assert audit.main([str(tmp_path / "pins.txt")], service) == code
    assert says in capsys.readouterr().out


def test_a_service_that_is_down_is_a_sentence_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pins.txt").write_text("good==1.0\n")
    assert audit.main([str(tmp_path / "pins.txt")], "http://127.0.0.1:9") == 0
    assert "were not audited" in capsys.readouterr().out


def test_all_pins_are_read() -> None:
    found = audit.pins(audit.PINNED.read_text())
    assert len(found) > 100 and found["torch"].startswith("2.")
