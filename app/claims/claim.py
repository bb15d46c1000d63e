"""A claim of the literature as one entry: what is said, by whom, what decides it, and how the verdict is computed."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from pandas import DataFrame, Series

Verdict = Literal["holds", "holds partly", "fails here", "not yet measured"]
VERDICTS: tuple[Verdict, ...] = ("holds", "holds partly", "fails here", "not yet measured")
NOT_YET: Verdict = "not yet measured"

Frames = Mapping[str, DataFrame]


class Lacking(ValueError):
    """The tables lack rows, a control or a variation without which the claim cannot be decided; says which."""


class Number(NamedTuple):
    """A measured number with its interval."""

    value: float
    low: float
    high: float

    def text(self, form: str = ".2f") -> str:
        """`0.38 [0.37, 0.38]`; without brackets if the interval has no width or is not known."""
        whole = format(self.value, form)
        if not (math.isfinite(self.low) and math.isfinite(self.high)) or self.low == self.high:
            return whole
        return f"{whole} [{format(self.low, form)}, {format(self.high, form)}]"


@dataclass(frozen=True)
class Finding:
    """What the tables of a run say of a claim."""

    verdict: Verdict
    measured: str
    """The numbers, with their intervals and what these are."""
    control: str = ""
    """The same numbers under the control."""
    n: str = ""
    """Sample size."""


Decide = Callable[[Frames], Finding]


@dataclass(frozen=True)
class Claim:
    """One claim; `judge` computes its verdict from the tables of a run and from nothing else."""

    name: str
    """Handle in addresses and on the command line, e.g. `neurons-active`."""
    statement: str
    """The claim, as its source puts it."""
    said_by: str
    """Who says it."""
    threshold: str
    """What is called `holds`, `holds partly` and `fails here`, in numbers."""
    experiment: str
    """The command that makes the tables."""
    needs: tuple[str, ...]
    """Tables that are read."""
    decide: Decide
    figure: str
    """The figure of the catalogue that shows it; empty if there is none."""
    page: str
    """The page that shows it."""
    sources: tuple[str, ...] = ()
    """Keys of `app.figures.sources.BIBTEX`."""
    fits: Callable[[Mapping[str, Any]], bool] = lambda settings: True
    """Whether a run with these settings is about the claim at all (a control run of its own is not)."""

    def judge(self, tables: Frames) -> Finding:
        """The verdict on these tables; `not yet measured` with the reason where they do not suffice."""
        absent = [name for name in self.needs if name not in tables or tables[name].empty]
        if absent:
            return Finding(NOT_YET, f"no rows of {', '.join(absent)}")
        try:
            return self.decide(tables)
        except Lacking as reason:
            return Finding(NOT_YET, str(reason))
        except KeyError as column:  # tables that an older version wrote
            return Finding(NOT_YET, f"the tables {', '.join(self.needs)} have no {column}")


def verdict(*, holds: bool, partly: bool) -> Verdict:
    """`holds`, else `holds partly`, else `fails here`."""
    return "holds" if holds else "holds partly" if partly else "fails here"


def share_of(passed: Iterable[bool]) -> Verdict:
    """`holds` if all passed, `holds partly` if some did; Lacking if there is nothing to pass."""
    every = list(passed)
    if not every:
        raise Lacking("nothing was measured")
    return verdict(holds=all(every), partly=any(every))


def rows(frame: DataFrame, what: str = "", /, **where: Any) -> DataFrame:
    """The rows whose columns have these values; Lacking (naming `what`) if there is none."""
    kept = frame
    for column, value in where.items():
        kept = kept[kept[column] == value]
    if kept.empty:
        raise Lacking(f"no rows of {what or ', '.join(map(str, where.values()))}")
    return kept


def mean(found: DataFrame, value: str = "value", low: str = "low", high: str = "high") -> Number:
    """Mean over the rows (layers), with the mean of their bounds: the layers share their documents and do not average
    each other's errors away.  Lacking if a value is missing.
    """
    number = Number(*(float(found[name].mean()) for name in (value, low, high)))
    if not math.isfinite(number.value):
        raise Lacking(f"{value} is missing")
    return number


def over_seeds(values: "Series[Any] | Iterable[float]") -> Number:
    """Mean, least and greatest over seeds."""
    held = np.asarray(list(values), dtype=float)
    if not len(held) or not np.isfinite(held).all():
        raise Lacking("a seed has no value")
    return Number(float(held.mean()), float(held.min()), float(held.max()))


def last_step(frame: DataFrame) -> DataFrame:
    """The rows of the last snapshot, where the run measured several."""
    return frame[frame["step"] == frame["step"].max()] if "step" in frame.columns else frame


def count(frame: DataFrame, column: str = "n_tokens", unit: str = "tokens") -> str:
    """`20,000 tokens`: the largest number in the column."""
    return f"{int(frame[column].max()):,} {unit}"
