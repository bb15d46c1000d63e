"""Tiny models with random weights, and a tokenizer trained on the spot: no download, real code paths."""

from pathlib import Path
from typing import Any

import pytest

from data.corpus import Corpus, open_corpus
from probes import LanguageModel, open_model
from tests.probes.tiny import SENTENCES, tiny_hf


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>")


@pytest.fixture(scope="session")
def tiny(tokenizer: Any) -> LanguageModel:
    return open_model(tiny_hf(), tokenizer=tokenizer)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder: Path = tmp_path_factory.mktemp("text")
    for number in range(12):
        words = " ".join(SENTENCES[(number + i) % len(SENTENCES)] for i in range(3 + number % 5))
        (folder / f"document-{number:02d}.txt").write_text(words, encoding="utf-8")
    return open_corpus(folder)
