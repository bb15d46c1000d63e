"""The command as a person types it: what it says, what it refuses, what it does not import."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import server
from app.cli import cli
from data import Run

HEAVY = ("torch", "transformers", "transformer_lens", "sae_lens", "streamlit", "pandas", "numpy", "plotly", "pydantic")


def invoke(*arguments: str):
    return CliRunner().invoke(cli, list(arguments))


def test_help_costs_nothing() -> None:
    code = (
        "import json, sys\nfrom typer.testing import CliRunner\nfrom app.cli import cli\n"
        "told = CliRunner().invoke(cli, ['--help'])\n"
        "print(json.dumps([told.exit_code, told.output, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    exit_code, output, modules = json.loads(done.stdout)
    assert exit_code == 0
    assert [name for name in HEAVY if name in modules] == []
    for verb in ("demo", "probe", "app", "figures", "models"):
        assert verb in output


@pytest.mark.parametrize("verb", [["demo"], ["probe", "sparsity"], ["app"], ["figures"], ["models"]])
def test_every_help_shows_an_example(verb: list[str]) -> None:
    told = invoke(*verb, "--help")
    assert told.exit_code == 0
    assert re.search(rf"Examples?:\s.*sparsescope {' '.join(verb)}", " ".join(told.output.split()), re.DOTALL)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["figures", "nowhere"], "no run 'nowhere'"),
        (["figures", "../etc"], "is not a run name"),
        (["app", "--run", "nowhere"], "no run 'nowhere'"),
        (["app", "--port", "70000"], "port 70000 is not between 1 and 65535"),
        (["demo", "--tokens", "-5"], "n_tokens: "),
        (["demo", "--out", "x"], "--out goes with --no-open"),
        (["probe", "sparsity", "--control", "magic"], "controls"),
        (["probe", "sparsity", "--dtype", "int3"], "dtype"),
    ],
)
def test_bad_input_is_one_sentence(runs_folder: Path, arguments: list[str], words: str) -> None:
    told = invoke(*arguments)
    assert told.exit_code == 2
    assert words in told.stderr
    assert "Traceback" not in told.stderr and told.stderr.count("\n") == 1
    assert not runs_folder.exists()


def test_figures_lists_and_writes(run: Run, tmp_path: Path) -> None:
    listed = invoke("figures")
    assert "sparsity-firing" in listed.stdout and "toy-staircase" in listed.stdout
    told = invoke(
        "figures", "first", "--only", "sparsity-sinks", "--out", str(tmp_path / "out"), "--format", "html,json"
    )
    assert told.exit_code == 0, told.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {
        "sparsity-sinks.html",
        "sparsity-sinks.csv",
        "sources.bib",
    }
    assert "no figure 'nope'; there are" in invoke("figures", "first", "--only", "nope").stderr
    assert "no format gif" in invoke("figures", "first", "--format", "gif", "--out", str(tmp_path)).stderr
    assert "no width 'poster'" in invoke("figures", "first", "--width", "poster", "--out", str(tmp_path)).stderr


def test_a_port_in_use_is_told_and_avoided() -> None:
    with socket.socket() as busy:
        busy.bind((server.ADDRESS, 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert not server.is_free(port)
        with pytest.raises(ValueError, match=rf"port {port} is in use; try --port \d+"):
            server.pick_port(port)
        assert server.pick_port(first=port) > port
    assert server.pick_port(port) == port


def test_addresses_carry_the_run() -> None:
    assert server.url(8501, "sparsity", run="a b") == "http://127.0.0.1:8501/sparsity?run=a+b"
    assert server.url(8501, run=None) == "http://127.0.0.1:8501/"


def test_version() -> None:
    assert re.fullmatch(r"sparsescope \d+\.\d+\.\d+\n", invoke("--version").stdout)


def test_a_table_is_printed_in_columns_and_a_missing_number_as_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    from pandas import DataFrame

    from app.commands._columns import echo_table

    frame = DataFrame({"layer": [3, 15], "name": ["a b", "c"], "fvu": [0.12345, float("nan")], "hidden": [1, 2]})
    echo_table(frame, ["layer", "name", "fvu"], digits=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["layer  name   fvu", "    3  a b   0.12", "   15  c        -"]
