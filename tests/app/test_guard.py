"""Errors, Ctrl-C and progress as a person at a terminal meets them."""

import pytest
import typer
from typer.testing import CliRunner

from app.commands._run import guard, progress
from app.telling import Pace, duration, sentence
from data import Cancelled, Config, RunError


def run(error: BaseException | None):
    cli = typer.Typer()

    @cli.command()
    @guard
    def verb(n: int = 1) -> None:
        """Docs stay."""
        if error:
            raise error
        typer.echo(f"n={n}")

    return CliRunner().invoke(cli, ["--n", "3"])


def test_a_guarded_verb_keeps_its_options() -> None:
    assert run(None).output == "n=3\n"


@pytest.mark.parametrize("error", [ValueError("k=9 exceeds 4;\n choose less"), RunError("k=9 exceeds 4; choose less")])
def test_a_library_error_is_one_sentence_and_exit_2(error: Exception) -> None:
    result = run(error)
    assert result.exit_code == 2
    assert result.stderr == "sparsescope: k=9 exceeds 4; choose less\n"
    assert result.stdout == ""


def test_a_defect_of_ours_is_not_hidden_behind_a_sentence() -> None:
    assert isinstance(run(KeyError("oops")).exception, KeyError)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Cancelled()])
def test_stopping_says_how_to_resume(error: BaseException) -> None:
    result = run(error)
    assert result.exit_code == 130
    assert result.stderr.startswith("stopped; resume with: sparsescope")


def test_refused_settings_name_the_field() -> None:
    class Settings(Config):
        n: int = 1

    with pytest.raises(ValueError) as caught:
        Settings.model_validate({"n": "many", "m": 2})
    words = sentence(caught.value)
    assert words.startswith("n: ") and "; m: " in words and "\n" not in words


def test_missing_file_names_the_file() -> None:
    assert sentence(FileNotFoundError(2, "No such file or directory", "a.txt")) == "a.txt: No such file or directory"


def test_pace_is_work_over_time_and_starts_again_with_new_work() -> None:
    now = [0.0]
    pace = Pace(clock=lambda: now[0])
    assert pace.words(0, 1000) == ""
    now[0] = 2.0
    assert pace.words(400, 1000) == "200/s, 3 s left"
    assert pace.words(0, 7) == ""
    now[0] = 4.0
    assert pace.words(1, 7) == "12 s left"
    now[0] = 8.0
    assert pace.words(7, 7) == ""
    assert pace.words(0, 12) == ""
    now[0] = 9.0
    assert pace.words(0.001, 12) == "", "too little is done to tell what is left"


def test_durations_in_words() -> None:
    assert [duration(s) for s in (0, 59.4, 125, 4200)] == ["0 s", "59 s", "2 min 05 s", "1 h 10 min"]


def test_progress_without_a_terminal_tells_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("counting") as tell:
        for i in range(1001):
            tell(i, 1000, "words")
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 4
    assert lines[-1].startswith("counting  100%  words")
