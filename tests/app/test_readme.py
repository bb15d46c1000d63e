"""README says what is: its claims are those of the runs that ship, its commands and imports exist, its pictures too."""

import re
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

import data
from app.cli import cli
from data import runs
from tests.gallery import claims

TEXT = claims.README.read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"sparsescope [a-z][^`\n]*", re.sub(r"/bin/", "", TEXT))))
QUICK = [
    "claims --only holds",
    "toy presets",
    "corpora",
    "models tinymoe",
    "figures demo --only sparsity-firing --out {folder} --format html",
]


@pytest.fixture(autouse=True)
def only_what_ships(nothing_ships: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runs, "SHIPPED", Path(data.__file__).parent / "bundled" / "runs")
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path))


def test_the_claims_are_those_that_the_command_prints_on_the_runs_that_ship() -> None:
    printed = CliRunner().invoke(cli, ["claims", "--markdown"]).output
    quoted = TEXT.split(claims.BEGIN)[1].split(claims.END)[0]
    assert quoted.strip() == printed.strip(), "run python -m tests.gallery.claims"
    assert claims.replaced(TEXT) == TEXT
    with pytest.raises(ValueError, match="no lines"):
        claims.replaced("no marks")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_named_exists_with_its_options(command: str) -> None:
    words = [word.strip("'\"") for word in command.split("#")[0].split()[1:]]
    group = get_command(cli)
    while isinstance(group, TyperGroup) and words and words[0] in group.commands:
        group = group.commands[words.pop(0)]
    assert not isinstance(group, TyperGroup) or group.invoke_without_command, command
    options = {option for p in group.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize("words", QUICK)
def test_quick_commands_run(words: str, tmp_path: Path) -> None:
    assert any(words.split()[0] in command for command in COMMANDS)
    result = CliRunner().invoke(cli, words.format(folder=tmp_path / "out").split())
    assert result.exit_code == 0 and result.output


def test_the_lines_for_a_notebook_name_what_exists() -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert blocks
    for block in blocks:
        compile(block, "README", "exec")
        exec("\n".join(line for line in block.splitlines() if re.match(r"(from|import) ", line)), {})


def test_every_page_that_measures_stands_beside_its_command() -> None:
    rows = re.findall(r"^\| [^|]+ \| [^|]*`sparsescope [^|]+ \| ([^|]+) \|$", TEXT, re.M)
    source = (claims.README.parent / "app" / "dashboard" / "main.py").read_text(encoding="utf-8")
    titles = set(re.findall(r'\("\w+", "([^"]+)", "\w+"\)', source))
    assert set(rows) == titles - {"Overview", "Jobs"}


def test_pictures_and_links_lead_somewhere() -> None:
    places = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(places) > 10
    for place in places:
        assert place.startswith("http") or (claims.README.parent / place).exists(), place
