"""What lies on disk: corpora, word classes, run folders.  No torch here."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data.builtin import DEFAULT_CORPUS
    from data.config import Config, Probability, digest
    from data.conllu import GoldTagger
    from data.corpus import Corpus, open_corpus
    from data.progress import Cancelled, Progress, silent
    from data.runs import Run, RunError, list_runs, open_run
    from data.sources import CorpusError, Document
    from data.tables import Tables
    from data.tokens import TokenizedDocument, Window
    from data.wordclass import CachedTagger, SpacyTagger, Tagger, Words, default_tagger

__all__ = [
    "CachedTagger",
    "Cancelled",
    "Config",
    "Corpus",
    "CorpusError",
    "DEFAULT_CORPUS",
    "Document",
    "GoldTagger",
    "Probability",
    "Progress",
    "Run",
    "RunError",
    "SpacyTagger",
    "Tables",
    "Tagger",
    "TokenizedDocument",
    "Window",
    "Words",
    "default_tagger",
    "digest",
    "list_runs",
    "open_corpus",
    "open_run",
    "silent",
]

# Names are fetched when first asked for: `sparsescope --help` passes through this package and must not load pandas.
_HOMES = {
    "builtin": ("DEFAULT_CORPUS",),
    "config": ("Config", "Probability", "digest"),
    "conllu": ("GoldTagger",),
    "corpus": ("Corpus", "open_corpus"),
    "progress": ("Cancelled", "Progress", "silent"),
    "runs": ("Run", "RunError", "list_runs", "open_run"),
    "sources": ("CorpusError", "Document"),
    "tables": ("Tables",),
    "tokens": ("TokenizedDocument", "Window"),
    "wordclass": ("CachedTagger", "SpacyTagger", "Tagger", "Words", "default_tagger"),
}
_HOME = {name: f"data.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module 'data' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)
