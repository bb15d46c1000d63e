"""Word classes: the tagger behind one Protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Words:
    """The words of one text in order, as parallel arrays; spans count characters and do not overlap."""

    start: Int[np.ndarray, " n_words"]
    end: Int[np.ndarray, " n_words"]
    universal: np.ndarray
    """Universal part of speech (UPOS), object array of str."""
    fine: np.ndarray
    """Fine tag (Penn tags for English spaCy, XPOS for CoNLL-U)."""
    sentence: Int[np.ndarray, " n_words"]
    """Sentence within the text, from 0."""

    def __len__(self) -> int:
        return len(self.start)


class Tagger(Protocol):
    """Anything that finds words and their classes in texts."""

    @property
    def name(self) -> str:
        """Name and version; two taggers of one name tag alike (the cache relies on it)."""
        ...

    def tag(self, texts: Sequence[str]) -> list[Words]:
        """The words of each text."""
        ...
