"""What ships: small enough, large enough, and as good as its card says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import data
from data import open_corpus
from probes import open_model
from toymodels.language import held_out_documents, settings, token_ids

BUNDLED = Path(data.__file__).parent / "bundled"


@pytest.fixture(scope="module")
def model():
    return open_model("tinymoe")


def test_the_folder_is_small_and_the_model_is_a_mixture_of_some_size(model) -> None:
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*")) <= 25e6
    assert sum(weight.numel() for weight in model.hf.parameters()) >= 3e6
    assert all(block.kind == "moe" for block in model.blocks)


def test_a_documents_loss_is_the_one_on_record(model) -> None:
    known = json.loads((Path(model.source) / "losses.json").read_text(encoding="utf-8"))
    assert known["model_minus_kneser_ney"]["mean"] < 0
    trained = settings(Path(model.source))
    shortest = min(known["documents"], key=lambda row: row["n_tokens"])
    corpus = held_out_documents(open_corpus(trained.corpus), trained.seed)
    text = next(document.text for document in corpus if document.name == shortest["document"])
    ids = token_ids(model.tokenizer, [text])
    windows = ids[: len(ids) // trained.window * trained.window].view(-1, trained.window)
    with torch.no_grad():
        found = np.mean([float(model.losses(row[None]).mean()) for row in windows])
    assert found == pytest.approx(shortest["model"], rel=1e-3)
    assert windows.shape[0] * (trained.window - 1) == shortest["n_tokens"]


def test_what_is_on_record_was_measured_on_the_weights_that_ship(model) -> None:
    records = sorted((Path(__file__).parents[1] / "reproductions").glob("tinymoe_*.json"))
    assert len(records) >= 3
    for path in records:
        assert json.loads(path.read_text(encoding="utf-8"))["settings"]["fingerprint"] == model.fingerprint, path.name
