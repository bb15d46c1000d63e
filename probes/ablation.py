"""The loss without an expert: left out, or something else in its place, at the experts' own door.

    zero     its weight is 0; the other experts keep theirs
    mean     its mean output on other documents
    affine   an affine map of its input, fitted on other documents
    random   another expert, drawn once for each expert, gets its tokens with its weight

A token that does not use the expert keeps its block's output bit for bit; an expert that is never used changes the loss
by exactly 0.  The pass begins at the layer, with what the layers before it gave back the first time.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.expert_fits import Fits
from probes.expert_text import Damage, Scored
from probes.models.moe import RoutedModel

Replacement = Literal["zero", "mean", "affine", "random"]
REPLACEMENTS: tuple[Replacement, ...] = get_args(Replacement)


class Held:
    """Held-out text at the door of one layer: what enters it, who is chosen, and the loss as it is."""

    def __init__(self, model: RoutedModel, layer: int, text: Scored):
        self.model, self.layer, self.text = model, layer, text
        self.before: list[Any] = []
        self.index: list[Int[Tensor, "batch position k"]] = []
        self.loss: list[Float[Tensor, "batch next_position"]] = []
        self.labels = [(text.label(i, "read"), text.label(i, "predicted")) for i in range(len(text.batches))]
        for batch in text.batches:
            seen: dict[str, Tensor] = {}
            model.observe(batch.ids, ("expert_index",), lambda _, s, seen=seen: seen.update(s), layers=[layer])  # type: ignore[misc]
            self.index.append(seen["expert_index"].cpu())
            self.before.append(model.outputs_of(layer - 1, batch.ids))
            self.loss.append(self._losses(len(self.before) - 1))
        plain = [model.losses(batch.ids).cpu() for batch in text.batches[:1]]
        if plain and not torch.equal(plain[0], self.loss[0]):
            raise ValueError(
                f"{model.title} cannot be resumed at layer {layer}: its layers pass on more than they return"
            )

    def _losses(self, number: int) -> Float[Tensor, "batch next_position"]:
        with self.model.resumed(self.layer, self.before[number]):
            return self.model.losses(self.text.batches[number].ids).cpu()

    def used(self, expert: int) -> int:
        """Predictions made where the expert is used; padding makes none."""
        uses = ((index[:, :-1] == expert).any(-1) for index in self.index)
        return sum(int((used & self.text.real(i)).sum()) for i, used in enumerate(uses))

    def damage(self, expert: int, how: Replacement, fits: Fits, other: int) -> tuple[Damage, Damage]:
        """Loss changes by class of the token read and by class of the token predicted."""
        found = Damage(len(self.text.classes)), Damage(len(self.text.classes))
        for number, index in enumerate(self.index):
            change = torch.zeros_like(self.loss[number])
            if (index == expert).any():
                with replaced(self.model, self.layer, {expert: other if how == "random" else how}, fits):
                    change = self._losses(number) - self.loss[number]
            real, block = self.text.real(number), self.text.block(number)
            for damage, label in zip(found, self.labels[number], strict=True):
                damage.add(change, label, real, block)
        return found


@contextmanager
def replaced(model: RoutedModel, layer: int, how: Mapping[int, Replacement | int], fits: Fits | None) -> Iterator[None]:
    """While open, experts of a layer are replaced: expert -> `zero`, `mean`, `affine`, or the expert that stands in."""
    chosen: list[Tensor] = []
    given: list[Tensor] = []

    def redirect(index: Tensor) -> Tensor | None:
        chosen[:] = [index]
        stand_ins = {e: other for e, other in how.items() if isinstance(other, int)}
        if not stand_ins:
            return None
        new = index.clone()
        for expert, other in stand_ins.items():
            new[index == expert] = other
        return new

    def silence(weight: Tensor) -> Tensor:
        off = torch.zeros_like(chosen[0], dtype=torch.bool)
        for expert in (e for e, what in how.items() if what == "zero"):
            off |= chosen[0] == expert
        return weight.masked_fill(off, 0)

    def rewrite(outputs: Tensor) -> Tensor:
        assert fits is not None
        new = outputs.clone()
        for expert, what in how.items():
            if what in ("mean", "affine"):
                token, slot = (chosen[0] == expert).nonzero(as_tuple=True)
                made = fits.mean[expert].to(outputs).expand(len(token), -1)
                if what == "affine":
                    x = given[0][token].to(outputs)
                    made = x @ fits.matrix[expert].to(outputs) + fits.offset[expert].to(outputs)
                new[token, slot] = made
        return new

    def remember(x: Tensor) -> None:
        given[:] = [x.flatten(0, -2)]

    hooks: list[tuple[int, str, Any]] = [(layer, "expert_index", redirect)]
    if "zero" in how.values():
        hooks.append((layer, "expert_weight", silence))
    if {"mean", "affine"} & {what for what in how.values() if isinstance(what, str)}:
        hooks += [(layer, "ffn_input", remember), (layer, "expert_output", rewrite)]
    with model.hooked(hooks):
        yield
