"""`sparsescope claims`: what the literature says, and what the runs of this folder say of it."""

from typing import Annotated

import typer

from app.commands._run import guard

SINGLE = True
verbs = typer.Typer()


@verbs.command()
@guard
def claims(
    run: Annotated[str | None, typer.Argument(help="Name or folder of a run. Without it, all runs decide.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A verdict: holds, 'holds partly', 'fails here' or 'not yet measured'; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table, as in the README.")] = False,
) -> None:
    """Print the ledger: each claim of the literature with its verdict here, the numbers and their control.

    A verdict is computed from the tables of a run and from nothing else: delete the run, and the claim is not yet
    measured. Without RUN each claim is decided by the newest run that can; where none can, the command that measures it
    is named. The thresholds behind the words stand in the ledger (`--json`, `--csv`) and on the page Claims.

    Examples: `sparsescope claims`, `sparsescope claims demo --only holds`, `sparsescope claims --markdown`
    """
    from app.claims import VERDICTS
    from app.claims.ledger import ledger, markdown
    from data.runs import known_runs, open_run

    for verdict in only or ():
        if verdict not in VERDICTS:
            raise ValueError(f"no verdict '{verdict}'; there are {', '.join(VERDICTS)}")
    if sum((as_json, as_csv, as_markdown)) > 1:
        raise ValueError("choose one of --json, --csv and --markdown")
    table = ledger(known_runs() if run is None else [open_run(run)])
    if only:
        table = table[table["verdict"].isin(only)].reset_index(drop=True)
    if as_json:
        typer.echo(table.to_json(orient="records", indent=1))
    elif as_csv:
        typer.echo(table.to_csv(index=False), nl=False)
    elif as_markdown:
        typer.echo(markdown(table), nl=False)
    else:
        _tell([{str(k): str(v) for k, v in row.items()} for row in table.to_dict("records")])


def _tell(rows: list[dict[str, str]]) -> None:
    """A paragraph a claim, and the count of verdicts."""
    import shutil
    import textwrap

    from app.claims import NOT_YET, VERDICTS
    from app.claims.ledger import MARKS

    wide = min(shutil.get_terminal_size((100, 24)).columns, 120)
    for row in rows:
        typer.echo(f"{MARKS[row['verdict']]} {row['verdict'].upper()}  {row['claim']}")
        lines = [row["statement"], f"said by: {row['said_by']}", row["measured"]]
        if row["verdict"] == NOT_YET:
            lines += [f"measure it: {row['experiment']}"]
        else:
            lines += [f"control: {row['control']}", f"n: {row['n']}; run {row['run']}"]
        for line in lines:
            typer.echo(textwrap.fill(line, wide, initial_indent="  ", subsequent_indent="    "))
        typer.echo()
    typer.echo(", ".join(f"{sum(row['verdict'] == v for row in rows)} {v}" for v in VERDICTS))
