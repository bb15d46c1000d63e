"""The worth of experts from the command line to the page, on a tiny mixture."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.figures.catalogue import find
from data.runs import open_run
from tests.app.test_pages import show, words
from tests.probes.families import tiny_moe
from tests.probes.tiny import SENTENCES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    )
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>").save_pretrained(tmp_path / "model")
    tiny_moe("olmoe").save_pretrained(tmp_path / "model")
    for number in range(6):
        (tmp_path / "text").mkdir(exist_ok=True)
        (tmp_path / "text" / f"{number}.txt").write_text(" ".join(SENTENCES[number % 2 :] * 2))
    return tmp_path


def test_worth_is_measured_drawn_and_shown(folder: Path, runs_folder: Path) -> None:
    asked: list[Any] = ["probe", "worth", "--model", folder / "model", "--text", folder / "text", "--tokens", 1_200]
    asked += ["--no-word-classes", "--replace", "zero", "--name", "tiny-worth"]
    done = CliRunner().invoke(cli, [str(part) for part in asked])
    assert done.exit_code == 0, done.output
    run = open_run("tiny-worth", runs_folder)
    tables = run.tables()
    for name in ("worth-losses", "worth-stand-ins", "worth-fewer", "worth-causes", "worth-alike"):
        entry = find(name)
        figure = entry.draw(tables)
        assert len(figure.data) and entry.caption(tables)
        json.loads(figure.to_json())
    shown = find("worth-losses").draw(tables)
    value = tables["damage"].query("word_class == 'all'").value
    assert sorted(shown.data[0].y) == sorted(value)
    alike = find("worth-alike").plotted(tables).query("condition == 'real' and layer == 1 and measure == 'subspace'")
    mine = tables["pairs"].query("condition == 'real' and layer == 1")["subspace"]
    assert alike["value"].item() == pytest.approx(mine.mean()) and alike["n_pairs"].item() == len(mine) == 28
    test = show("worth")
    assert not test.exception and not test.error
    assert "What is lost without an expert?" in words(test).replace("\\", "")


def test_bad_requests_are_one_sentence(folder: Path, runs_folder: Path) -> None:
    for more, says in ((["--layer", "7"], "have no experts"), (["--replace", "nothing"], "zero")):
        asked = ["probe", "worth", "--model", str(folder / "model"), "--text", str(folder / "text"), *more]
        done = CliRunner().invoke(cli, asked)
        assert done.exit_code == 2
        assert says in done.stderr and "Traceback" not in done.stderr
