"""The `sparsescope` command: one thin function a verb, heavy imports inside the verb."""

import importlib
import pkgutil

import typer

import app.commands

cli = typer.Typer(
    name="sparsescope",
    help="Measure superposition and sparsity in neural networks, and show it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"sparsescope {version('sparsescope')}")
        raise typer.Exit


@cli.callback()
def about(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Measure superposition and sparsity in neural networks, and show it.

    Begin with `sparsescope demo`: it opens the dashboard and fills it with a first measurement within minutes.
    """


def _register() -> None:
    """Add every module of `app.commands`: a topic with several verbs under its name, a module marked `SINGLE` as is."""
    for module_info in pkgutil.iter_modules(app.commands.__path__):
        if module_info.name.startswith("_"):
            continue
        module = importlib.import_module(f"app.commands.{module_info.name}")
        if getattr(module, "SINGLE", False):
            cli.add_typer(module.verbs)
        else:
            cli.add_typer(module.verbs, name=module.verbs.info.name or module_info.name)


_register()


def main() -> None:
    """Entry point of the `sparsescope` command."""
    cli()
