"""`sparsescope probe experts`: who is routed where in a mixture of experts, and what that says."""

from typing import Annotated

import typer

from app.commands._options import Dtype, Engine, Hub, Model, Name, SecretExperts, Text, opens_a_model
from app.commands._run import guard, measured, tell_where


@guard
@opens_a_model
def experts(
    model: Model = "tinymoe",
    secret_experts: SecretExperts = None,
    corpus: Text = "sotu-modern",
    tokens: Annotated[int, typer.Option(help="Tokens to route.")] = 100_000,
    control: Annotated[
        list[str] | None,
        typer.Option(help="random_init, random_directions or hash; may be repeated. Default: all."),
    ] = None,
    control_tokens: Annotated[
        int | None, typer.Option(help="Tokens that the model with random weights reads. Default: as many.")
    ] = None,
    word_classes: Annotated[bool, typer.Option(help="Tag the text: specialization by word class.")] = True,
    labels_csv: Annotated[
        str | None, typer.Option(help="Your own labels: a CSV file with a column `word` or `document`, and labels.")
    ] = None,
    labels_column: Annotated[str, typer.Option(help="The column of labels in that file.")] = "label",
    labels_regex: Annotated[
        str | None, typer.Option(help="Your own labels: matches of a regular expression, named by its (?P<groups>...).")
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(help="A column of the documents, e.g. party; may be repeated.")
    ] = None,
    permutations: Annotated[int, typer.Option(help="Draws of each null.")] = 100,
    dtype: Dtype = "float32",
    *,
    hub: Hub,
    seed: Annotated[int, typer.Option(help="Seed of the documents' order, controls and permutations.")] = 0,
    engine: Engine = "local",
    name: Name = None,
) -> None:
    """Which experts each token uses, how the load is spread, and what the choice has to do with the text.

    Load by slot and by gate weight, pairs of experts, repeats, routes from layer to layer; the mutual information of
    expert and word class (fine tag, position, domain, your own labels), beside three nulls: labels exchanged, token
    types of like frequency exchanged (what any router by token identity shows), labels exchanged within a type. The
    same for random weights, for random directions on the trained router's input and for a router by token hash.

    Every routed token stays on disk, so that the page shows the sentences behind each number. Tables go to the run;
    Ctrl-C keeps them, the same command goes on.

    Example: `sparsescope probe experts --model tinymoe --tokens 100000 --metadata party`
    """
    from app.routing import RoutingConfig, work

    asked: dict[str, object] = {
        "model": model,
        "corpus": corpus,
        "secret_experts": secret_experts,
        "n_tokens": tokens,
        "control_tokens": control_tokens,
    }
    asked |= {"word_classes": word_classes, "labels_csv": labels_csv, "labels_column": labels_column}
    asked |= {"labels_regex": labels_regex, "metadata": tuple(metadata or ()), "permutations": permutations}
    asked |= {"dtype": dtype, "seed": seed, "engine": engine}
    asked |= {"controls": tuple(control)} if control else {}
    config = RoutingConfig.model_validate(asked | hub)
    tell_where(measured("experts", config, work, name=name, seed=seed), "experts")
