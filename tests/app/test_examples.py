"""Every command that a help text, a page or a document tells a person to type is one that can be typed."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from app.cli import cli

ROOT = Path(__file__).parents[2]
TOLD = re.compile(r"`(sparsescope [a-z][^`]*)`")


def helps(group: TyperGroup, path: str = "sparsescope") -> Iterator[tuple[str, str]]:
    """(verb, what its help says) for all verbs."""
    for name, command in group.commands.items():
        yield f"{path} {name}", command.help or ""
        if isinstance(command, TyperGroup):
            yield from helps(command, f"{path} {name}")


def documents() -> Iterator[tuple[str, str]]:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("[adpt]*/**/*.md")]:
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def sources() -> Iterator[tuple[str, str]]:
    """Texts of pages, claims and error messages, where a command stands between backticks or is a hint of its own."""
    for path in [*(ROOT / "app").rglob("*.py"), *(ROOT / "data").rglob("*.py"), *(ROOT / "probes").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        yield str(path.relative_to(ROOT)), re.sub(r'"(sparsescope [a-z][^"\n`]*)"', r"`\1`", text)


CASES = sorted(
    {
        (where, " ".join(command.split()))
        for texts in (helps(get_command(cli)), documents(), sources())
        for where, text in texts
        for command in TOLD.findall(text.replace("\\n", " "))
        if not re.search(r'[{|"]', command)  # put together when it is told
    }
)


@pytest.mark.parametrize(("where", "command"), CASES)
def test_a_command_that_is_told_can_be_typed(where: str, command: str) -> None:
    words = shlex.split(command)[1:]
    found = get_command(cli)
    while isinstance(found, TyperGroup) and words and words[0] in found.commands:
        found = found.commands[words.pop(0)]
    if isinstance(found, TyperGroup):
        assert not words, f"{where} tells of '{command}', and there is no '{words[0]}'"
    elif words:  # a verb alone is spoken of, not typed
        found.make_context("verb", words)
