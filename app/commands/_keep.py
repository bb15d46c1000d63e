"""`sparsescope probe keep`, `probe kinds` and `probe ladder`: verbs that `probe` lists."""

from typing import Annotated

import typer

from app.commands._columns import echo_table
from app.commands._options import Dtype, Engine, Hub, Model, Name, Text, opens_a_model
from app.commands._run import guard, measured, tell_where

Control = Annotated[bool, typer.Option(help="Measure the same with random weights.")]
Seed = Annotated[int, typer.Option(help="Seed of the documents' order and of random weights and choices.")]


@guard
@opens_a_model
def keep(
    model: Model = "smollm2-135m",
    corpus: Text = "sotu-modern",
    tokens: Annotated[int, typer.Option(help="Tokens read for each setting.")] = 4_000,
    share: Annotated[
        list[float] | None, typer.Option(help="Share kept, above 0, at most 1; repeat for several.")
    ] = None,
    choice: Annotated[
        list[str] | None, typer.Option(help="oracle, threshold, static or random; repeat for several. Default: all.")
    ] = None,
    one_layer: Annotated[
        list[float] | None, typer.Option(help="Share at which each layer is also edited alone; may be repeated.")
    ] = None,
    control: Control = True,
    dtype: Dtype = "auto",
    *,
    hub: Hub,
    seed: Seed = 0,
    name: Name = None,
) -> None:
    """What the model loses when only a share of each block's neurons is kept: top-k after the fact.

    oracle keeps the largest |z| of each token, threshold those above one number a layer, static the same neurons for
    all tokens (the last two chosen on other documents), random any: the control. Reported: loss, perplexity ratio with
    intervals over documents, output error of each block, and the share at which perplexity is 1% higher, which says
    how lazy a model is.

    Tables `keeping`, `keeping_points`, `keeping_errors` grow in the run; Ctrl-C keeps them, the same command goes on.

    Example: `sparsescope probe keep --tokens 2000 --share 0.5 --share 0.1 --choice oracle --choice static`
    """
    from app.laziness import KeepConfig
    from app.laziness import keep as work

    given = {"shares": share, "choices": choice, "one_layer": one_layer}
    asked = {"model": model, "corpus": corpus, "n_tokens": tokens, "control": control, "dtype": dtype, "seed": seed}
    asked |= {key: tuple(values) for key, values in given.items() if values}
    run = measured("keep", KeepConfig.model_validate(asked | hub), work, name=name, seed=seed)
    shown = ["choice", "layer", "share", "ppl_ratio", "ratio_low", "ratio_high", "n_tokens"]
    echo_table(run.table("keeping").query("layer == -1"), shown, digits=4)
    tell_where(run, "laziness")


@guard
@opens_a_model
def kinds(
    model: Model = "smollm2-135m",
    corpus: Text = "sotu-modern",
    tokens: Annotated[int, typer.Option(help="Tokens to read.")] = 20_000,
    layer: Annotated[
        list[int] | None, typer.Option(help="Layer to test; may be repeated. Default: an early, a middle, a late one.")
    ] = None,
    control: Control = True,
    dtype: Dtype = "auto",
    *,
    hub: Hub,
    seed: Seed = 0,
    engine: Engine = "local",
    name: Name = None,
) -> None:
    """Which word classes and tokens a specialised neuron fires on, against two nulls.

    Neurons that fire on .1-5% (rare) and 5-30% of tokens (specialised) are tested against labels exchanged over tokens
    and over token types of like frequency; a class is claimed where both reject at a false discovery rate of 5%.
    Beside it: the same with random weights, and with exchanged word classes, where every claim is false.

    Tables `neuron_classes`, `neuron_tokens`, `class_summary`, `untestable`.

    Example: `sparsescope probe kinds --tokens 20000 --layer 3 --layer 15`
    """
    from app.laziness import KindsConfig
    from app.laziness import kinds as work

    asked = {"model": model, "corpus": corpus, "n_tokens": tokens, "control": control, "dtype": dtype, "seed": seed}
    asked |= {"engine": engine} | ({"layers": tuple(layer)} if layer else {})
    run = measured("kinds", KindsConfig.model_validate(asked | hub), work, name=name, seed=seed)
    echo_table(run.table("class_summary"), digits=4)
    tell_where(run, "laziness")


@guard
@opens_a_model
def ladder(
    model: Annotated[
        list[str] | None, typer.Option(help="A model; repeat for several on the same axes. Default: smollm2-135m.")
    ] = None,
    corpus: Text = "sotu-modern",
    tokens: Annotated[int, typer.Option(help="Tokens to read.")] = 4_000,
    control: Control = True,
    dtype: Dtype = "auto",
    *,
    hub: Hub,
    seed: Seed = 0,
    name: Name = None,
) -> None:
    """The sparsity ladder, measured: embedding lookup, mixture of experts, dense block.

    Of every layer: the share of units a token uses (1/V of a lookup, k/E of a mixture, the firing neurons of a dense
    block) and how many distinct sets of units were used together. `sparsescope ladder` reckons what blocks cost.

    Example: `sparsescope probe ladder --model smollm2-135m --tokens 4000`
    """
    from app.laziness import LadderConfig
    from app.laziness import ladder as work

    models = tuple(model or ["smollm2-135m"])
    asked = {"model": models[0], "others": models[1:], "corpus": corpus, "n_tokens": tokens, "control": control}
    config = LadderConfig.model_validate(asked | {"dtype": dtype, "seed": seed} | hub)
    tell_where(measured("ladder", config, work, name=name, seed=seed), "ladder")
