"""Every verb with every option set to what it cannot mean: a sentence and exit code 2 before any work begins."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from app.cli import cli
from tests.properties.judge import COUNTS
from tests.properties.strategies import texts

ROOT = Path(__file__).parents[2]


class Begun(Exception):
    """The work would have begun."""


def _begin(*_: Any, **__: Any) -> Any:
    raise Begun


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb that does something, with the words that call it."""
    below = getattr(command, "commands", {})
    for name, inner in below.items():
        yield from leaves(inner, (*path, name))
    if not below:
        yield path, command


# typer brings a click of its own, whose parameters say what they are.
VERBS = {" ".join(path): command for path, command in leaves(typer.main.get_command(cli))}
PLAIN = {"dictionaries": "frame:icosahedron", "preset": "pentagon", "grid": "d_hidden=1,2", "name": "first"}
PLAIN |= {"run": "first", "first": "first", "second": "first", "names": "first", "vary": "granularity"}


@pytest.fixture(autouse=True)
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("app.jobs.carry_out", "app.jobs.start", "app.redo.again", "app.server.serving", "app.export.export"):
        monkeypatch.setattr(place, _begin)
    for place in ("toymodels.language.train", "probes.models.open_model", "probes.models.door.open_model"):
        monkeypatch.setattr(place, _begin)
    monkeypatch.setattr("app.commands.claims._tell", _begin)


def call(verb: str, arguments: list[str]) -> Any:
    """What a person sees; nothing but a refusal, an answer or the beginning of work is allowed."""
    COUNTS[f"sparsescope {verb}"] += 1
    told = CliRunner().invoke(cli, [*verb.split(), *arguments])
    if isinstance(told.exception, Begun):
        return told
    assert told.exception is None or isinstance(told.exception, SystemExit), (
        f"sparsescope {verb} {arguments} ends in {type(told.exception).__name__}: {told.exception}"
    )
    assert "Traceback" not in told.output + told.stderr
    assert told.exit_code in (0, 1, 2)
    if told.exit_code == 2:
        assert len(told.stderr.split()) >= 3, f"sparsescope {verb} {arguments} says nothing"
    return told


def kind(about: Any) -> str:
    """The annotation of a parameter, as it is written."""
    return str(about.type_descriptor.annotation)


def given_arguments(command: Any, without: str = "") -> list[str]:
    """Plain values for what a verb cannot do without."""
    out: list[str] = []
    for about in command.params:
        if about.name != without and about.required:
            plain = PLAIN.get(str(about.name), "out")
            out += [plain] if about.param_type_name == "argument" else [about.opts[0], plain]
    return out


def numeric() -> list[Any]:
    """Each option that takes a number, of each verb."""
    found = []
    for verb, command in VERBS.items():
        for about in command.params:
            if about.param_type_name == "option" and ("int" in kind(about) or "float" in kind(about)):
                found.append(pytest.param(verb, about, id=f"{verb} {about.opts[0]}"))
    return found


@pytest.mark.parametrize(("verb", "option"), numeric())
def test_a_number_outside_the_domain_is_refused(verb: str, option: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    whole = "int" in kind(option)
    for bad in ("-1", str(10**30)) if whole else ("-1", "nan", "inf", "-inf"):
        told = call(verb, [*given_arguments(VERBS[verb]), f"{option.opts[0]}={bad}"])
        assert told.exit_code == 2, f"sparsescope {verb} {option.opts[0]}={bad} is taken"
    assert not list(tmp_path.iterdir())


words = st.one_of(
    texts,
    st.sampled_from(
        ["..", "../x", "/", "~", "-1", "nan", "1e400", str(10**30), "0", "=", "a=", "=1", "a=b", "n_features=-1"]
    ),
    st.sampled_from(
        ["--", "-", "frame:", "frame:random:0x0", "frame:random:9999999x9999999", "frame:simplex:x", "x#", "#"]
    ),
    st.sampled_from(["d_hidden=", "d_hidden=nan", "n_features=((((", "n_features=" + "(" * 300, "steps=1,2,a", "x=1"]),
    st.sampled_from(["no-such.npy", "no-such.gguf", "settings.json", "file", "first", "tinymoe"]),
    st.sampled_from(["\ud800", "a" * 300]),
).filter(lambda word: "\0" not in word)


@pytest.mark.parametrize("verb", VERBS)
@given(drawn=st.data())
def test_any_words_are_answered(verb: str, drawn: st.DataObject, tmp_path_factory: Any) -> None:
    from data.runs import create

    outside = tmp_path_factory.mktemp("outside")
    inside = outside / "work"
    inside.mkdir()
    (inside / "file").write_text("no folder")
    command = VERBS[verb]
    named = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    chosen = drawn.draw(st.lists(st.sampled_from(named), max_size=3)) if named else []
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    asked = [drawn.draw(words) if drawn.draw(st.booleans()) else PLAIN.get(str(p.name), "out") for p in arguments]
    options = []
    for about in chosen:
        place = "Path" in kind(about)
        flag = getattr(about, "is_flag", False)
        options += [about.opts[0]] if flag else [f"{about.opts[0]}={'file' if place else drawn.draw(words)}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(inside)
        patch.setenv("SPARSESCOPE_RUNS", str(inside / "runs"))
        create("first", {"a": math.pi}, kind="probe.sparsity")
        call(verb, [*options, "--", *asked])
    written = {p.relative_to(outside).as_posix() for p in outside.rglob("*") if p.is_file()}
    stray = {p for p in written if not p.startswith(("work/runs/", "work/out/")) and p != "work/file"}
    assert not stray, f"sparsescope {verb} wrote {stray}"
