"""`sparsescope app`: the dashboard on the runs there are."""

from typing import Annotated

import typer

from app.commands._run import guard

SINGLE = True
verbs = typer.Typer()


@verbs.command("app")
@guard
def dashboard(
    run: Annotated[str | None, typer.Option(help="Run to show first. Default: the newest.")] = None,
    page: Annotated[str, typer.Option(help="Page to open, e.g. sparsity, runs, jobs. Default: the overview.")] = "",
    port: Annotated[int | None, typer.Option(help="Port of the dashboard. Default: the first free one.")] = None,
    browser: Annotated[bool, typer.Option(help="Show it in the web browser.")] = True,
) -> None:
    """Open the dashboard on the runs folder (`$SPARSESCOPE_RUNS`, else `./runs`); Ctrl-C closes it.

    It answers on this machine only. From another one: `ssh -L 8501:localhost:8501 HOST`. Jobs started in it go on
    when it is closed.

    Examples: `sparsescope app`, `sparsescope app --run demo --page sparsity`
    """
    from app.server import pick_port, serving, url
    from data.runs import open_run, root

    if run is not None:
        open_run(run)
    chosen = pick_port(port)
    try:
        with serving(root(), chosen) as server:
            address = url(chosen, page, run=run)
            typer.echo(f"sparsescope is at {address}   (Ctrl-C closes it)")
            if browser:
                typer.launch(address)
            server.wait()
    except KeyboardInterrupt:
        typer.echo("closed; jobs that were started go on (`sparsescope runs` lists them)")
