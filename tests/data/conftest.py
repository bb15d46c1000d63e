"""Real tokenizers, trained in a moment on text that is mostly not ASCII."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from jaxtyping import install_import_hook
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

# Shapes and types in these modules' signatures are checked at every call of the tests.
install_import_hook(["data.alignment", "data.tokens", "data.wordclass", "data.conllu"], "beartype.beartype")

TEXTS = (
    "Der süße Käse kostete fünf Öre, naïve Übergröße; ſo wär’s.",
    "東京は大きい。 日本語の テスト です。",
    "Москва – большой город 🙂 и emoji 👩‍🚀 ok.",
    "Plain English words\n\n  with white   space, and a naïve café at the end.",
)


def byte_level() -> Tokenizer:
    """Byte-level BPE as in GPT-2: the leading space is inside the offsets, characters are cut between tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    return tokenizer


def unigram() -> Tokenizer:
    """Unigram with a metaspace, as sentencepiece makes it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=170, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """BPE with a metaspace as in Llama: characters it does not know become bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=305, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([TEXTS[0], TEXTS[3]] * 20, trainer)
    return tokenizer


class CountsBytes:
    """The same tokenizer with offsets in UTF-8 bytes, as some sentencepiece wrappers give them."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer

    def encode(self, text: str) -> Any:
        found = self.tokenizer.encode(text, add_special_tokens=False)
        offsets = [(len(text[:a].encode()), len(text[:b].encode())) for a, b in found.offsets]
        return SimpleNamespace(ids=found.ids, offsets=offsets)


KINDS = {"byte_level": byte_level, "unigram": unigram, "byte_fallback": byte_fallback}


@pytest.fixture(scope="session", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """A tokenizer of each kind in turn."""
    return KINDS[request.param]()


@pytest.fixture(scope="session")
def of_kind() -> Mapping[str, Tokenizer]:
    """Tokenizers by kind."""
    return {kind: make() for kind, make in KINDS.items()}


@pytest.fixture(scope="session")
def counts_bytes() -> type[CountsBytes]:
    """Wrapper that turns a tokenizer's offsets into bytes."""
    return CountsBytes


@pytest.fixture(params=TEXTS, ids=["German", "Japanese", "Russian", "English"])
def text(request: pytest.FixtureRequest) -> str:
    """Each training text in turn."""
    return request.param
