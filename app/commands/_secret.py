"""The verb `sparsescope probe secret`."""

from typing import Annotated

import typer

from app.commands._columns import echo_table
from app.commands._options import Dtype, Hub, Model, Name, Text, opens_a_model
from app.commands._run import guard, measured, tell_where


@guard
@opens_a_model
def secret(
    model: Model = "smollm2-135m",
    corpus: Text = "sotu-modern",
    layer: Annotated[list[int] | None, typer.Option(help="Layer; repeat for several. Default: the middle one.")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="dense, closed_form, refined, paper, linear, constants, oracle, static, oracle_clusters, ..."
        ),
    ] = None,
    condition: Annotated[
        list[str] | None, typer.Option(help="real, gaussian, shuffled, shuffled_axes, random_teacher, ...")
    ] = None,
    n_experts: Annotated[int, typer.Option(help="Experts.")] = 64,
    n_active: Annotated[int, typer.Option(help="Neurons active for a token, in every student.")] = 64,
    rank: Annotated[int | None, typer.Option(help="Rank of an expert; the rest of n_active is shared.")] = None,
    k: Annotated[int, typer.Option(help="Experts mixed for a token.")] = 1,
    more_experts: Annotated[
        list[int] | None, typer.Option(help="Another number of experts, for a curve; may be repeated.")
    ] = None,
    more_active: Annotated[
        list[int] | None, typer.Option(help="Another number of active neurons; may be repeated.")
    ] = None,
    more_k: Annotated[list[int] | None, typer.Option(help="Another number of experts mixed; may be repeated.")] = None,
    tokens: Annotated[int, typer.Option(help="Tokens to read.")] = 50_000,
    tokens_per_document: Annotated[
        int | None, typer.Option(help="Tokens taken from the start of each document. Default: 1,020 or more.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Adam steps of the trained students.")] = 1_500,
    batch: Annotated[int, typer.Option(help="Tokens a step.")] = 512,
    seeds: Annotated[int, typer.Option(min=1, max=1_000, help="How many seeds.")] = 1,
    losses: Annotated[bool, typer.Option(help="Put the students back into the model and measure its loss.")] = True,
    embedding: Annotated[bool, typer.Option(help="Measure tables by token and cell constants as well.")] = False,
    export: Annotated[str | None, typer.Option(help="Folder for the rebuilt model in transformers' format.")] = None,
    dtype: Dtype = "auto",
    *,
    hub: Hub,
    seed: Annotated[int, typer.Option(help="Order of the documents.")] = 0,
    name: Name = None,
) -> None:
    """Find the mixture of experts inside a dense feed-forward block.

    Students of equal active size imitate the block: a dense layer of few neurons, and experts with a region of the
    inputs each, fitted in closed form. FVU: share of the block's output variance that a student misses, on documents it
    was not fitted on. What counts is the ratio dense / mixture on real activations beside the same on Gaussian ones of
    equal mean and covariance: a mixture that wins on both wins for another reason. Active parameters are not stored
    ones: a mixture of 64 experts stores more than the block it imitates.

    With the router counted, the mixture is set against the smallest dense block that costs no less (`--more-active 96`
    fits one for 64 experts): it wins, loses, or the interval holds both.

    The students are kept in the run: `open_model("smollm2-135m", secret_experts=RUN)` is then a mixture of experts.

    Example: `sparsescope probe secret --layer 15 --tokens 50000`
    """
    from app.secret import KIND, SecretRun, work

    asked: dict[str, object] = {
        "model": model,
        "corpus": corpus,
        "layers": layer or None,
        "n_experts": n_experts,
        "n_active": n_active,
    }
    asked |= {"rank": rank, "k": k, "n_tokens": tokens, "steps": steps, "seeds": tuple(range(seeds)), "dtype": dtype}
    asked |= {"losses": losses, "embedding": embedding, "seed": seed, "batch": batch}
    asked |= {"more_experts": tuple(more_experts or ()), "more_active": tuple(more_active or ())}
    asked |= {"more_k": tuple(more_k or ()), "tokens_per_document": tokens_per_document}
    asked |= {"methods": method} if method else {}
    asked |= {"conditions": condition} if condition else {}
    config = SecretRun.model_validate(asked | hub)
    run = measured("secret", config, work, kind=KIND, name=name, seed=seed, again=False)
    student = ["layer", "condition", "method"]
    found = run.table("secret")
    level = ["fvu", "low", "high"] + (["fvu_with_sinks", "n_sinks"] if found["n_sinks"].any() else [])
    size = ["active", "active_with_router", "stored", "n_tokens", "n_documents"]
    echo_table(found, [*student, *level, *size])
    if (worse := found[found["fvu"] > 1]).size:
        typer.echo(
            f"{len(worse)} of {len(found)} students miss more than the mean output would (fvu above 1): compare with "
            "fvu_train; read more text, or ask for fewer experts"
        )
    if "secret_ratios" in run.table_names():
        shown = [*student, "ratio", "low", "high", "fvu", "fvu_dense", "stored"]
        echo_table(run.table("secret_ratios"), shown)
    if "secret_counted" in run.table_names():
        shown = [*student, "active_with_router", "active_dense", "ratio", "low", "high", "fvu", "fvu_dense", "verdict"]
        echo_table(run.table("secret_counted"), shown)
    if export is not None:
        from app.measurements import opened
        from probes.secret.export import export as write

        typer.echo(f"the rebuilt model is in {write(opened(config), run, export)}")
    tell_where(run, "secret")
