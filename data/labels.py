"""The user's own labels of tokens: a regular expression, a list of words, or a column about documents.

Labels of words and of matches are a `Tagger` like any other (the label stands in its universal tag), so that they reach
subword tokens the way word classes do: by the characters they share.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from data.wordclass import Tagger, Words

OTHER = "other"
"""Label of what nobody labelled."""
_WORD = re.compile(r"\w+|[^\w\s]")


class RegexTagger:
    """Labels what a regular expression matches: by the name of its group `(?P<name>...)`, else `match`.

    Raises ValueError if the expression cannot be read.
    """

    def __init__(self, pattern: str):
        try:
            self._pattern = re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"'{pattern}' is not a regular expression ({error})") from error
        self.name = f"regex-{pattern}"

    def tag(self, texts: Sequence[str]) -> list[Words]:
        """The matches of each text; an empty match is none."""
        return [
            Words.of([(m.start(), m.end(), m.lastgroup or "match", "", 0) for m in self._pattern.finditer(t) if m[0]])
            for t in texts
        ]


class LexiconTagger:
    """Labels words by a list, whatever their case; words that are not in it stay unlabelled."""

    def __init__(self, labels: Mapping[str, str], name: str = "lexicon"):
        self._labels = {word.lower(): label for word, label in labels.items()}
        self.name = name

    def tag(self, texts: Sequence[str]) -> list[Words]:
        """The words of each text that have a label."""
        return [Words.of(list(self._found(text))) for text in texts]

    def _found(self, text: str) -> Iterable[tuple[int, int, str, str, int]]:
        for match in _WORD.finditer(text):
            label = self._labels.get(match[0].lower())
            if label is not None:
                yield match.start(), match.end(), label, "", 0


def read_labels(path: Path | str, column: str = "label") -> Tagger | Mapping[str, str]:
    """Labels from a CSV file: a tagger if it has a column `word`, document -> label if it has a column `document`.

    Raises ValueError saying what the file has where it has neither, or no column of that name.
    """
    try:
        # opened here: pandas would unpack archives of any size and fetch addresses
        with open(path, encoding="utf-8-sig", newline="") as file:
            frame = pd.read_csv(file, dtype=str, keep_default_na=False, sep="\t" if str(path).endswith(".tsv") else ",")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as labels ({str(error).splitlines()[0]})") from error
    key = next((name for name in ("word", "document") if name in frame), None)
    if key is None or column not in frame:
        raise ValueError(
            f"{path} has the columns {', '.join(frame.columns)}; labels need `word` or `document`, and `{column}`"
        )
    labels = dict(zip(frame[key], frame[column], strict=True))
    return LexiconTagger(labels, f"words of {Path(path).name}") if key == "word" else labels


def of_tokens(documents: Iterable[Any]) -> np.ndarray:
    """Label of each token of documents read with one of the taggers above, `other` where there is none."""
    found = [d.word_class for d in documents]
    labels: np.ndarray = np.concatenate(found) if found else np.array([], dtype=object)
    labels[np.isin(labels, ["", "X", "SPACE"])] = OTHER
    return labels


def of_documents(documents: DataFrame, of: Mapping[str, str] | Callable[[str], str]) -> np.ndarray:
    """Label of each document by its name; ValueError if no document has one."""
    find = of if callable(of) else lambda name: of.get(name, OTHER)
    labels = np.array([find(str(name)) for name in documents["document"]], dtype=object)
    if (labels == OTHER).all():
        known = ", ".join(list(of)[:3]) if not callable(of) else "a function"
        raise ValueError(f"no document read is named in the labels (they name {known}); names must be equal")
    return labels
