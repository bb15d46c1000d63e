"""`sparsescope runs`: what was measured; look at it, compare it, delete it."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.commands._columns import echo_columns
from app.commands._run import guard

if TYPE_CHECKING:
    from data.runs import Run

verbs = typer.Typer()


@verbs.callback(invoke_without_command=True)
@guard
def runs(context: typer.Context) -> None:
    """List the runs, newest first, or `show`, `compare` and `delete` them.

    A run is a folder under `$SPARSESCOPE_RUNS` (else `./runs`) with settings, provenance, tables and tensors; an
    unfinished one is taken up again by the verb that began it.

    Examples: `sparsescope runs`, `sparsescope runs show demo`, `sparsescope runs compare first second`
    """
    if context.invoked_subcommand is not None:
        return
    from data.runs import known_runs, list_runs, root

    found = list_runs()
    if found:
        echo_columns(("run", "kind", "state", "made", "tables", "MB"), [_summary(run) for run in found])
    else:
        typer.echo(f"no runs in {root().resolve()}; `sparsescope demo` makes the first one")
    if shipped := [run.name for run in known_runs()[len(found) :]]:
        typer.echo(f"with the installation came {', '.join(shipped)}")


@verbs.command()
@guard
def show(
    name: Annotated[str, typer.Argument(help="Name of the run, or its folder.")],
    table: Annotated[str | None, typer.Option(help="A table of the run, to be printed.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the table to print.")] = 20,
) -> None:
    """What a run was asked, what it was made with, and what it holds.

    Examples: `sparsescope runs show demo`, `sparsescope runs show demo --table layers`
    """
    from data.runs import open_run

    run = open_run(name)
    if table is not None:
        frame = run.table(table)
        typer.echo(frame.head(rows).to_string(index=False))
        if len(frame) > rows:
            typer.echo(f"{len(frame):,} rows; --rows shows more")
        return
    typer.echo(f"{run.path}\n{run.kind}, {_state(run)}\n\nsettings")
    _echo_mapping(run.asked)
    typer.echo("\nprovenance")
    _echo_mapping(run.provenance)
    typer.echo("\ntables")
    sizes = [(t, len(frame), ", ".join(map(str, frame.columns))) for t, frame in run.tables().items()]
    if sizes:
        echo_columns(("table", "rows", "columns"), sizes)


@verbs.command()
@guard
def compare(
    first: Annotated[str, typer.Argument(help="Name of a run.")],
    second: Annotated[str, typer.Argument(help="Name of another.")],
) -> None:
    """In which settings two runs differ.

    Example: `sparsescope runs compare first second`
    """
    from data import runs as store

    a, b = store.open_run(first), store.open_run(second)
    differing = store.compare(a, b)
    if differing.empty:
        typer.echo("the settings are the same")
    else:
        echo_columns(("setting", a.name, b.name), differing.to_numpy().tolist())


@verbs.command()
@guard
def delete(
    names: Annotated[list[str], typer.Argument(help="Names of runs; folders elsewhere are not deleted.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete runs with all they hold. There is no way back.

    Example: `sparsescope runs delete first second --yes`
    """
    from data.runs import check_name, open_run, root

    # All are looked up before the first is gone; `check_name` keeps `..` and other folders out.
    doomed = [open_run(root() / check_name(name)) for name in names]
    for run in doomed:
        if not yes and not typer.confirm(f"delete {run.path} ({_megabytes(run):.1f} MB)?"):
            typer.echo(f"kept {run.name}")
            continue
        run.delete()
        typer.echo(f"deleted {run.name}")


def _summary(run: "Run") -> tuple[object, ...]:
    try:
        made = str(run.provenance.get("made_at", "unknown"))[:16].replace("T", " ")
        return run.name, run.kind, _state(run), made, len(run.table_names()), round(_megabytes(run), 1)
    except ValueError as error:  # a damaged run is listed with what is wrong, not hidden
        return run.name, "damaged", str(error), "", len(run.table_names()), round(_megabytes(run), 1)


def _state(run: "Run") -> str:
    from app.jobs import state

    return state(run)


def _megabytes(run: "Run") -> float:
    return sum(p.stat().st_size for p in run.path.rglob("*") if p.is_file() and not p.is_symlink()) / 1e6


def _echo_mapping(values: dict[str, object], indent: str = "  ") -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            typer.echo(f"{indent}{key}")
            _echo_mapping(value, indent + "  ")
        else:
            typer.echo(f"{indent}{key:18} {value}")
