"""Parts of a transformer block on their own, made by editing the model: with and without skip and feed-forward."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from probes.models import LanguageModel

Variant = Literal["attention", "attention_ffn", "attention_skip", "full"]
VARIANTS: tuple[Variant, ...] = ("attention", "attention_ffn", "attention_skip", "full")

Edits = Mapping[tuple[int, str], Callable[[Tensor], Tensor]]


def edits(model: LanguageModel, variant: Variant, *, sequential: bool = True) -> Edits:
    """The edits under which every block of the model is a variant of itself; all else stays the model's own code.

    With X a block's input, A(X) what its attention and F(X) what its feed-forward block would add, each with its own
    normalisation inside, a block gives

        attention        A(X)                       `SAN` of Dong et al.
        attention_ffn    F(A(X))                    no skip connections
        attention_skip   X + A(X)                   no feed-forward block
        full             X + A(X) + F(X + A(X))     the model

    In models whose two parts run in parallel (`sequential=False`) F sees X: A(X) + F(X) and X + A(X) + F(X).
    F is made to see A(X) by adding A(X) - X to X, which is exact to rounding.
    """
    held: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Tensor], Tensor]:
        def edit(tensor: Tensor) -> Tensor:
            held[name] = tensor
            return tensor

        return edit

    def block(layer: int) -> dict[tuple[int, str], Callable[[Tensor], Tensor]]:
        begin, attention, ffn = (layer, "block_input"), (layer, "attention_output"), (layer, "ffn_output")
        end = (layer, "block_output")
        if variant == "attention":
            return {attention: keep("a"), end: lambda _: held["a"]}
        if variant == "attention_skip":
            return {begin: keep("x"), attention: keep("a"), end: lambda _: held["x"] + held["a"]}
        if variant == "attention_ffn" and sequential:
            without_skip = {begin: keep("x"), attention: lambda a: a - held["x"]}
            return {**without_skip, ffn: keep("f"), end: lambda _: held["f"]}
        if variant == "attention_ffn":
            return {attention: keep("a"), ffn: keep("f"), end: lambda _: held["a"] + held["f"]}
        return {}

    return {place: edit for layer in range(model.n_layers) for place, edit in block(layer).items()}


def is_sequential(model: LanguageModel) -> bool:
    """Whether the feed-forward block sees the attention's output; ValueError if a block is not a plain sum."""
    ids = torch.arange(1, 6)[None] % model.vocab_size
    seen: dict[str, Tensor] = {}
    names = ("block_input", "attention_output", "ffn_output", "block_output")
    model.observe(ids, names, lambda _, sites: seen.update(sites), layers=[0])
    x, a, f, y = (seen[name].float() for name in names)
    if not bool(((x + a + f - y).norm() <= 0.02 * y.norm()).item()):
        raise ValueError(f"a block of {model.title} is not input + attention + feed-forward; its parts cannot be split")
    with model.edited({(0, "attention_output"): torch.zeros_like}):
        alone: dict[str, Tensor] = {}
        model.observe(ids, ("ffn_output",), lambda _, sites: alone.update(sites), layers=[0])
    return not torch.equal(alone["ffn_output"], seen["ffn_output"])
