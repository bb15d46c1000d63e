"""How errors, durations and the pace of work are told to a person: on a command line, on a page, in progress.json."""

import time
from collections.abc import Callable
from typing import Any

_COUNTED = 500
_ENOUGH = 0.002  # the share of the work after which its time left is worth telling


def sentence(error: Exception) -> str:
    """What an error says to a person, on one line; pydantic's list of complaints becomes `field: complaint; ...`.

    Always text that can be written: an error may quote a name that is no character.
    """
    return _words(error).encode("utf-8", "backslashreplace").decode()


def _words(error: Exception) -> str:
    complaints: Callable[[], list[dict[str, Any]]] | None = getattr(error, "errors", None)
    if type(error).__name__ == "ValidationError" and complaints is not None:
        found = complaints()
        # a bad part makes the whole look too short: what is said of a part is not said again of its whole
        inner = {c["loc"][:depth] for c in found for depth in range(1, len(c["loc"]))}
        return "; ".join(_complaint(c) for c in found if c["loc"] not in inner)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _complaint(said: dict[str, Any]) -> str:
    where, what, given = ".".join(map(str, said["loc"])), str(said["msg"]), said["input"]
    if what.startswith("Input should") and isinstance(given, int | float):
        what = f"{what}, not {given}"
    what = what.removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


class Pace:
    """Rate and time left of work reported as `done` of `total`; starts again when the work changes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._start = clock()
        self._first = 0.0
        self._last = 0.0
        self._total = -1.0

    def words(self, done: float, total: float) -> str:
        """For example `1,520/s, 12 s left`; empty until something moved, and no rate of shares or of a few parts."""
        now = self._clock()
        if total != self._total or done < self._last:
            self._start, self._first, self._total = now, done, total
        self._last = done
        if done <= self._first or now <= self._start:
            return ""
        rate = (done - self._first) / (now - self._start)
        words = [f"{_short(rate)}/s"] if total >= _COUNTED else []
        if total > done and done - self._first >= total * _ENOUGH:
            words.append(f"{duration((total - done) / rate)} left")
        return ", ".join(words)


def duration(seconds: float) -> str:
    """`8 s`, `2 min 05 s`, `1 h 10 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
