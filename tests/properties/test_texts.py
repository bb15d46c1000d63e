"""Texts from the edges of Unicode, through the corpus, the tokenizer, the taggers and the files they lie in."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import CachedTagger, Corpus, Document, GoldTagger, Words, open_corpus
from data.alignment import align, encoder, trimmed
from data.labels import LexiconTagger, RegexTagger, of_documents, of_tokens, read_labels
from tests.properties.judge import judge
from tests.properties.strategies import numbers, texts

documents = st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=3)


@given(rows=documents, window=st.sampled_from([1, 2, 8]), n_tokens=numbers, seed=numbers, word=texts)
def test_any_text_becomes_tokens_or_a_sentence(
    tokenizer: Any, rows: list[tuple[str, str, str]], window: int, n_tokens: Any, seed: Any, word: str
) -> None:
    made = judge("data.Corpus.of", lambda: Corpus.of("x", [Document(n, t, d, {"party": d}) for n, t, d in rows]))
    if made is None:
        return
    tagger = LexiconTagger({word: "it"})
    frame = judge(
        "data.Corpus.tokens",
        lambda: made.tokens(tokenizer, n_tokens=n_tokens, tagger=tagger, seed=seed, tokens_per_document=50),
    )
    if frame is not None:
        whole = {d.document: d for d in made.tokenize(tokenizer, tagger=tagger)}
        assert len(frame) <= sum(map(len, whole.values()))
        assert set(frame["document"]) <= set(made.documents["document"])
    judge("data.Corpus.windows", lambda: list(made.windows(tokenizer, begin_token_id=0, window=window)))
    judge("data.Corpus.hash", lambda: made.hash)
    judge("data.open_corpus", lambda: made.select(pd.Series([d == word for d in made.documents["domain"]])))
    judge("data.labels.of_tokens", lambda: of_tokens(made.tokenize(tokenizer, tagger=tagger)))
    judge("data.labels.of_documents", lambda: of_documents(made.documents, {word: "it"}))


@given(text=texts, spans=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), max_size=5))
def test_offsets_are_aligned_with_words(tokenizer: Any, text: str, spans: list[tuple[int, int]]) -> None:
    ids_offsets = judge("data.alignment.encoder", lambda: encoder(tokenizer)(text))
    if ids_offsets is None:
        return
    ends = sorted({min(n, len(text)) for span in spans for n in span})
    words = Words.of([(a, b, "X", "", 0) for a, b in zip(ends[::2], ends[1::2], strict=False)])
    found = judge("data.alignment.align", lambda: align(text, ids_offsets[1], words.start, words.end))
    assert ((found >= -1) & (found < max(len(words), 1))).all() and len(found) == len(ids_offsets[0])
    cut = judge("data.alignment.trimmed", lambda: trimmed(text, ids_offsets[1]))
    assert (cut[:, 0] <= cut[:, 1]).all()


@given(held=st.lists(texts, max_size=3), pattern=texts, word=texts)
def test_taggers_answer_inside_the_text(held: list[str], pattern: str, word: str, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("tags")
    made = judge("data.labels.RegexTagger", lambda: RegexTagger(pattern))
    for name, tagger in (("RegexTagger", made), ("LexiconTagger", LexiconTagger({word: pattern}))):
        if tagger is None:
            continue
        kept = CachedTagger(tagger, folder / "cache")
        for entry in (f"data.labels.{name}.tag", "data.CachedTagger.tag", "data.CachedTagger.tag again"):
            words = judge(
                entry, lambda tagger=tagger, kept=kept, e=entry: (kept if "Cached" in e else tagger).tag(held)
            )
            assert words is not None and len(words) == len(held)
            assert all((w.end <= len(t)).all() and (w.start < w.end).all() for w, t in zip(words, held, strict=True))
    assert {p.name for p in folder.iterdir()} <= {"cache"}


SUFFIXES = [".txt", ".md", ".jsonl", ".csv", ".tsv", ".parquet", ".conllu"]
raw = st.one_of(
    st.binary(max_size=80),
    texts.map(lambda t: t.encode("utf-8", "surrogatepass")),
    texts.map(lambda t: t.encode("utf-16", "surrogatepass")),
    texts.map(lambda t: json.dumps({"text": t, "domain": t, "year": t}).encode()),
    texts.map(lambda t: b"text,domain\n" + t.encode("utf-8", "replace") + b",x\n"),
    st.sampled_from(
        [
            *(b"", b"\n\n", b"\xff\xfe", b"\xef\xbb\xbftext\nhi", b"PAR1PAR1", b"PAR1\0\0\0\0PAR1", b"\x80abc", b"["),
            *(b"[" * 100_000, b'{"text": 1}', b'{"text": "\\ud800"}', b'{"text": NaN}', b'{"text":"a","text":"b"}'),
            *(
                b"1\ta\tb\n",
                b"1\tw\tw\tX\t_\t_\t0\t_\t_\t_\n\n",
                b"1-9999999999999999999999\tw\t_\t_\t_\t_\t_\t_\t_\t_\n",
            ),
            *(
                "²\tw\tw\tX\t_\t_\t0\t_\t_\t_\n".encode(),
                b"2-1\tw\tw\tX\t_\t_\t0\t_\t_\t_\n1\ta\ta\tX\t_\t_\t_\t_\t_\t_\n",
            ),
            *(
                b'text\n"never closed',
                b"text\n" + b"a" * 200_000,
                b"text,text\na,b\n",
                b'{"text": ' + b"9" * 5000 + b"}",
            ),
        ]
    ),
)


encodings = ["utf-8", "UTF8", "cp1252", "utf-16", "no-such", "rot13", "idna", "base64", "", "a\0b", "utf-7"]


@given(
    content=raw,
    suffix=st.sampled_from(SUFFIXES),
    limit=numbers,
    year=numbers,
    wanted=texts | numbers | st.lists(texts | numbers),
    encoding=st.sampled_from(encodings),
)
def test_any_bytes_in_a_file_are_documents_or_a_sentence(
    content: bytes, suffix: str, limit: Any, year: Any, wanted: Any, encoding: str, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("files") / f"some{suffix}"
    path.write_bytes(content)
    before = sorted(path.parent.iterdir())
    found = judge(f"data.open_corpus {suffix}", lambda: open_corpus(path))
    assert found is None or sum(found.documents["characters"]) <= 2 * len(content) + 2
    judge(f"data.open_corpus {suffix}", lambda: open_corpus(path, limit=limit, since=year, encoding=encoding))
    judge(f"data.open_corpus {suffix}", lambda: open_corpus([path, path], where={"year": [year]}, until=year))
    judge(f"data.open_corpus {suffix}", lambda: open_corpus(path, where={"domain": wanted}))
    judge("data.labels.read_labels", lambda: read_labels(path))
    judge("data.GoldTagger", lambda: GoldTagger(path).tag(["a"]))
    assert sorted(path.parent.iterdir()) == before


@given(name=texts, below=st.booleans())
def test_any_name_is_opened_or_refused(name: str, below: bool) -> None:
    # A list, so that '+' in a name divides nothing; the folder '/' would be read for a long time.
    if name.startswith(("/", ".", "hf:")) or not name.strip():
        return
    place = f"no-such-folder/{name}" if below else name
    judge("data.open_corpus name", lambda: open_corpus([place]))
    judge("data.labels.read_labels name", lambda: read_labels(place))
    judge("data.GoldTagger name", lambda: GoldTagger(place).tag(["a"]))


def test_file_names_that_are_no_text(tmp_path: Path, tokenizer: Any) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff\xfe.txt")).write_text("some words")
    made = judge("data.open_corpus folder", lambda: open_corpus(tmp_path))
    frame = judge("data.Corpus.tokens", lambda: made.tokens(tokenizer))
    assert frame is not None and len(frame)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv"])
def test_a_line_of_ten_megabytes(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"long{suffix}"
    path.write_bytes(b"text\n" * (suffix == ".csv") + b"a" * 10_000_001)
    assert judge(f"data.open_corpus {suffix}", lambda: open_corpus(path)) is None


def test_labels_that_are_packed_are_not_unpacked(tmp_path: Path) -> None:
    """A kilobyte may unpack to a gigabyte, and pandas would do it by the file's name."""
    (tmp_path / "labels.csv").write_bytes(table := b"word,label\nthe,article\n")
    (tmp_path / "labels.csv.gz").write_bytes(gzip.compress(table))
    assert judge("data.labels.read_labels", lambda: read_labels(tmp_path / "labels.csv")) is not None
    assert judge("data.labels.read_labels", lambda: read_labels(tmp_path / "labels.csv.gz")) is None


def test_a_column_of_lists_is_told(tmp_path: Path) -> None:
    pd.DataFrame({"text": [["a"], ["b"]]}).to_parquet(tmp_path / "x.parquet")
    assert judge("data.open_corpus .parquet", lambda: open_corpus(tmp_path / "x.parquet")) is None
