"""`sparsescope redo`: do a run again and say whether its tables come out the same."""

from typing import Annotated

import typer

from app.commands._run import guard, progress

SINGLE = True
verbs = typer.Typer()


@verbs.command()
@guard
def redo(
    run: Annotated[str, typer.Argument(help="Name or folder of the run.")],
    name: Annotated[str | None, typer.Option(help="Name of the new run. Default: the run's, with -again.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the model's own code run, as the run did. Read it first.")
    ] = False,
) -> None:
    """Do a run again from its own settings into a new run, and compare every table of the two.

    Settings and seed come from the run folder; software and machine may differ, and are listed where they do. Tables
    are equal (every value, durations aside), close (numbers within 1e-6), or differ. Exit code 0 if all are equal or
    close, else 1. Ctrl-C keeps what is done; the same command goes on.

    Example: `sparsescope redo demo`
    """
    from app import redo as repeated
    from app.commands._columns import echo_columns
    from data.runs import open_run

    first = open_run(run)
    with progress(f"redo {first.name}") as tell:
        second = repeated.again(first, name, tell, trust_remote_code=trust_remote_code)
    changed = repeated.versions(first, second)
    if len(changed):
        echo_columns(("made with", first.name, second.name), changed.to_numpy().tolist())
        typer.echo()
    table = repeated.tables(first, second)
    echo_columns(("table", "verdict", "rows", "rows again", "where"), table.to_numpy().tolist())
    same = table["verdict"].isin([repeated.EQUAL, repeated.CLOSE])
    typer.echo(f"\n{int(same.sum())} of {len(table)} tables of run '{first.name}' came out the same in '{second.name}'")
    if not same.all():
        raise typer.Exit(1)
