"""`sparsescope probe memory`: what triggers a neuron, what it writes."""

from typing import Annotated

import typer

from app.commands._options import Dtype, Engine, Hub, Model, Name, Text, opens_a_model
from app.commands._run import guard, measured, tell_where


@guard
@opens_a_model
def memory(
    model: Model = "smollm2-135m",
    corpus: Text = "sotu-modern",
    tokens: Annotated[int, typer.Option(help="Tokens to read.")] = 20_000,
    layer: Annotated[list[int] | None, typer.Option(help="A layer to read; may be repeated. Default: all.")] = None,
    neuron: Annotated[
        list[int] | None, typer.Option(help="A neuron of each layer that gets a card; may be repeated.")
    ] = None,
    cards: Annotated[int, typer.Option(help="Cards for each layer, at random, where no neuron is named.")] = 32,
    triggers: Annotated[int, typer.Option(help="Strongest triggers kept for each neuron and sign.")] = 10,
    control: Annotated[
        list[str] | None, typer.Option(help="random_init or shuffled; may be repeated. Default: random_init.")
    ] = None,
    dtype: Dtype = "auto",
    *,
    hub: Hub,
    seed: Annotated[int, typer.Option(help="Seed of documents' order, controls, cards and random pairings.")] = 0,
    engine: Engine = "local",
    name: Name = None,
) -> None:
    """What makes each neuron fire most, what it writes, and whether the two agree.

    Triggers: the tokens on which a neuron's activation is most positive and most negative, in their text. Value: the
    tokens that the neuron's output raises most, read through the final norm and the unembedding. Agreement: how often
    the value's first token is the one that follows the strongest trigger, against random pairings of triggers and
    values, and beside random weights. Some tenths of a per cent is usual; chance is about a tenth of one.

    Tables `memory_agreement`, `memory_neurons`, `memory_triggers` grow with the text, `memory_values` is written at the
    end; Ctrl-C keeps what is there, the same command goes on.

    Example: `sparsescope probe memory --layer 2 --layer 20 --tokens 20000`
    """
    from app.memory import MemoryConfig, work

    asked = {"model": model, "corpus": corpus, "n_tokens": tokens, "cards": cards, "triggers": triggers}
    asked |= {"layers": tuple(layer or ()), "neurons": tuple(neuron or ())}
    asked |= {"dtype": dtype, "seed": seed, "engine": engine}
    asked |= {"controls": tuple(control)} if control else {}
    config = MemoryConfig.model_validate(asked | hub)
    tell_where(measured("memory", config, work, name=name, seed=seed), "memories")
