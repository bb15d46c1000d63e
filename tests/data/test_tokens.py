"""Windows and token frames: every token once, in order, under its document, whatever the cut."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer

from data.corpus import Corpus
from data.sources import CorpusError, Document
from data.tokens import SPACE
from data.wordclass import Words

BEGIN_ID = 7


class Letters:
    """A tagger for tests: words are runs without spaces, classes their first letters, a full stop ends a sentence."""

    name = "letters"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def tag(self, texts: Sequence[str]) -> list[Words]:
        self.calls.append(len(texts))
        return [self.one(text) for text in texts]

    @staticmethod
    def one(text: str) -> Words:
        rows, at, sentence = [], 0, 0
        for word in text.split():
            at = text.index(word, at)
            rows.append((at, at + len(word), word[0].upper(), word[0], sentence))
            sentence += word.endswith(".")
            at += len(word)
        return Words.of(rows)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    texts = {
        f"d{i}": " ".join(f"Käse {w} und naïve Öre {i}." for w in ("eins", "zwei", "drei")[: 1 + i % 3])
        for i in range(9)
    }
    return Corpus.of("test", [Document(n, t, "odd" if int(n[1:]) % 2 else "even", {"n": n}) for n, t in texts.items()])


def test_windows_hold_every_token_once_behind_a_begin_token(corpus: Corpus, tokenizer: Tokenizer) -> None:
    windows = list(corpus.windows(tokenizer, begin_token_id=BEGIN_ID, window=8, tagger=Letters()))
    frame = corpus.tokens(tokenizer, tagger=Letters())
    for w in windows:
        assert w.token_ids[0] == BEGIN_ID and w.position_in_document[0] == -1 and w.sentence[0] == -1
        assert (w.text[0], w.word_class[0], w.fine[0]) == ("", "", "") and 2 <= len(w) <= 8
        assert (
            len({len(a) for a in (w.token_ids, w.text, w.sentence, w.word_class, w.fine, w.position_in_document)}) == 1
        )
    joined = pd.DataFrame(
        {
            "document": np.concatenate([[w.document] * (len(w) - 1) for w in windows]),
            "sentence": np.concatenate([w.sentence[1:] for w in windows]),
            "position": np.concatenate([w.position_in_document[1:] for w in windows]),
            "token_id": np.concatenate([w.token_ids[1:] for w in windows]),
            "text": np.concatenate([w.text[1:] for w in windows]),
            "word_class": np.concatenate([w.word_class[1:] for w in windows]),
            "fine": np.concatenate([w.fine[1:] for w in windows]),
            "domain": np.concatenate([[w.domain] * (len(w) - 1) for w in windows]),
        }
    )
    assert joined.columns.tolist() == frame.columns.tolist()
    for column in frame:
        assert joined[column].tolist() == frame[column].tolist(), column
    for document in corpus:
        mine = frame[frame["document"] == document.name]
        assert mine["token_id"].tolist() == tokenizer.encode(document.text, add_special_tokens=False).ids
        assert mine["position"].tolist() == list(range(len(mine)))
        assert set(mine["domain"]) == {document.domain}
    assert frame["document"].drop_duplicates().tolist() == [corpus[i].name for i in corpus.order(0)]


def test_windows_without_a_begin_token_are_bare(corpus: Corpus, tokenizer: Tokenizer) -> None:
    bare = list(corpus.windows(tokenizer, begin_token_id=None, window=5))
    assert all(w.position_in_document[0] % 5 == 0 for w in bare)
    whole = corpus.tokens(tokenizer)
    assert np.concatenate([w.token_ids for w in bare]).tolist() == whole["token_id"].tolist()
    with pytest.raises(ValueError, match="window=1 leaves no room"):
        next(corpus.windows(tokenizer, begin_token_id=BEGIN_ID, window=1))
    assert {len(w) for w in corpus.windows(tokenizer, begin_token_id=BEGIN_ID, window=2)} == {2}


def test_fewer_tokens_are_the_beginning_of_more(corpus: Corpus, tokenizer: Tokenizer) -> None:
    whole = corpus.tokens(tokenizer, tagger=Letters())
    for n in (1, 17, 60, len(whole)):
        some = corpus.tokens(tokenizer, n_tokens=n, tagger=Letters())
        pd.testing.assert_frame_equal(some, whole.head(n))
        windows = list(corpus.windows(tokenizer, begin_token_id=BEGIN_ID, window=16, n_tokens=n))
        assert sum(len(w) - 1 for w in windows) == n
    assert len(corpus.tokens(tokenizer, n_tokens=10**9)) == len(whole)
    with pytest.raises(CorpusError, match="n_tokens=0"):
        corpus.tokens(tokenizer, n_tokens=0)


def test_a_cap_takes_the_beginning_of_more_documents(corpus: Corpus, tokenizer: Tokenizer) -> None:
    capped = corpus.tokens(tokenizer, n_tokens=40, tokens_per_document=5)
    sizes = capped.groupby("document").size()
    assert (sizes == 5).all() and len(sizes) == 8
    whole = corpus.tokens(tokenizer)
    assert capped["token_id"].tolist() == whole[whole["position"] < 5].head(40)["token_id"].tolist()


def test_another_seed_is_another_order_of_the_same_tokens(corpus: Corpus, tokenizer: Tokenizer) -> None:
    first, second = corpus.tokens(tokenizer, seed=0), corpus.tokens(tokenizer, seed=1)
    assert first["document"].tolist() != second["document"].tolist()
    keys = ["document", "position"]
    pd.testing.assert_frame_equal(
        first.sort_values(keys, ignore_index=True), second.sort_values(keys, ignore_index=True)
    )


def test_shards_are_whole_documents_and_join_to_the_pass(corpus: Corpus, tokenizer: Tokenizer) -> None:
    documents = [d.document for d in corpus.tokenize(tokenizer)]
    shards = list(corpus.shards(tokenizer, tokens_per_shard=40))
    assert [d.document for s in shards for d in s] == documents and len(shards) > 2
    sizes = [sum(map(len, s)) for s in shards]
    assert all(size >= 40 for size in sizes[:-1])
    assert all(sum(map(len, s[:-1])) < 40 for s in shards)
    n = sizes[0] + sizes[1] + 3
    shorter = list(corpus.shards(tokenizer, tokens_per_shard=40, n_tokens=n))
    assert [[d.document for d in s] for s in shorter[:2]] == [[d.document for d in s] for s in shards[:2]]
    assert sum(len(d) for s in shorter for d in s) == n


def test_documents_carry_their_metadata_and_place(corpus: Corpus, tokenizer: Tokenizer) -> None:
    found = list(corpus.tokenize(tokenizer))
    assert [d.document_index for d in found] == list(range(len(corpus)))
    assert all(d.metadata == {"n": d.document} for d in found)


def test_the_frame_is_arrow_and_says_missing_where_nothing_was_tagged(corpus: Corpus, tokenizer: Tokenizer) -> None:
    columns = ["document", "sentence", "position", "token_id", "text", "word_class", "fine", "domain"]
    frame = corpus.tokens(tokenizer, n_tokens=30)
    assert frame.columns.tolist() == columns
    assert all(isinstance(t, pd.ArrowDtype) for t in frame.dtypes)
    assert frame[["sentence", "word_class", "fine"]].isna().all().all()
    assert frame[["document", "text", "token_id", "domain"]].notna().all().all()


def test_tags_follow_the_words_and_blank_tokens_are_space(tokenizer: Tokenizer) -> None:
    corpus = Corpus.of("one", [Document("d", "Äpfel und Öl. \n\n Zwei Käse.", "d")])
    frame = corpus.tokens(tokenizer, tagger=Letters())
    blank = frame["text"].str.strip() == ""
    assert set(frame.loc[blank, "word_class"]) <= {SPACE} and (~blank).any()
    solid = frame[~blank]
    assert solid["word_class"].drop_duplicates().tolist() == ["Ä", "U", "Ö", "Z", "K"]
    assert dict(zip(solid["word_class"], solid["sentence"], strict=True)) == {"Ä": 0, "U": 0, "Ö": 0, "Z": 1, "K": 1}
    assert frame["sentence"].is_monotonic_increasing and frame["sentence"].notna().all()


def test_tags_do_not_depend_on_the_cut_and_small_documents_are_tagged_together(
    corpus: Corpus, tokenizer: Tokenizer
) -> None:
    tagger = Letters()
    list(corpus.tokenize(tokenizer, tagger=tagger))
    assert tagger.calls == [9]


def test_a_document_of_no_words_is_all_x(tokenizer: Tokenizer) -> None:
    class Blind(Letters):
        @staticmethod
        def one(text: str) -> Words:
            return Words.of([])

    frame = Corpus.of("one", [Document("d", "Ab cd", "d")]).tokens(tokenizer, tagger=Blind())
    assert set(frame["word_class"]) <= {"X", SPACE} and set(frame["sentence"]) == {0}


def test_a_shard_is_full_when_it_holds_exactly_what_is_asked(tokenizer: Tokenizer) -> None:
    same = Corpus.of("x", [Document(str(i), "the same words again") for i in range(5)])
    n = len(next(same.tokenize(tokenizer)))
    assert [sum(map(len, s)) for s in same.shards(tokenizer, tokens_per_shard=2 * n)] == [2 * n, 2 * n, n]
