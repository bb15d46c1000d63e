"""`sparsescope probe snapshots`: how routing and specialization come about in training."""

from typing import Annotated

import typer

from app.commands._columns import echo_table
from app.commands._options import Name
from app.commands._run import guard, measured, tell_where


@guard
def snapshots(
    folder: Annotated[str, typer.Argument(help="Folder of a training, see `sparsescope train`.")],
    tokens: Annotated[int, typer.Option(help="Held-out tokens on which each snapshot is measured.")] = 20_000,
    permutations: Annotated[int, typer.Option(help="Draws of each null.")] = 50,
    name: Name = None,
) -> None:
    """Measure every snapshot of a mixture of experts trained here, on documents that training never read.

    How much of its last routing a token has already (saturation) beside chance, and how much the experts say about word
    classes beside the type null: what comes first, assignments that settle or experts that mean something? The first
    snapshot, random weights, is the control.

    Example: `sparsescope train models/little-moe --family olmoe --activation silu`, then
    `sparsescope probe snapshots models/little-moe`
    """
    from app.snapshots import SnapshotsRun, work

    config = SnapshotsRun(folder=folder, n_tokens=tokens, permutations=permutations)
    run = measured("snapshots", config, work, name=name)
    settled = run.table("saturation").groupby("step")[["value", "chance"]].mean()
    means = run.table("specialization").query("labels == 'word_class'").groupby("step")[["mi", "null_type"]].mean()
    echo_table(settled.rename(columns={"value": "saturation"}).join(means).reset_index(), digits=4)
    tell_where(run, "training")
