"""Do a run again from what it says of itself, and hold the tables of both against each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from app import jobs
from data.progress import Progress
from data.runs import Run, RunError, check_name, create

CLOCKS = ("seconds", "cpu_seconds", "wall_seconds")
"""Columns that hold how long something took, which no two runs share."""
EQUAL, CLOSE, OTHER, LACKING = "equal", "close", "differs", "lacking"
NEAR = 1e-6
"""Largest relative difference that is called close: rounding in another order of summation."""


def again(run: Run, name: str | None = None, tell: Progress | None = None, *, trust_remote_code: bool = False) -> Run:
    """A new run, `NAME-again` if not named, of the same kind, settings and seed; a stopped one goes on.

    RunError if nothing here measures runs of this kind or the run is a record, if the name is taken by a run of other
    settings, or if the run let its model's own code run: run folders change hands, so that is asked for anew by
    `trust_remote_code`.
    """
    if run.kind not in jobs.WORK:
        raise RunError(f"run '{run.name}' is of kind '{run.kind}', which nothing here measures; it cannot be redone")
    settings = run.asked
    if "recorded_in" in settings:
        files = ", ".join(map(str, settings["recorded_in"]))
        raise RunError(
            f"run '{run.name}' was put together from what long tests recorded ({files}); run those tests again instead"
        )
    if jobs.trusts(settings) and not trust_remote_code:
        raise RunError(
            f"run '{run.name}' let code that its model brings run; read that code, then give --trust-remote-code "
            "(trust_remote_code=True)"
        )
    made = create(
        check_name(name or f"{run.name}-again"),
        settings,
        kind=run.kind,
        seed=run.provenance.get("seed"),
    )
    if made.path.resolve() == run.path.resolve():
        raise RunError(f"'{made.name}' is the run itself; choose another name")
    jobs.carry_out(made, jobs.work_of(made.kind), tell)
    return made


def versions(first: Run, second: Run) -> DataFrame:
    """Software, commit and machine in which two runs differ: columns `what, first, second`."""
    a, b = (_made_with(run.provenance) for run in (first, second))
    rows = [(key, a.get(key, ""), b.get(key, "")) for key in sorted(a | b) if a.get(key) != b.get(key)]
    return DataFrame(rows, columns=["what", "first", "second"]).astype(str)


def tables(first: Run, second: Run) -> DataFrame:
    """One row a table of either run: `table, verdict, rows, rows_second, difference`.

    verdict: `equal` (every value, durations aside), `close` (numbers within NEAR of each other, relative), `differs`,
    `lacking` (one of the runs does not hold it); `difference` says where, with the largest relative difference.
    """
    names = dict.fromkeys([*first.table_names(), *second.table_names()])
    columns = ["table", "verdict", "rows", "rows_second", "difference"]
    return DataFrame([_table(name, first, second) for name in names], columns=columns)


def _table(name: str, first: Run, second: Run) -> tuple[str, str, int, int, str]:
    held = [run for run in (first, second) if name in run.table_names()]
    if len(held) == 1:
        rows = len(held[0].table(name))
        counts = (rows, 0) if held[0] is first else (0, rows)
        return name, LACKING, *counts, f"only run '{held[0].name}' holds it"
    a, b = first.table(name), second.table(name)
    verdict, where = difference(a, b)
    return name, verdict, len(a), len(b), where


def difference(first: DataFrame, second: DataFrame) -> tuple[str, str]:
    """(`equal`, `close` or `differs`; where) of two frames, durations aside."""
    a, b = (frame[[c for c in frame.columns if c not in CLOCKS]].reset_index(drop=True) for frame in (first, second))
    if set(a.columns) != set(b.columns):
        odd = sorted(map(str, set(a.columns) ^ set(b.columns)))
        return OTHER, f"columns {', '.join(odd)} are in one of them only"
    if len(a) != len(b):
        return OTHER, f"{len(a):,} rows and {len(b):,}"
    worst, worst_column = 0.0, ""
    for column in a.columns:
        apart = _apart(a[column], b[column])
        if apart > worst:
            worst, worst_column = apart, str(column)
    if not worst:
        return EQUAL, ""
    if not np.isfinite(worst):
        return OTHER, f"column {worst_column}"
    return CLOSE if worst <= NEAR else OTHER, f"column {worst_column}, relative difference up to {worst:.1e}"


def _apart(a: "pd.Series[Any]", b: "pd.Series[Any]") -> float:
    """Largest difference over the largest magnitude of the column; infinite for unequal words and gaps elsewhere."""
    if a.equals(b):
        return 0.0
    if not (pd.api.types.is_numeric_dtype(a) and pd.api.types.is_numeric_dtype(b)):
        same = (a == b) | (a.isna() & b.isna())
        return 0.0 if bool(same.all()) else float("inf")
    x, y = (column.to_numpy(dtype=float, na_value=np.nan) for column in (a, b))
    if (np.isfinite(x) != np.isfinite(y)).any():
        return float("inf")
    real = np.isfinite(x)
    if not real.any() or not np.array_equal(x[~real], y[~real], equal_nan=True):
        return 0.0 if np.array_equal(x, y, equal_nan=True) else float("inf")
    scale = max(np.abs(x[real]).max(), np.abs(y[real]).max())
    return float(np.abs(x[real] - y[real]).max() / scale) if scale else 0.0


def _made_with(provenance: Mapping[str, object]) -> dict[str, object]:
    versions = provenance.get("versions")
    held = dict(versions) if isinstance(versions, Mapping) else {}
    return held | {key: provenance.get(key, "") for key in ("commit", "python", "machine")}
