"""The ledger as a table: each claim decided by the newest run that can decide it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from pandas import DataFrame

from app.claims import CLAIMS, Claim
from app.claims.claim import NOT_YET, VERDICTS, Finding
from data.runs import Run, RunError
from data.tables import Tables

COLUMNS = (
    "claim",
    "statement",
    "said_by",
    "verdict",
    "measured",
    "control",
    "n",
    "threshold",
    "run",
    "figure",
    "page",
    "experiment",
)
MARKS: Mapping[str, str] = dict(zip(VERDICTS, ("✓", "◐", "✗", "·"), strict=True))
"""A mark for each verdict, beside its words."""


def ledger(runs: Sequence[Run]) -> DataFrame:
    """One row a claim, columns COLUMNS; `run` is the first of `runs` whose tables decide it, else empty.

    A damaged run decides nothing and is passed over.
    """
    rows = []
    for claim in CLAIMS:
        finding, run = decided(claim, runs)
        row = {"claim": claim.name, "run": run} | asdict(finding)
        about = ("statement", "said_by", "threshold", "figure", "page", "experiment")
        rows.append(row | {name: getattr(claim, name) for name in about})
    return DataFrame(rows, columns=list(COLUMNS))


def decided(claim: Claim, runs: Sequence[Run]) -> tuple[Finding, str]:
    """The finding of the first run that decides the claim, and the run's name; else why the first that fits cannot."""
    reason = Finding(NOT_YET, f"no run holds {', '.join(claim.needs)}")
    for run in runs:
        try:
            if not set(claim.needs) <= set(run.table_names()) or not claim.fits(run.settings):
                continue
            found = claim.judge(Tables({name: run.table(name) for name in claim.needs}))
        except RunError as error:
            found = Finding(NOT_YET, str(error))
        if found.verdict != NOT_YET:
            return found, run.name
        if reason.measured.startswith("no run holds"):
            reason = Finding(NOT_YET, f"{run.name}: {found.measured}")
    return reason, ""


def counts(table: DataFrame) -> dict[str, int]:
    """How many claims have each verdict, in the order of VERDICTS."""
    return {verdict: int((table["verdict"] == verdict).sum()) for verdict in VERDICTS}


def markdown(table: DataFrame) -> str:
    """The ledger as a Markdown table: claim, verdict, measured, control, n; those not measured are listed below it."""
    lines = ["| Claim | Said by | Here | Measured | Control | n |", "|---|---|---|---|---|---|"]
    for row in table[table["verdict"] != NOT_YET].to_dict("records"):
        words = [row[name] for name in ("statement", "said_by", "verdict", "measured", "control", "n")]
        words[2] = f"**{words[2]}**"
        lines.append("| " + " | ".join(_cell(word) for word in words) + " |")
    open_ones = table.loc[table["verdict"] == NOT_YET]
    if len(open_ones):
        lines += ["", "Not yet measured: " + "; ".join(
            f"{_cell(row['statement'])} (`{row['experiment']}`)" for row in open_ones.to_dict("records")
        )]  # fmt: skip
    return "\n".join(lines) + "\n"


def _cell(text: object) -> str:
    return " ".join(str(text).replace("|", "\\|").split())
