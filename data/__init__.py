"""What lies on disk: corpora, word classes, run folders.  No torch here."""

from data.builtin import DEFAULT_CORPUS
from data.config import Config, Probability, digest
from data.corpus import Corpus, open_corpus
from data.progress import Cancelled, Progress, silent
from data.runs import Run, RunError, list_runs, open_run
from data.sources import CorpusError, Document
from data.tables import Tables
from data.tokens import TokenizedDocument, Window
from data.wordclass import Tagger, Words

__all__ = [
    "Cancelled",
    "Config",
    "Corpus",
    "CorpusError",
    "DEFAULT_CORPUS",
    "Document",
    "Probability",
    "Progress",
    "Run",
    "RunError",
    "Tables",
    "Tagger",
    "TokenizedDocument",
    "Window",
    "Words",
    "digest",
    "list_runs",
    "open_corpus",
    "open_run",
    "silent",
]
