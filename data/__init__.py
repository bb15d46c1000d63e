"""What lies on disk: corpora, word classes, run folders.  No torch here."""

from data.config import Config, Probability, digest
from data.progress import Cancelled, Progress, silent
from data.runs import Run, RunError, list_runs, open_run
from data.tables import Tables

__all__ = [
    "Cancelled",
    "Config",
    "Probability",
    "Progress",
    "Run",
    "RunError",
    "Tables",
    "digest",
    "list_runs",
    "open_run",
    "silent",
]
