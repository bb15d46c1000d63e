"""The doors of one mixture-of-experts block: where the choice, the router and the experts are seen and edited.

One rule serves nearly every family of transformers: the module that holds the experts is called with
`(hidden_states, index, weights)`, and that call is the choice that was used, after any bias, grouping, renormalisation
or scaling.  Deriving the choice from router logits would be wrong for grouped or bias-balanced routers.  Five families
need an adapter (`adapters`).  Hooks see and return tensors whose first axis is tokens (batch and position in one).
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probes.models.hooks import after, before, first
from probes.models.language_model import Hook
from probes.models.weights import ModelError

SPELLINGS = (("top_k_index", "top_k_weights"), ("router_indices", "routing_weights"))
"""What the experts' module calls the indices and the weights of the choice."""


class Mixture:
    """One block whose experts are called with the choice made."""

    rule = "the experts' door"
    """How the choice is seen, for the table of families."""
    weighs = "output"
    """Whether the weights multiply the experts' outputs or their inputs."""

    def __init__(self, layer: nn.Module, experts: Any, recorders: Iterable[Any]):
        self.experts: Any = experts
        parent = next(m for m in layer.modules() if any(child is experts for child in m.children()))
        self.block: nn.Module = experts if parent is layer else parent
        """What is called with the normalised input; its output is the site `ffn_output`."""
        self.router, self.logits_index = _router(layer if parent is layer else parent, recorders)
        self.shared = _shared(parent) or (_shared(layer) if parent is not layer else None)
        self.shared_gate = getattr(parent, "shared_expert_gate", None)
        self.shared_inside = _shared(self.block) is not None
        """Whether `ffn_output` contains the shared experts' output (else the layer adds it beside the block)."""
        averaged = getattr(parent, "shared_expert_combination_strategy", "sum") == "average"
        self.shared_scale = 0.5 if averaged and self.shared is not None else 1.0
        self.scale = float(getattr(self.block, "routed_scaling_factor", 1.0)) * self.shared_scale
        """What the summed experts are multiplied by after their door."""
        self._names = tuple(inspect.signature(experts.forward).parameters)
        self._choice_names = choice_names(experts) or ("", "")

    @property
    def n_experts(self) -> int:
        """Experts that can be chosen, those that pass their input through included."""
        for name in ("total_experts", "num_experts", "num_local_experts"):
            if isinstance(found := getattr(self.experts, name, None), int):
                return found
        return self.experts.down_proj.shape[0]

    def d_mlp(self, d_model: int) -> int:
        """Neurons of one expert."""
        for name in ("intermediate_dim", "intermediate_size", "expert_dim", "ffn_hidden_size"):
            if isinstance(found := getattr(self.experts, name, None), int):
                return found
        down = self.experts.down_proj
        return next(size for size in down.shape[1:] if size != d_model or down.shape[1] == down.shape[2])

    def down(self, expert: int, d_model: int) -> Float[Tensor, "d_model d_mlp"]:
        """The matrix through which an expert writes, in float32."""
        weight = getattr(self.experts, "down_proj", None)
        if weight is None:
            raise ModelError(f"{type(self.experts).__name__} does not keep its experts' matrices in one stack")
        turned = getattr(self.experts, "is_transposed", weight.shape[1] != d_model)
        found = weight[expert].detach().float()
        return found.T if turned else found

    def register(self, site: str, hook: Hook) -> list[Any]:
        """Handles of the hooks that show `hook` the site."""
        doors: dict[str, Callable[[Hook], list[Any]]] = {
            "router_input": lambda h: [before(self._router(), tokenwise(h))],
            "router_logits": lambda h: [after(self._router(), tokenwise(h), index=self.logits_index)],
            "expert_index": lambda h: self.at_choice(lambda index, _: (h(index), None)),
            "expert_weight": lambda h: self.at_choice(lambda _, weight: (None, h(weight))),
            "expert_output": self.at_outputs,
            "shared_output": self._at_shared,
        }
        return doors[site](hook)

    def at_choice(self, see: Callable[[Tensor, Tensor], tuple[Tensor | None, Tensor | None]]) -> list[Any]:
        """Show `see` index and weight, each (tokens, k); what it returns takes their place."""

        def at_door(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            call = self.call(args, kwargs)
            index, weight = self.choice(call)
            new_index, new_weight = see(index, weight)
            if new_index is None and new_weight is None:
                return None
            changed = self.chosen(call, new_index, new_weight)
            return tuple(changed.pop(name) for name in self._names[: len(args)]), changed

        return [self.experts.register_forward_pre_hook(at_door, with_kwargs=True)]

    def at_outputs(self, hook: Hook) -> list[Any]:
        """Show the hook the unweighted outputs; an edit enters as weight * (new - old), so `new = old` changes no bit.

        A slot that was dropped has output 0.
        """

        def done(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
            call = self.call(args, kwargs)
            states = call["hidden_states"].flatten(0, -2)
            index, weight = self.choice(call)
            old = self.outputs(states, index)
            new = hook(old)
            if new is None or new is old:
                return None
            change = ((new - old) * weight[..., None].to(old.dtype)).sum(dim=1)
            return output + change.view(output.shape).to(output.dtype)

        return [self.experts.register_forward_hook(done, with_kwargs=True)]

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments of the experts' call, by name."""
        return dict(zip(self._names, args, strict=False)) | kwargs

    def choice(self, call: dict[str, Any]) -> tuple[Int[Tensor, "tokens k"], Float[Tensor, "tokens k"]]:
        """Index and weight of the choice, as used."""
        index, weight = self._choice_names
        return call[index], call[weight]

    def chosen(self, call: dict[str, Any], index: Tensor | None, weight: Tensor | None) -> dict[str, Any]:
        """The call with another choice."""
        new = {
            name: value for name, value in zip(self._choice_names, (index, weight), strict=True) if value is not None
        }
        return call | new

    def outputs(
        self, states: Float[Tensor, "tokens d_model"], index: Int[Tensor, "tokens k"]
    ) -> Float[Tensor, "tokens k d_model"]:
        """Outputs of the chosen experts before weighting: the experts' own code, one slot at a time, with weight 1."""
        one = torch.ones_like(index[:, :1], dtype=states.dtype)
        slots = [self.experts.forward(states, index[:, j : j + 1], one) for j in range(index.shape[1])]
        return torch.stack([slot.reshape(states.shape) for slot in slots], dim=1)

    def _at_shared(self, hook: Hook) -> list[Any]:
        if self.shared is None:
            return []

        def done(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            plain = first(output)
            # Several families add to this tensor in place.
            seen = plain * self.shared_scale
            if self.shared_gate is not None:
                seen = seen * self.shared_gate(args[0]).sigmoid()
            if tokenwise(hook)(seen) is not None:
                raise ModelError("the site 'shared_output' can be observed, not edited")

        return [self.shared.register_forward_hook(done)]

    def _router(self) -> nn.Module:
        if self.router is None:
            raise ModelError(f"{type(self.block).__name__} does not say where its router logits are")
        return self.router


def choice_names(module: nn.Module) -> tuple[str, str] | None:
    """What an experts' module calls the indices and the weights of the choice; None if it is not told them."""
    if not callable(getattr(module, "forward", None)):
        return None
    parameters = inspect.signature(module.forward).parameters
    return next((pair for pair in SPELLINGS if set(pair) <= set(parameters)), None)


def tokenwise(hook: Hook) -> Hook:
    """The hook with leading axes (batch and position) in one."""

    def run(tensor: Tensor) -> Tensor | None:
        new = hook(tensor.flatten(0, -2))
        return None if new is None else new.view(tensor.shape)

    return run


def _router(block: nn.Module, recorders: Iterable[Any]) -> tuple[nn.Module | None, int]:
    """The module that makes the router logits, and where they stand in what it returns."""
    for recorder in recorders:
        for module in block.modules():
            if recorder.target_class is not None and isinstance(module, recorder.target_class):
                return module, recorder.index
    for name in ("gate", "router"):
        if isinstance(found := getattr(block, name, None), nn.Module):
            return found, 0
    return None, 0


def _shared(module: nn.Module) -> nn.Module | None:
    """The shared experts: the child whose name begins with `shared` and is no gate."""
    found = (c for name, c in module.named_children() if name.startswith("shared") and not name.endswith("gate"))
    return next(found, None)
