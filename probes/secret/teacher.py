"""A model's feed-forward layer as a function of rows in float32, whatever type the model computes in."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probes.models import LanguageModel
from probes.value_vectors import value_vectors


class LayerTeacher:
    """The layer that students imitate; ValueError for a layer that is not there or is a mixture already."""

    def __init__(self, model: LanguageModel, layer: int):
        if not 0 <= layer < model.n_layers:
            raise ValueError(f"layer {layer} is not in 0..{model.n_layers - 1} of {model.title}")
        if model.blocks[layer].kind != "dense":
            raise ValueError(f"layer {layer} of {model.title} is a mixture of experts already; choose a dense layer")
        self.model, self.layer = model, layer
        self._block: Any = model.feed_forward(layer)
        self._weights = (
            {name: p.detach().float() for name, p in self._block.named_parameters()}
            if isinstance(self._block, nn.Module)
            else None
        )

    @property
    def d_mlp(self) -> int:
        """Its neurons."""
        return self.model.blocks[self.layer].d_mlp

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """Its outputs, on the CPU."""
        x = x.to(self.model.device)
        if self._weights is None:
            return self._block(x[None].to(self.model.dtype))[0].float().cpu()
        # the bridge reaches a matrix by several names; swapped once for each, it would not be put back
        return torch.func.functional_call(self._block, self._weights, (x[None],), tie_weights=False)[0].float().cpu()

    def neurons(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_mlp"]:
        """Its neurons' activations, the input of the down-projection."""
        return self._seen("neurons", x)

    def gate_weights(self) -> Float[Tensor, "d_mlp d_model"]:
        """What each neuron's gate (without gates: the neuron) reads, found by giving it one coordinate at a time."""
        one = torch.eye(self.model.d_model)
        return (self._seen("gate", one) - self._seen("gate", torch.zeros(1, self.model.d_model))).T

    def value_vectors(self) -> Float[Tensor, "d_mlp d_model"]:
        """What each neuron writes."""
        return value_vectors(self.model, self.layer).cpu()

    def _seen(self, site: str, x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        with self.model.hooked([(self.layer, site, lambda tensor: seen.append(tensor.detach().clone()))]):
            self(x)
        return seen[0].flatten(0, -2).float().cpu()
