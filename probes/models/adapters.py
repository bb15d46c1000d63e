"""Families whose experts are not called with `(hidden_states, index, weights)`."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from probes.models.language_model import Hook
from probes.models.mixtures import Mixture, choice_names
from probes.models.weights import ModelError

See = Callable[[Tensor, Tensor], tuple[Tensor | None, Tensor | None]]


class SwitchMixture(Mixture):
    """Switch Transformers: experts are told a one-hot mask, all zero where the expert was full and the token dropped.

    A dropped slot has index -1 and weight 0.
    """

    rule = "one-hot mask; dropped tokens are index -1"

    def d_mlp(self, d_model: int) -> int:
        """Neurons of one expert."""
        return next(iter(self.experts.values())).wi.out_features

    def choice(self, call: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Index and weight of the choice, as used."""
        mask, weight = call["selected_experts"], call["routing_weights"]
        dropped = mask.sum(dim=-1) == 0
        return mask.argmax(dim=-1).masked_fill(dropped, -1), weight.masked_fill(dropped, 0.0)

    def chosen(self, call: dict[str, Any], index: Tensor | None, weight: Tensor | None) -> dict[str, Any]:
        """The call with another choice."""
        if index is not None:
            call = call | {"selected_experts": self._mask(index, call["selected_experts"].dtype)}
        return call if weight is None else call | {"routing_weights": weight}

    def outputs(self, states: Tensor, index: Tensor) -> Tensor:
        """Outputs of the chosen experts before weighting."""
        one = torch.ones_like(index, dtype=states.dtype)
        return self.experts.forward(states, self._mask(index, index.dtype), one)[:, None]

    def _mask(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        hot = nn.functional.one_hot(index.clamp(min=0), self.n_experts)
        return (hot * (index >= 0)[..., None]).to(dtype)


class Llama4Mixture(Mixture):
    """Llama 4: every expert sees every token multiplied by its score, 0 where it was not chosen."""

    rule = "the router's scores; they multiply the experts' inputs"
    weighs = "input"

    def __init__(self, layer: nn.Module, experts: nn.Module, recorders: Iterable[Any]):
        super().__init__(layer, experts, recorders)
        self.k: int = self.block.top_k  # type: ignore[assignment]

    def at_choice(self, see: See) -> list[Any]:
        """Show `see` index and score of the experts whose input is not multiplied by 0."""

        def done(_: nn.Module, __: Any, output: tuple[Tensor, Tensor]) -> Any:
            weight, index = output[0].topk(self.k, dim=-1)
            new_index, new_weight = see(index, weight)
            if new_index is None and new_weight is None:
                return None
            chosen = (index if new_index is None else new_index, weight if new_weight is None else new_weight)
            return torch.zeros_like(output[0]).scatter(1, *chosen), output[1]

        return [self._router().register_forward_hook(done)]

    def at_outputs(self, hook: Hook) -> list[Any]:
        """Show the hook the outputs of the chosen experts; their sum is what the block adds."""
        chosen: list[Tensor] = []

        def remember(index: Tensor, _: Tensor) -> tuple[None, None]:
            chosen.append(index)
            return None, None

        def done(_: nn.Module, __: Any, output: Tensor) -> Any:
            index = chosen.pop()
            tokens = torch.arange(len(index), device=index.device)[:, None]
            of_all = output.view(self.n_experts, len(index), -1)
            new = hook(of_all[index, tokens])
            return None if new is None else of_all.index_put((index, tokens), new).view(output.shape)

        return [*self.at_choice(remember), self.experts.register_forward_hook(done)]


class ZayaMixture(Mixture):
    """ZAYA: tokens may skip the experts, told as expert 0 with weight 0; here index -1.

    The router's last column is the chance to skip.
    """

    rule = "the experts' door; tokens that skip are index -1"

    def choice(self, call: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Index and weight of the choice, as used."""
        index, weight = super().choice(call)
        return index.masked_fill(weight == 0, -1), weight

    def outputs(self, states: Tensor, index: Tensor) -> Tensor:
        """Outputs of the chosen experts before weighting, 0 where the token skips."""
        return super().outputs(states, index.clamp(min=0)) * (index >= 0)[..., None]


class LongcatMixture(Mixture):
    """LongCat-Flash: the general rule, but its experts fail on one slot; the last of them pass tokens through."""

    def outputs(self, states: Tensor, index: Tensor) -> Tensor:
        """Outputs of the chosen experts before weighting."""
        one = torch.ones_like(index[:, :1], dtype=states.dtype)
        weight = torch.cat([one, torch.zeros_like(one)], dim=1)
        slots = [self.experts.forward(states, index[:, [j, j]], weight) for j in range(index.shape[1])]
        return torch.stack(slots, dim=1)


class JetMoeMixture(Mixture):
    """JetMoE: the router hands the experts rows sorted by expert; they are put back in the order of the tokens."""

    rule = "the router's sorted rows"

    def __init__(self, layer: nn.Module, block: nn.Module, recorders: Iterable[Any]):
        # Its experts are two stacks; the second gives the outputs.
        super().__init__(layer, block.output_linear, recorders)  # type: ignore[arg-type]

    @property
    def n_experts(self) -> int:
        """Experts that can be chosen."""
        return self.experts.num_experts  # type: ignore[return-value]

    def d_mlp(self, d_model: int) -> int:
        """Neurons of one expert."""
        return self.experts.input_size  # type: ignore[return-value]

    def at_choice(self, see: See) -> list[Any]:
        """Show `see` index and weight, each (tokens, k); they cannot be edited."""

        def done(_: nn.Module, __: Any, output: tuple[Any, ...]) -> None:
            rows, _, gates, sizes, logits = output
            index = torch.empty_like(rows)
            index[rows] = torch.arange(len(sizes), device=rows.device).repeat_interleave(rows.new_tensor(sizes))
            weight = torch.empty_like(gates)
            weight[rows] = gates
            if any(new is not None for new in see(index.view(len(logits), -1), weight.view(len(logits), -1))):
                raise ModelError("JetMoE's choice of experts can be observed, not edited")

        return [self._router().register_forward_hook(done)]

    def at_outputs(self, hook: Hook) -> list[Any]:
        """Show the hook the outputs of the chosen experts."""
        rows: list[tuple[Tensor, int]] = []

        def routed(_: nn.Module, __: Any, output: tuple[Any, ...]) -> None:
            rows.append((output[0], len(output[4])))

        def done(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
            order, tokens = rows.pop()
            flat = torch.empty_like(output)
            flat[order] = output
            new = hook(flat.view(tokens, -1, output.shape[-1]))
            return None if new is None else new.flatten(0, 1)[order]

        return [self._router().register_forward_hook(routed), self.experts.register_forward_hook(done)]


ADAPTERS: dict[str, type[Mixture]] = {
    "SwitchTransformersExperts": SwitchMixture,
    "Llama4TextExperts": Llama4Mixture,
    "LongcatFlashExperts": LongcatMixture,
    "ZayaExperts": ZayaMixture,
    "JetMoeMoE": JetMoeMixture,
}
"""Name of the module that holds the experts -> who knows how to read it."""


def mixture_of(layer: nn.Module, recorders: Iterable[Any]) -> Mixture | None:
    """The mixture of experts of a layer, None in a layer without one."""
    for module in layer.modules():
        kind = _kind(module)
        if kind is not None:
            return kind(layer, module, recorders)
    return None


def has_experts(module: nn.Module) -> bool:
    """Whether the module is or holds a stack of experts whose choice can be seen."""
    return any(_kind(inside) is not None for inside in module.modules())


def _kind(module: nn.Module) -> type[Mixture] | None:
    adapter = ADAPTERS.get(type(module).__name__)
    return adapter or (Mixture if choice_names(module) else None)
