"""`sparsescope figures`: figures of a run as files for a paper."""

from pathlib import Path
from typing import Annotated

import typer

from app.commands._run import guard, say

SINGLE = True
verbs = typer.Typer()


@verbs.command()
@guard
def figures(
    run: Annotated[str | None, typer.Argument(help="Name or folder of a run. Without it, list the figures.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="A figure by name; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("figures-out"),
    width: Annotated[str, typer.Option(help="column (3.25 in), text (5.5 in) or wide (6.75 in).")] = "column",
    formats: Annotated[str, typer.Option("--format", help="Any of pdf, svg, png, html, json, with commas.")] = "pdf",
    dark: Annotated[bool, typer.Option(help="Draw on a dark ground.")] = False,
) -> None:
    """Write the figures of a run, each with its data, caption with numbers, provenance and LaTeX lines.

    PDF and SVG are vectors with text as text, at the size of a paper's column, in colours that survive colour
    blindness. They need a Chrome or Chromium on this machine; without one HTML is written instead.

    Examples: `sparsescope figures`, `sparsescope figures demo --out paper/figures --width column --format pdf,svg`
    """
    from app import export
    from app.figures.catalogue import catalogue
    from data.runs import open_run

    if run is None:
        for entry in catalogue().values():
            typer.echo(f"{entry.name:28} {entry.title}  (tables: {', '.join(entry.needs)})")
        return
    opened = open_run(run)
    wanted = [f for f in formats.replace(",", " ").split() if f]
    done = export.export(
        export.choose(opened, only or ()), opened, out, width=export.check_width(width), formats=wanted, dark=dark
    )
    for note in done.notes:
        say(note)
    for path in done.paths:
        typer.echo(path)
