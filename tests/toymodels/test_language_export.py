import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pandas import DataFrame
from safetensors.torch import load_file

from data.corpus import Corpus
from tests.toymodels.test_language import SMALL
from toymodels.language import held_out_documents, token_ids, train
from toymodels.language_config import LanguageConfig
from toymodels.language_export import compared, export
from toymodels.ngram import KneserNey


def test_an_exported_model_is_the_last_snapshot_in_half_precision_with_its_losses(
    corpus: Corpus, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = LanguageConfig.model_validate(SMALL.model_dump() | {"family": "olmoe"})
    train(config, tmp_path / "training", corpus=corpus)
    found = export(tmp_path / "training", tmp_path / "out", corpus=corpus)
    half, full = (
        load_file(p) for p in (tmp_path / "out/model.safetensors", tmp_path / "training/step-000006/model.safetensors")
    )
    assert all(torch.equal(half[name], full[name].half()) for name in full)
    assert sorted(found["document"]) == sorted(held_out_documents(corpus, 0).documents["document"])

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    document = next(iter(held_out_documents(corpus, 0)))
    ids = token_ids(tokenizer, [document.text])
    rows = ids[: len(ids) // 16 * 16].view(-1, 16)
    losses = [float(model(input_ids=row[None], labels=row[None]).loss.detach()) for row in rows]
    mine = found.set_index("document").loc[document.name]
    assert mine["model"] == pytest.approx(np.mean(losses), rel=1e-5)

    unread = {d.name for d in held_out_documents(corpus, 0)}
    text = token_ids(tokenizer, [d.text for d in corpus if d.name not in unread])
    gram = KneserNey(text.numpy(), len(tokenizer), 5).loss(rows.numpy()).mean()
    assert mine["kneser_ney"] == pytest.approx(gram, rel=1e-9)

    said = json.loads((tmp_path / "out/losses.json").read_text())
    card = (tmp_path / "out/README.md").read_text()
    assert f"{said['model']['mean']:.3f}" in card and "sparsescope train" in card


def test_the_comparison_weighs_documents_by_their_tokens_and_pairs_them() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(5, 1, 40)
    frame = DataFrame(
        {"n_tokens": rng.integers(10, 1_000, 40), "model": hard - 0.1, "kneser_ney": hard, "unigram": 9.0}
    )
    found = compared(frame)
    gain = found["model_minus_kneser_ney"]
    assert gain["low"] == pytest.approx(-0.1) and gain["high"] == pytest.approx(-0.1)
    assert found["model"]["mean"] == pytest.approx(np.average(frame["model"], weights=frame["n_tokens"]))
    assert found["model"]["high"] - found["model"]["low"] > 0.2
