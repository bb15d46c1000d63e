import numpy as np
import pytest

from data.corpus import Corpus, Document

PHRASE = "the river bends slowly past old stone mills while seven grey herons wait among tall green reeds"
WORDS = PHRASE.split()


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    rng = np.random.default_rng(0)
    return Corpus.of("herons", [Document(f"d{i}", " ".join(rng.choice(WORDS, 80)), "x", {}) for i in range(20)])
