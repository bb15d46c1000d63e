"""How long work tells that it moves, and how it is stopped."""

from typing import Protocol, runtime_checkable


class Cancelled(Exception):
    """Raised by a progress callback to stop the work; whatever was saved stays saved."""


@runtime_checkable
class Progress(Protocol):
    """Called by long work with how much is done; raise `Cancelled` inside it to stop the work."""

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """`done` of `total` units of work are finished; `note` says in a few words what is under way."""
        ...


def silent(done: float, total: float, note: str = "") -> None:
    """The progress callback that tells nobody."""


def within(progress: Progress, before: float, whole: float, share: float = 1) -> Progress:
    """The callback for a part of the work: `share` of `whole`, when `before` of it is finished.

    The part's own done / total becomes before + share * done / total; a part without work (total 0) stays at its start.
    """

    def relay(done: float, total: float, note: str = "") -> None:
        progress(before + (share * done / total if total else 0), whole, note)

    return relay
