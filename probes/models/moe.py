"""Mixture-of-experts models, observed at the doors of transformers' own modules.

The experts' module of a layer is called with `(hidden_states, top_k_index, top_k_weights)`: a hook before it sees
the choice that was used, after any bias, grouping or renormalisation.  Deriving the choice from router logits
would be wrong for grouped or bias-balanced routers.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probes.models.language_model import Block, Hook, LanguageModel
from probes.models.sites import ROUTED_SITES
from probes.models.weights import ModelError

REFUSED = {
    "nllb_moe": "transformers routes every token of NLLB-MoE to experts 0 and 1 only, so its routing would be wrong",
}
"""Families that cannot be trusted, with the reason."""


class RoutedModel(LanguageModel):
    """A model with at least one mixture-of-experts block; outputs are bitwise those of the model alone."""

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The feed-forward part of every layer."""
        return tuple(self._block(layer) for layer in self.layers)

    @cached_property
    def layers(self) -> nn.ModuleList:
        """The decoder layers."""
        lists = (m for m in self.hf.base_model.modules() if isinstance(m, nn.ModuleList))
        found = next((m for m in lists if len(m) == self.n_layers), None)
        if found is None:
            raise ModelError(f"{self.title}: no list of {self.n_layers} decoder layers found in the model")
        return found

    def _block(self, layer: nn.Module) -> Block:
        experts, activation = experts_of(layer), getattr(self.config, "hidden_act", "unknown")
        if experts is None:
            mlp = _feed_forward_of(layer)
            return Block("dense", d_mlp=_projection(mlp, "down").in_features, gated=True, activation=activation)
        down = experts.down_proj
        width = next(size for size in down.shape[1:] if size != self.d_model or down.shape[1] == down.shape[2])
        k: int = getattr(self.config, "num_experts_per_tok", None) or getattr(self.config, "moe_topk", None) or 1
        return Block("moe", d_mlp=width, gated=True, activation=activation, n_experts=down.shape[0], k=k)

    @contextmanager
    def hooked(self, hooks: Iterable[tuple[int, str, Hook]]) -> Iterator[None]:
        """While open, each (layer, site, hook) sees, and may replace, that site's tensor."""
        with ExitStack() as stack:
            for layer, site, hook in hooks:
                handle = self._register(layer, site, hook)
                if handle is not None:
                    stack.callback(handle.remove)
            yield

    def _register(self, layer: int, site: str, hook: Hook) -> Any:
        block = self.layers[layer]
        if site in ROUTED_SITES:
            return self._register_routed(block, site, hook)
        if site in ("block_input", "block_output"):
            return (_before if site == "block_input" else _after)(block, hook)
        if site == "attention_output":
            return _after(_attention_of(block), hook)
        if site in ("ffn_input", "ffn_output"):
            return (_before if site == "ffn_input" else _after)(_feed_forward_of(block), hook)
        if experts_of(block) is None and site in ("gate", "neurons"):
            mlp = _feed_forward_of(block)
            return _after(_projection(mlp, "gate"), hook) if site == "gate" else _before(_projection(mlp, "down"), hook)
        if site in ("gate", "neurons"):
            return None  # a mixture's neurons are its experts'; see `expert_output`
        raise ModelError(f"{self.title} does not offer the site '{site}'")

    def _register_routed(self, block: nn.Module, site: str, hook: Hook) -> Any:
        experts = experts_of(block)
        if experts is None:
            return None  # a dense layer of a mixed model routes nothing
        if site == "router_logits":
            return self._register_router(block, hook)

        def at_door(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            call = inspect.signature(module.forward).bind(*args, **kwargs)
            index_name, weight_name = _choice_names(module)
            if site == "expert_output":
                hook(unweighted_outputs(module, call.arguments["hidden_states"], call.arguments[index_name]))
                return None
            name = index_name if site == "expert_index" else weight_name
            new = hook(call.arguments[name])
            if new is None:
                return None
            call.arguments[name] = new
            return call.args, call.kwargs

        return experts.register_forward_pre_hook(at_door, with_kwargs=True)

    def _register_router(self, block: nn.Module, hook: Hook) -> Any:
        recorder = _router_recorder(self.hf)
        router = next((m for m in block.modules() if recorder and isinstance(m, recorder.target_class)), None)
        if router is None:
            raise ModelError(f"{self.title} does not say where its router logits are")
        return _after(router, hook, index=recorder.index)

    def feed_forward(self, layer: int) -> Callable[[Tensor], Tensor]:
        """The layer's feed-forward block as a function of its input (batch, position, d_model)."""
        mlp = _feed_forward_of(self.layers[layer])
        return lambda states: _first(mlp(states))

    def feed_forward_parameters(self, layer: int) -> Iterable[Tensor]:
        """The parameters of the layer's feed-forward block, router and experts included."""
        return _feed_forward_of(self.layers[layer]).parameters()

    def plain_weights(self) -> dict[str, Tensor]:
        """Parameters under transformers' own names."""
        return dict(self.hf.state_dict())


def unweighted_outputs(
    experts: nn.Module, states: Float[Tensor, "tokens d_model"], index: Int[Tensor, "tokens k"]
) -> Float[Tensor, "tokens k d_model"]:
    """Output of each expert that was used, before weighting: the experts' own code, one slot at a time, weight 1."""
    one = torch.ones_like(index[:, :1], dtype=states.dtype)
    slots = [experts.forward(states, index[:, j : j + 1], one) for j in range(index.shape[1])]
    return torch.stack(slots, dim=1)


def is_routed(hf: Any) -> bool:
    """Whether any module of the model is a stack of experts called with the choice made."""
    return any(_takes_the_choice(module) for module in hf.modules())


def check_family(hf: Any, title: str) -> None:
    """ModelError with the reason if the family's routing cannot be trusted or cannot be seen."""
    family = hf.config.model_type
    if family in REFUSED:
        raise ModelError(f"{title} is refused: {REFUSED[family]}")
    scattered = any(type(module).__name__.endswith(("Experts", "SparseMLP")) for module in hf.modules())
    if scattered and not is_routed(hf):
        raise ModelError(
            f"{title}: the experts of the family '{family}' are not called with the choice made; not supported"
        )


def experts_of(layer: nn.Module) -> Any:
    """The stack of experts inside a decoder layer, None in a dense layer."""
    return next((module for module in layer.modules() if _takes_the_choice(module)), None)


def _takes_the_choice(module: nn.Module) -> bool:
    return hasattr(module, "down_proj") and bool(_choice_names(module))


def _choice_names(module: nn.Module) -> tuple[str, ...]:
    """What the experts' module calls the indices and the weights of the choice; empty if it is not told them."""
    parameters = inspect.signature(module.forward).parameters
    spellings = (("top_k_index", "top_k_weights"), ("router_indices", "routing_weights"))
    return next((pair for pair in spellings if set(pair) <= set(parameters)), ())


def _router_recorder(hf: Any) -> Any:
    for module in hf.modules():
        recorder = (getattr(module, "_can_record_outputs", None) or {}).get("router_logits")
        if recorder is not None:
            return recorder
    return None


def _feed_forward_of(layer: nn.Module) -> nn.Module:
    experts = experts_of(layer)
    for _, child in layer.named_children():
        inside = set(child.modules())
        if experts in inside if experts is not None else _has_projection(child):
            return child
    raise ModelError(f"no feed-forward block found in {type(layer).__name__}")


def _attention_of(layer: nn.Module) -> nn.Module:
    return next(child for name, child in layer.named_children() if "att" in name and "norm" not in name)


def _has_projection(module: nn.Module) -> bool:
    return any(name.startswith("down") for name, _ in module.named_children())


def _projection(mlp: nn.Module, role: str) -> Any:
    return next(child for name, child in mlp.named_children() if name.startswith(role))


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _before(module: nn.Module, hook: Hook) -> Any:
    def run(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            new = hook(args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        new = hook(kwargs["hidden_states"])
        return None if new is None else (args, kwargs | {"hidden_states": new})

    return module.register_forward_pre_hook(run, with_kwargs=True)


def _after(module: nn.Module, hook: Hook, index: int = 0) -> Any:
    def run(_: nn.Module, __: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return hook(output)
        new = hook(output[index])
        return None if new is None else (*output[:index], new, *output[index + 1 :])

    return module.register_forward_hook(run)
