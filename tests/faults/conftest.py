"""Tiny models on disk and text of a few thousand tokens."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.faults.work import do
from tests.probes.conftest import tokenizer  # noqa: F401  a fixture
from tests.probes.families import tiny_moe
from tests.probes.tiny import SENTENCES, tiny_hf


@pytest.fixture(scope="session")
def inputs(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A folder with `dense`, `mixture` and `texts`."""
    place: Path = tmp_path_factory.mktemp("inputs")
    for name, model in (("dense", tiny_hf()), ("mixture", tiny_moe("olmoe", vocab_size=300))):
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    texts = place / "texts"
    texts.mkdir()
    for number in range(60):
        words = " ".join(SENTENCES[(number * i + i) % len(SENTENCES)] for i in range(3 + number % 5))
        (texts / f"document-{number:02d}.txt").write_text(words, encoding="utf-8")
    return place


@pytest.fixture(scope="session")
def whole(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, int]]:
    """Work of a kind done without a stop, once for all tests: where, and how many events it has."""
    folder = tmp_path_factory.mktemp("whole")

    @cache
    def done(kind: str) -> tuple[Path, int]:
        events = do(kind, inputs, folder / kind)
        assert events is not None
        return folder / kind, events

    return done
