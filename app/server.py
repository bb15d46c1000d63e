"""The dashboard's server: a Streamlit process of its own on a loopback address."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

ADDRESS = "127.0.0.1"
DEFAULT_PORT = 8501
_ENDINGS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
SCRIPT = Path(__file__).parent / "dashboard" / "main.py"


def pick_port(wanted: int | None = None, first: int = DEFAULT_PORT, tries: int = 50) -> int:
    """`wanted` if it is free (else ValueError with a free one), or the first free port from `first` on."""
    if wanted is not None:
        if not 1 <= wanted <= 65535:
            raise ValueError(f"port {wanted} is not between 1 and 65535")
        if not is_free(wanted):
            raise ValueError(
                f"port {wanted} is in use; try --port {pick_port(None, wanted % 65000 + 1)}, or leave it out"
            )
        return wanted
    for port in range(first, min(first + tries, 65536)):
        if is_free(port):
            return port
    raise ValueError(f"no free port between {first} and {first + tries - 1}; choose one with --port")


def is_free(port: int) -> bool:
    """Whether nothing listens on the port of this machine's loopback address."""
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((ADDRESS, port))
        except OSError:
            return False
    return True


def url(port: int, page: str = "", **query: str | None) -> str:
    """Address of a page of the dashboard; the overview, being the default page, has no path of its own."""
    page = "" if page == "overview" else page
    asked = urlencode({key: value for key, value in query.items() if value})
    return f"http://{ADDRESS}:{port}/{page}{'?' + asked if asked else ''}"


@contextlib.contextmanager
def serving(runs_folder: Path, port: int, wait: float = 60.0) -> Iterator[subprocess.Popen[bytes]]:
    """The server showing the runs below `runs_folder`, up and answering; it ends with the block."""
    # said here as well, where no setting of the user's own Streamlit can open the dashboard to a network or other sites
    settings = [f"--server.port={port}", f"--server.address={ADDRESS}"]
    settings += ["--server.enableXsrfProtection=true", "--server.enableCORS=true"]
    command = [sys.executable, "-m", "streamlit", "run", str(SCRIPT), *settings]
    env = os.environ | {"SPARSESCOPE_RUNS": str(runs_folder.resolve())}
    # a session of its own: Ctrl-C reaches the command that started it, which then ends it in order
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, start_new_session=True)
    # a closed terminal or `kill` must not leave the server behind either
    before = {number: signal.signal(number, signal.default_int_handler) for number in _ENDINGS}
    try:
        deadline = time.monotonic() + wait
        while not _answers(port):
            if process.poll() is not None:
                raise ValueError(f"the dashboard's server ended at once (exit code {process.returncode}); see above")
            if time.monotonic() > deadline:
                raise ValueError(f"the dashboard's server did not answer on port {port} within {wait:.0f} s")
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=1)  # never through a proxy, unlike urllib
    try:
        connection.request("GET", "/_stcore/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
