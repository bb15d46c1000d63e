"""Words and subwords: against an oracle that counts characters one by one, on tokenizers of every kind."""

import io
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data.alignment import align, encoder, trimmed

TEXTS = ("Der süße Käse, naïve.", "東京は大きい。 日本語", "Москва 🙂 и emoji 👩‍🚀 ok.", "Plain words\n\n  and café.")


def words_of(text: str) -> tuple[np.ndarray, np.ndarray]:
    spans = [m.span() for m in re.finditer(r"[\w’]+|[^\w\s]", text)]
    return np.array([a for a, _ in spans], dtype=int), np.array([b for _, b in spans], dtype=int)


def oracle(text: str, covered: list[set[int]], start: np.ndarray, end: np.ndarray) -> list[int]:
    """The word with most of the characters covered by each token, white space aside, first among equals."""
    found = []
    for characters in covered:
        shared = [
            len({i for i in characters if a <= i < b and not text[i].isspace()})
            for a, b in zip(start, end, strict=True)
        ]
        found.append(int(np.argmax(shared)) if max(shared, default=0) else -1)
    return found


def byte_pieces(tokenizer: Tokenizer, ids: list[int]) -> list[bytes]:
    """What each token of a byte-level vocabulary stands for, from its name alone (the table of GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {chr(b): b for b in printable}
    names |= {chr(256 + n): b for n, b in enumerate(b for b in range(256) if b not in printable)}
    return [bytes(names[c] for c in tokenizer.id_to_token(i)) for i in ids]


@pytest.mark.parametrize("text", [*TEXTS, "👩‍🚀👩‍🚀 x", "  \n\t", "ñandú東京 Übergröße", "a"])
def test_byte_level_tokens_go_to_the_word_that_has_their_bytes(of_kind: Mapping[str, Tokenizer], text: str) -> None:
    tokenizer = of_kind["byte_level"]
    ids, offsets = encoder(tokenizer)(text)
    of_byte = [i for i, c in enumerate(text) for _ in c.encode()]
    covered, at = [], 0
    for piece in byte_pieces(tokenizer, ids.tolist()):
        covered.append(set(of_byte[at : at + len(piece)]))
        at += len(piece)
    assert at == len(text.encode())
    start, end = words_of(text)
    assert align(text, offsets, start, end).tolist() == oracle(text, covered, start, end)


def test_every_kind_gives_nearly_every_word_its_tokens_in_order(tokenizer: Tokenizer, text: str) -> None:
    ids, offsets = encoder(tokenizer)(text)
    start, end = words_of(text)
    word = align(text, offsets, start, end)
    assert word.max() == len(start) - 1 and len(ids) == len(word)
    blank = [not text[a:b].strip() for a, b in offsets]
    assert (word[blank] == -1).all() and (word[~np.array(blank)] >= 0).all()
    # Tokens may join a word and its punctuation, so a few words go without.
    known = word[word >= 0]
    assert (np.diff(known) >= 0).all() and len(set(known.tolist())) >= 0.9 * len(start)


def test_offsets_in_bytes_give_the_same_tokens_and_words(tokenizer: Tokenizer, counts_bytes: Any) -> None:
    in_characters, in_bytes = encoder(tokenizer), encoder(counts_bytes(tokenizer))
    for text in TEXTS:
        ids, offsets = in_characters(text)
        same_ids, same_offsets = in_bytes(text)
        np.testing.assert_array_equal(ids, same_ids)
        np.testing.assert_array_equal(offsets, same_offsets)


def test_bytes_taken_for_characters_would_be_noticed(of_kind: Mapping[str, Tokenizer], counts_bytes: Any) -> None:
    """The trap this guards against is real: most words of these texts go wrong if byte offsets are used as they are."""
    tokenizer = of_kind["unigram"]
    text = TEXTS[2]
    start, end = words_of(text)
    right = align(text, encoder(tokenizer)(text)[1], start, end)
    raw = np.array(counts_bytes(tokenizer).encode(text).offsets)
    assert (align(text, np.minimum(raw, len(text)), start, end) != right).mean() > 0.5


def test_sentencepiece_itself() -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20), model_writer=model, vocab_size=200, hard_vocab_limit=False, minloglevel=2
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())

    new = tuple(map(int, sentencepiece.__version__.split(".")[:3])) >= (0, 2, 2)
    proto = {"return_type": "proto"} if new else {"out_type": "immutable_proto"}

    def encode(text: str) -> SimpleNamespace:
        pieces = processor.encode(text, **proto).pieces
        return SimpleNamespace(ids=[p.id for p in pieces], offsets=[(p.begin, p.end) for p in pieces])

    text = "Der süße Käse, 東京 naïve"
    start, end = words_of(text)
    _, offsets = encoder(SimpleNamespace(encode=encode))(text)
    word = align(text, offsets, start, end)
    spelled = ["".join(text[a:b] for a, b in offsets[word == i]).strip(" ,") for i in range(len(start))]
    assert [s for s in spelled if s] == ["Der", "süße", "Käse", "東京", "naïve"]


def test_a_transformers_tokenizer_answers_as_the_tokenizer_inside_it(of_kind: Mapping[str, Tokenizer]) -> None:
    transformers = pytest.importorskip("transformers")
    inside = of_kind["byte_level"]
    outside = transformers.PreTrainedTokenizerFast(tokenizer_object=inside, model_max_length=8)
    for text in TEXTS:
        for a, b in zip(encoder(inside)(text), encoder(outside)(text), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False

        def __call__(self, text: str) -> None: ...

        def encode(self, text: str) -> list[int]:
            return []

    with pytest.raises(ValueError, match="Slow gives no offsets; use the fast tokenizer"):
        encoder(Slow())
    with pytest.raises(ValueError, match="SimpleNamespace gives no offsets"):
        encoder(SimpleNamespace(encode=lambda text: [1, 2]))
    with pytest.raises(ValueError, match="must count characters or UTF-8 bytes"):
        encoder(SimpleNamespace(encode=lambda text: SimpleNamespace(ids=[1], offsets=[(0, 3)])))


@settings(deadline=None)
@given(
    text=st.text(alphabet="ab é東\n", min_size=12, max_size=30),
    cuts=st.lists(st.integers(0, 30), min_size=4),
    tokens=st.data(),
)
def test_any_spans_against_the_oracle(text: str, cuts: list[int], tokens: st.DataObject) -> None:
    edges = sorted({min(c, len(text)) for c in cuts})
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    start, end = np.array([a for a, _ in pairs], dtype=int), np.array([b for _, b in pairs], dtype=int)
    position = st.integers(0, len(text))
    drawn = tokens.draw(st.lists(st.tuples(position, position), max_size=8))
    offsets = np.array([sorted(pair) for pair in drawn], dtype=int).reshape(-1, 2)
    inside = [
        {i for i in range(*pair) if text[pair[0] : i + 1].strip() and text[i : pair[1]].strip()}
        for pair in offsets.tolist()
    ]
    # Spaces inside a word count here, as inside a token: only those at a token's ends are set aside.
    expected = []
    for characters in inside:
        shared = [len(characters & set(range(a, b))) for a, b in zip(start, end, strict=True)]
        expected.append(int(np.argmax(shared)) if max(shared, default=0) else -1)
    assert align(text, offsets, start, end).tolist() == expected


def test_the_larger_share_wins_and_the_first_between_equals() -> None:
    text = "a,longer x"
    start, end = np.array([0, 1, 2, 9]), np.array([1, 2, 8, 10])
    offsets = np.array([[0, 4], [0, 2], [1, 4], [7, 10], [4, 10], [8, 9]])
    assert align(text, offsets, start, end).tolist() == [2, 0, 2, 2, 2, -1]


def test_trimming_takes_white_space_from_both_ends() -> None:
    text = " a  b\n"
    offsets = np.array([[0, 2], [0, 6], [2, 4], [5, 6], [3, 3]])
    assert trimmed(text, offsets).tolist() == [[1, 2], [1, 5], [4, 4], [6, 6], [3, 3]]
    assert trimmed("  ", np.array([[0, 2]])).tolist() == [[2, 2]]
