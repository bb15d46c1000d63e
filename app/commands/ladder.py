"""`sparsescope ladder`: what dense blocks and mixtures of experts cost, total and active."""

from typing import Annotated

import typer

from app.commands._run import guard

SINGLE = True
verbs = typer.Typer()


@verbs.command()
@guard
def ladder(
    d_model: Annotated[int, typer.Option(help="Width of the residual stream.")] = 4096,
    d_mlp: Annotated[int, typer.Option(help="Neurons of the block, or of each expert.")] = 11008,
    matrices: Annotated[int, typer.Option(help="2 (in, out) or 3 (gate, up, down).")] = 2,
    bias: Annotated[bool, typer.Option("--bias", help="Every matrix has a bias.")] = False,
    experts: Annotated[int, typer.Option(help="Experts a router chooses among; 0: a dense block.")] = 0,
    k: Annotated[int, typer.Option(help="Experts used for a token.")] = 0,
    shared: Annotated[int, typer.Option(help="Experts that every token uses besides.")] = 0,
) -> None:
    """What a feed-forward block costs: parameters, MiB at 32 to 2 bits, multiply-adds a token, expert combinations.

    Total is what is stored, active what one token uses. A router adds d_model x experts. Many small experts give more
    combinations than few large ones at the same cost: C(64, 8) = 4,426,165,368 against C(16, 2) = 120.

    Examples: `sparsescope ladder`, `sparsescope ladder --d-mlp 1376 --experts 64 --k 8`
    """
    from app.commands._columns import echo_columns
    from probes.budget import BITS, FeedForward, budget

    block = FeedForward(
        d_model=d_model, d_mlp=d_mlp, matrices=matrices, bias=bias, n_experts=experts, k=k, n_shared=shared
    )
    row = budget(block).iloc[0]
    typer.echo(row["block"])
    lines = [("parameters", f"{row['parameters']:,}", f"{row['active_parameters']:,}")]
    lines += [(f"MiB at {b} bits", f"{row[f'mib_{b}']:,.2f}", f"{row[f'active_mib_{b}']:,.2f}") for b in BITS]
    lines += [("multiply-adds a token", "", f"{row['multiply_adds']:,}")]
    lines += [("expert combinations", row["combinations"], "")] if experts else []
    echo_columns(["", "total", "active"], [list(line) for line in lines])
