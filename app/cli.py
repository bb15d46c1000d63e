"""The `sparsescope` command: one thin function a verb, heavy imports inside the verb."""

import typer

cli = typer.Typer(
    name="sparsescope",
    help="Measure superposition and sparsity in neural networks, and show it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
)


@cli.callback()
def about() -> None:
    """Measure superposition and sparsity in neural networks, and show it."""


def main() -> None:
    """Entry point of the `sparsescope` command."""
    cli()
