"""A tiny model and enough documents to hold some out."""

import numpy as np
import pytest

from data.corpus import Corpus
from data.sources import Document
from probes import LanguageModel
from tests.probes.tiny import SENTENCES


@pytest.fixture(scope="session")
def words_model(tiny: LanguageModel) -> LanguageModel:
    return tiny


@pytest.fixture(scope="session")
def words() -> Corpus:
    rng, vocabulary = np.random.default_rng(0), " ".join(SENTENCES).split()
    texts = [" ".join(rng.choice(vocabulary, 150)) for _ in range(30)]
    return Corpus.of("words", [Document(f"d{i:02d}", text, "random", {}) for i, text in enumerate(texts)])
