"""`sparsescope demo`: from nothing to pictures within minutes."""

from pathlib import Path
from typing import Annotated

import typer

from app.commands._run import guard, progress, say

SINGLE = True
verbs = typer.Typer()


@verbs.command()
@guard
def demo(
    tokens: Annotated[int, typer.Option(help="Tokens of text the language model reads.")] = 20_000,
    open_dashboard: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the dashboard, or only measure and write figures.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="With --no-open: folder for tables and figures. Default: runs/demo.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the dashboard. Default: the first free one.")] = None,
    browser: Annotated[bool, typer.Option(help="Show the dashboard in the web browser.")] = True,
) -> None:
    """Measure a toy model and SmolLM2-135M on State of the Union addresses, and show the pictures as they come.

    The dashboard opens at once on this machine only; the measurement runs beside it and fills it part by part, within
    five minutes on two cores (after a download of 93 MB, once). Stop with Ctrl-C; the same command goes on from there.

    Examples: `sparsescope demo`, `sparsescope demo --no-open --out first-look`
    """
    from app import jobs
    from app.demo import DemoConfig, measure
    from data.runs import create, root

    config = DemoConfig(n_tokens=tokens)
    if out is not None and open_dashboard:
        raise ValueError(
            "--out goes with --no-open; the dashboard shows the runs folder ($SPARSESCOPE_RUNS, or ./runs)"
        )
    if not open_dashboard:
        place = (out or root() / _name(tokens)).resolve()
        run = create(place.name, config, kind="demo", root_folder=place.parent, seed=config.seed)
        try:
            with progress("demo") as tell:
                jobs.carry_out(run, measure, tell)
        finally:
            if jobs.state(run) in ("done", "failed"):  # a part that failed does not take the others' figures along
                _figures(place)
        return
    run = create(_name(tokens), config, kind="demo", seed=config.seed)
    _show(run.name, port, browser)


def _name(tokens: int) -> str:
    return "demo" if tokens == 20_000 else f"demo-{tokens}-tokens"


def _figures(place: Path) -> None:
    """Export all figures of the run beside its tables."""
    from app.export import DRAWN, choose, export, missing_drawer
    from data.runs import Run

    run = Run(place)
    entries = choose(run)
    formats = ("html",) if missing_drawer() else ("pdf", "html")
    done = export(entries, run, place, width="text", formats=formats)
    if not set(formats) & set(DRAWN):
        say(f"{missing_drawer()}; HTML was written")
    say(f"{len(run.table_names())} tables and {len(entries)} figures in {len(done.paths)} files are in {place}")


def _show(name: str, port: int | None, browser: bool) -> None:
    """Start measuring, then serve the dashboard until Ctrl-C, and stop what was started."""
    from app import jobs
    from app.server import pick_port, serving, url
    from data.runs import open_run, root

    chosen, run = pick_port(port), open_run(name)
    if jobs.state(run) != "running" and run.progress["state"] != "done":
        jobs.start(run)
    try:
        with serving(root(), chosen) as server:
            address = url(chosen, run=name)
            typer.echo(f"sparsescope is at {address}   (Ctrl-C stops it)")
            if browser:
                typer.launch(address)
            server.wait()
    finally:
        if jobs.state(run) == "running":
            jobs.cancel(run)
