"""Mixture-of-experts models, observed at the doors of transformers' own modules (`mixtures`)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from probes.models import scores
from probes.models.adapters import has_experts, mixture_of
from probes.models.hooks import after, before, first
from probes.models.language_model import Block, Hook, LanguageModel
from probes.models.mixtures import Mixture
from probes.models.sites import ROUTED_SITES
from probes.models.weights import ModelError

REFUSED = {
    "nllb_moe": "transformers routes every token of NLLB-MoE to experts 0 and 1 only, so its routing would be wrong",
    "doge": "transformers mixes the router scores of different tokens in Doge (its `view(2, tokens, keys)` cuts across "
    "tokens, so a token's experts depend on other tokens, later ones too), so its routing would be wrong",
}
"""Families that cannot be trusted, with the reason."""
DOWN, GATE, IN = ("down_proj", "w2", "wo", "fc2"), ("gate_proj", "w1", "wi_0"), ("up_proj", "wi", "fc1")
"""What dense blocks call their matrices."""


class RoutedModel(LanguageModel):
    """A model with at least one mixture-of-experts block; outputs are bitwise those of the model alone.

    An encoder-decoder (Switch) is observed in its encoder, which is where every token of a text is read; it has no
    next-token loss, so `logits` refuses.
    """

    @property
    def body(self) -> Any:
        """The module that runs the blocks; the encoder of an encoder-decoder."""
        return self.hf.get_encoder() if self.hf.config.is_encoder_decoder else self.hf.base_model

    def logits(self, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch _ vocab"]:
        """Next-token scores; ModelError for an encoder-decoder."""
        if self.hf.config.is_encoder_decoder:
            raise ModelError(f"{self.title} is an encoder-decoder; its encoder's routing can be observed, but no loss")
        return super().logits(ids)

    @property
    def n_layers(self) -> int:
        """Transformer blocks."""
        return len(self.layers)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The feed-forward part of every layer."""
        return tuple(self._block(layer, mixture) for layer, mixture in zip(self.layers, self.mixtures, strict=True))

    @cached_property
    def layers(self) -> nn.ModuleList:
        """The blocks' modules: the outermost list of modules that holds experts."""
        lists = (m for m in self.body.modules() if type(m) is nn.ModuleList and has_experts(m))
        return next(lists)

    @cached_property
    def mixtures(self) -> tuple[Mixture | None, ...]:
        """The mixture of experts of each layer; None where it has none."""
        recorders = _recorders(self.hf)
        return tuple(mixture_of(layer, recorders) for layer in self.layers)

    @cached_property
    def score(self) -> tuple[str, ...]:
        """What turns each layer's router logits into probabilities (see `scores.find`); `none` without experts."""
        return scores.find(self)

    def _block(self, layer: nn.Module, mixture: Mixture | None) -> Block:
        names = ("hidden_act", "hidden_activation", "activation_function", "dense_act_fn")
        activation = next((found for name in names if (found := getattr(self.config, name, None))), "unknown")
        if mixture is None:
            mlp = _dense_of(layer)
            if mlp is None:
                return Block("none", d_mlp=0, gated=False, activation=activation)
            return Block("dense", _child(mlp, DOWN).in_features, _child(mlp, GATE) is not None, activation)
        return Block(
            "moe",
            d_mlp=mixture.d_mlp(self.d_model),
            gated=getattr(mixture.experts, "has_gate", not hasattr(mixture.experts, "up_proj")),
            activation=activation,
            n_experts=mixture.n_experts,
            k=_k(self.config),
            weighs=mixture.weighs,
            routed_scale=mixture.scale,
        )

    @contextmanager
    def hooked(self, hooks: Iterable[tuple[int, str, Hook]]) -> Iterator[None]:
        """While open, each (layer, site, hook) sees, and may replace, that site's tensor.

        A site that a layer does not have (experts in a dense layer, a feed-forward block in a layer without) is not
        shown.
        """
        wanted = list(hooks)
        if any(site == "router_probabilities" for _, site, _ in wanted):
            self.score  # noqa: B018  a pass of its own, before any hook of this one
        with ExitStack() as stack:
            for layer, site, hook in wanted:
                for handle in self._register(layer, site, hook):
                    stack.callback(handle.remove)
            yield

    def _register(self, layer: int, site: str, hook: Hook) -> list[Any]:
        block, mixture = self.layers[layer], self.mixtures[layer]
        if site == "router_probabilities":
            return [] if mixture is None else mixture.register("router_logits", self._probabilities(layer, hook))
        if site in ROUTED_SITES:
            return [] if mixture is None else mixture.register(site, hook)
        if site in ("block_input", "block_output"):
            return [(before if site == "block_input" else after)(block, hook)]
        if site == "attention_output":
            return [after(attention, hook) for attention in _attentions(block)[-1:]]
        if site in ("ffn_input", "ffn_output"):
            ffn = _dense_of(block) if mixture is None else mixture.block
            return [] if ffn is None else [(before if site == "ffn_input" else after)(ffn, hook)]
        if site not in ("gate", "neurons"):
            raise ModelError(f"{self.title} does not offer the site '{site}'")
        mlp = _dense_of(block) if mixture is None else None  # a mixture's neurons are its experts'
        if mlp is None:
            return []
        if site == "neurons":
            return [before(_child(mlp, DOWN), hook)]
        into = _child(mlp, GATE) or _child(mlp, IN)
        if into is None:
            raise ModelError(f"{self.title} does not offer the site 'gate' in layer {layer}")
        return [after(into, hook)]

    def _probabilities(self, layer: int, hook: Hook) -> Hook:
        score = self.score[layer]

        def run(logits: Tensor) -> None:
            if hook(scores.probabilities(logits, score)) is not None:
                raise ModelError("the site 'router_probabilities' can be observed, not edited; edit router_logits")

        return run

    def feed_forward(self, layer: int) -> Callable[[Tensor], Tensor]:
        """The layer's feed-forward block as a function of its input (batch, position, d_model)."""
        mlp = self._feed_forward(layer)
        return lambda states: first(mlp(states))

    def feed_forward_parameters(self, layer: int) -> Iterable[Tensor]:
        """The parameters of the layer's feed-forward block, router and experts included."""
        return self._feed_forward(layer).parameters()

    def _feed_forward(self, layer: int) -> nn.Module:
        mixture = self.mixtures[layer]
        found = _dense_of(self.layers[layer]) if mixture is None else mixture.block
        if found is None:
            raise ModelError(f"layer {layer} of {self.title} has no feed-forward block")
        return found

    def plain_weights(self) -> dict[str, Tensor]:
        """Parameters under transformers' own names."""
        return dict(self.hf.state_dict())


def is_routed(hf: Any) -> bool:
    """Whether any module of the model is a stack of experts called with the choice made."""
    return has_experts(hf)


def check_family(hf: Any, title: str) -> None:
    """ModelError with the reason if the family's routing cannot be trusted or cannot be seen."""
    family = hf.config.model_type.replace("-", "_")
    routed = any("Experts" in type(module).__name__ or "MoE" in type(module).__name__ for module in hf.modules())
    if family in REFUSED and (routed or family == "nllb_moe"):
        raise ModelError(f"{title} is refused: {REFUSED[family]}")
    scattered = any(type(module).__name__.endswith(("Experts", "SparseMLP")) for module in hf.modules())
    if scattered and not is_routed(hf):
        raise ModelError(
            f"{title}: the experts of the family '{family}' are not called with the choice made; not supported"
        )


def _recorders(hf: Any) -> list[Any]:
    """What transformers says of where router logits are."""
    found: list[Any] = []
    for module in hf.modules():
        recorder = (getattr(module, "_can_record_outputs", None) or {}).get("router_logits")
        found += recorder if isinstance(recorder, list) else [recorder] if recorder is not None else []
    return found


def _k(config: Any) -> int:
    names = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "top_k_experts", "moe_k")
    found = next((value for name in names if (value := getattr(config, name, None))), None)
    if found is None and (inner := getattr(config, "ffn_config", None)) is not None:
        return _k(inner)
    return found[0] if isinstance(found, list) else found or 1


def _attentions(layer: nn.Module) -> list[nn.Module]:
    """The layer's attention, or what stands in its place (state-space, convolution); empty if it has none."""
    roles = ("att", "mamba", "conv", "mixer")
    named = [(n, c) for n, c in layer.named_children() if "norm" not in n and not has_experts(c)]
    return [child for name, child in named if any(role in name for role in roles)]


def _dense_of(layer: nn.Module) -> nn.Module | None:
    """The layer's dense feed-forward block, None if it has none."""
    return next((module for module in layer.modules() if isinstance(_child(module, DOWN), nn.Linear)), None)


def _child(module: nn.Module, names: tuple[str, ...]) -> Any:
    return next((child for name in names if (child := getattr(module, name, None)) is not None), None)
