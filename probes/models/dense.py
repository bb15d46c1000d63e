"""Dense models, observed through TransformerLens' TransformerBridge."""

import copy
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from probes.models.language_model import Block, Hook, LanguageModel
from probes.models.sites import DENSE_HOOKS
from probes.models.weights import ModelError


class DenseModel(LanguageModel):
    """A model whose feed-forward blocks are all dense; `bridge` is its TransformerBridge.

    Logits equal the plain model with eager attention bit for bit, but for families whose fused query-key-value
    matrix the bridge splits (GPT-2): there they agree to rounding.
    """

    def __init__(self, hf: Any, tokenizer: Any, *, name: str, title: str, source: str):
        super().__init__(hf, tokenizer, name=name, title=title, source=source)
        # The bridge renames what it wraps; the tensors stay the same.
        self._plain_weights = dict(hf.state_dict())
        self.bridge = _boot(hf, name)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The feed-forward part of every layer."""
        return tuple(self._block(layer) for layer in range(self.n_layers))

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks' modules, in the order in which they run."""
        return self.bridge.blocks

    def _block(self, layer: int) -> Block:
        mlp = self.bridge.blocks[layer].mlp
        names = ("hidden_act", "hidden_activation", "activation_function")
        activation = next((found for name in names if (found := getattr(self.config, name, None))), "unknown")
        return Block(kind="dense", d_mlp=mlp.W_out.shape[0], gated=hasattr(mlp, "gate"), activation=activation)

    @contextmanager
    def hooked(self, hooks: Iterable[tuple[int, str, Hook]]) -> Iterator[None]:
        """While open, each (layer, site, hook) sees, and may replace, that site's tensor."""
        points = [(self._points[self._hook_name(layer, site)], hook) for layer, site, hook in hooks]
        # What `bridge.hooks` does, but that resolves every name of the model anew for every hook: a third of a second
        # for a batch.
        level = self.bridge.context_level = self.bridge.context_level + 1
        try:
            for point, hook in points:
                point.add_hook(_as_bridge_hook(hook), level=level)
            yield
        finally:
            for point, _ in points:
                point.remove_hooks("fwd", level=level)
            self.bridge.context_level -= 1

    @cached_property
    def _points(self) -> dict[str, Any]:
        """The bridge's hook points by name."""
        return dict(self.bridge.hook_dict)

    def _hook_name(self, layer: int, site: str) -> str:
        if site not in DENSE_HOOKS:
            raise ValueError(f"{self.title} has no experts, so no site '{site}'; dense sites: {', '.join(DENSE_HOOKS)}")
        name = f"blocks.{layer}.{DENSE_HOOKS[site]}"
        if site == "gate" and not self.blocks[layer].gated:
            name = f"blocks.{layer}.mlp.in.hook_out"
        if name not in self._points:
            raise ModelError(f"{self.title} does not offer the site '{site}' in layer {layer}")
        return name

    def feed_forward(self, layer: int) -> Callable[[Tensor], Tensor]:
        """The layer's feed-forward block as a function of its input (batch, position, d_model)."""
        return self.bridge.blocks[layer].mlp

    def feed_forward_parameters(self, layer: int) -> Iterable[Tensor]:
        """The parameters of the layer's feed-forward block."""
        return self.bridge.blocks[layer].mlp.parameters()

    def plain_weights(self) -> dict[str, Tensor]:
        """Parameters under transformers' own names."""
        return dict(self._plain_weights)


def _boot(hf: Any, name: str) -> Any:
    # Not `boot_transformers`: that one fetches a tokenizer by name, and changes the one it is given.
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    architecture = (getattr(hf.config, "architectures", None) or [type(hf).__name__])[0]
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        return build_bridge_from_module(hf, architecture, hf_config=copy.deepcopy(hf.config), model_name=name)
    except (ValueError, KeyError, NotImplementedError, AttributeError) as error:
        raise ModelError(f"TransformerLens cannot open the dense architecture {architecture} ({error})") from error
    finally:
        logging.disable(level)


def _as_bridge_hook(hook: Hook) -> Callable[..., Tensor | None]:
    # The bridge passes the hook point by keyword.
    return lambda tensor, hook_point=None, **_: hook(tensor)
