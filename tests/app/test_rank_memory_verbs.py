"""`sparsescope probe rank` and `probe memory` on a tiny model in a folder, from the command line to the page."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import cli
from data.runs import open_run
from tests.app.test_pages import show
from tests.probes.tiny import SENTENCES, tiny_hf


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder with a model and its tokenizer, and one with text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    folder: Path = tmp_path_factory.mktemp("places")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    made.train_from_iterator(SENTENCES, trainer)
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>").save_pretrained(folder / "model")
    tiny_hf().save_pretrained(folder / "model")
    (folder / "text").mkdir()
    for number in range(5):
        (folder / "text" / f"{number}.txt").write_text(" ".join(SENTENCES * 2)[number:] + " <i>&", encoding="utf-8")
    return {"--model": str(folder / "model"), "--corpus": str(folder / "text")}


def call(*arguments: str, **options: Any) -> Any:
    return CliRunner().invoke(cli, ["probe", *arguments, *(part for pair in options.items() for part in pair)])


def test_rank_fills_a_run_that_its_page_shows(places: dict[str, str], runs_folder: Path) -> None:
    done = call("rank", "--windows", "3", "--window", "16", "--name", "r", **places)
    assert done.exit_code == 0, done.output
    assert "--page rank" in done.stdout
    run = open_run("r")
    assert run.kind == "probe.rank" and run.progress["state"] == "done"
    table = run.table("rank_residuals")
    assert (table["n_windows"] == 3).all() and (table["n_blocks"] == 3).all(), "each window from a document of its own"
    test = show("rank", run="r")
    assert not test.exception and not test.error and len(test.metric) == 4


def test_memory_fills_a_run_that_its_page_shows(places: dict[str, str], runs_folder: Path) -> None:
    arguments = ("--tokens", "300", "--layer", "1", "--neuron", "4", "--neuron", "6", "--name", "m")
    done = call("memory", *arguments, "--dtype", "float32", **places)
    assert done.exit_code == 0, done.output
    run = open_run("m")
    assert set(run.table("memory_neurons")["layer"]) == {1}
    assert {4, 6} <= set(run.table("memory_triggers")["neuron"])
    test = show("memories", run="m", neuron="6")
    assert not test.exception and not test.error
    assert test.selectbox(key="neuron").value == "6"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("rank", "--variant", "skip"), "variants.0"),
        (("rank", "--windows", "0"), "n_windows"),
        (("rank", "--window", "3"), "window"),
        (("memory", "--tokens", "0"), "n_tokens"),
        (("memory", "--control", "gaussian"), "controls.0"),
        (("memory", "--layer", "9", "--tokens", "100"), "layers [9] are not all dense layers"),
        (("memory", "--neuron", "99", "--tokens", "100"), "numbers in 0..63"),
    ],
)
def test_bad_requests_are_one_sentence(
    places: dict[str, str], runs_folder: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = call(*arguments, **places)
    assert done.exit_code == 2
    assert says in done.stderr and "Traceback" not in done.stderr and "Traceback" not in done.stdout


def test_demo_parts_share_one_folder(places: dict[str, str], runs_folder: Path) -> None:
    """Rank computes in float32, the others in what the processor likes best: two hashes of one model."""
    from app import memory, rank
    from app.demo import DemoConfig
    from app.measurements import remember_inputs
    from data.runs import create

    config = DemoConfig(model=places["--model"], corpus=places["--corpus"])
    run = create("demo", config, kind="demo", root_folder=runs_folder)
    remember_inputs(run, [("model", "m", "m", "hash of other parts")])
    rank.demo(run, config, lambda *_: None)
    assert {"rank_residuals", "rank_patterns"} <= set(run.table_names())
    assert run.table("inputs")["hash"].tolist() == ["hash of other parts"]
    (run.path / "inputs.parquet").unlink()
    memory.demo(run, config, lambda *_: None)
    held = set(run.table_names())
    assert {"memory_agreement", "memory_neurons", "memory_triggers", "memory_values"} <= held
    assert set(run.table("memory_neurons")["layer"]) == {0, 1, 2}, "a model of three layers has no four"
