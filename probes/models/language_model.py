"""What every probe sees of a language model: its parts in the field's terms, sites to observe, sites to edit."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probes.models.sites import ROUTED_SITES, check_sites

Visit = Callable[[int, dict[str, Tensor]], None]
"""Called once a layer with the tensors of the sites asked for."""
Hook = Callable[[Tensor], Tensor | None]
"""Sees a site's tensor; what it returns, if anything, takes the tensor's place."""


_SCORED = 32
"""Tokens whose scores are summed together: few enough for the processor's cache, which is worth a factor of eight."""


class _Enough(Exception):
    """Ends a forward pass once the last layer asked for has been seen."""


@dataclass(frozen=True)
class Block:
    """What the feed-forward part of one layer is."""

    kind: str
    """`dense`, `moe`, or `none` in a layer without a feed-forward block."""
    d_mlp: int
    """Neurons (of one expert, in a mixture of experts)."""
    gated: bool
    """Whether neurons are act(gate) * up rather than act(in)."""
    activation: str
    """Name of the activation function."""
    n_experts: int = 0
    """Experts, 0 in a dense block."""
    k: int = 0
    """Experts used for a token, 0 in a dense block."""
    weighs: str = "output"
    """Whether the routing weights multiply the experts' `output` or their `input` (Llama 4)."""
    routed_scale: float = 1.0
    """What the sum of the experts' weighted outputs is multiplied by before it is added."""


class LanguageModel(ABC):
    """A causal language model behind the one door; made by `open_model`."""

    def __init__(self, hf: Any, tokenizer: Any, *, name: str, title: str, source: str):
        self.hf = hf.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.title = title
        """What figures and tables call the model; names quantisation where there is some."""
        self.source = source

    @property
    @abstractmethod
    def blocks(self) -> tuple[Block, ...]:
        """The feed-forward part of every layer."""

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """The blocks' modules, in the order in which they run."""

    @abstractmethod
    def hooked(self, hooks: Iterable[tuple[int, str, Hook]]) -> AbstractContextManager[None]:
        """While open, each (layer, site, hook) sees, and may replace, that site's tensor."""

    @abstractmethod
    def feed_forward(self, layer: int) -> Callable[[Tensor], Tensor]:
        """The layer's feed-forward block as a function of its input (batch, position, d_model)."""

    @abstractmethod
    def feed_forward_parameters(self, layer: int) -> Iterable[Tensor]:
        """The parameters of the layer's feed-forward block."""

    @abstractmethod
    def plain_weights(self) -> dict[str, Tensor]:
        """Parameters under transformers' own names."""

    @property
    def body(self) -> Any:
        """The module that runs the blocks, without the vocabulary projection."""
        return self.hf.base_model

    @property
    def config(self) -> Any:
        """The transformers configuration of the text model."""
        return self.hf.config.get_text_config()

    @property
    def n_layers(self) -> int:
        """Transformer blocks."""
        return self.config.num_hidden_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.config.hidden_size

    @property
    def d_mlp(self) -> int:
        """Neurons of the widest feed-forward block (or expert)."""
        return max(block.d_mlp for block in self.blocks)

    @property
    def n_experts(self) -> int:
        """Experts of the widest mixture, 0 for a dense model."""
        return max(block.n_experts for block in self.blocks)

    @property
    def k(self) -> int:
        """Experts used for a token, 0 for a dense model."""
        return max(block.k for block in self.blocks)

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding."""
        return self.hf.get_input_embeddings().weight.shape[0]

    @property
    def device(self) -> torch.device:
        """Where token ids must be."""
        return self.hf.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the model computes."""
        return self.hf.get_input_embeddings().weight.dtype

    @cached_property
    def document_token(self) -> int | None:
        """Token that begins a document: `<|endoftext|>` where the vocabulary has it, else BOS, else EOS."""
        if self.tokenizer is None:
            return self.config.bos_token_id
        endoftext = self.tokenizer.get_vocab().get("<|endoftext|>")
        choices = (endoftext, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        return next((token for token in choices if token is not None), None)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of a SHA-256 over each parameter's name, shape and every 101st value."""
        found = hashlib.sha256()
        for name, weight in sorted(self.plain_weights().items()):
            sample = weight.detach().flatten()[::101].float().cpu().numpy()
            found.update(f"{name}{tuple(weight.shape)}".encode() + sample.tobytes())
        return found.hexdigest()[:16]

    def logits(self, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch _ vocab"]:
        """Next-token scores."""
        with torch.no_grad():
            return self.hf(input_ids=ids.to(self.device), use_cache=False).logits

    def losses(self, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch next_position"]:
        """Negative log-likelihood in nats of each token given those before it; position j is for token j + 1."""
        logits = self.logits(ids)[:, :-1].flatten(0, 1)
        targets = ids[:, 1:].to(logits.device).flatten()
        rows = zip(logits.split(_SCORED), targets.split(_SCORED), strict=True)
        return torch.cat([_surprise(scores, token) for scores, token in rows]).view(len(ids), -1)

    def observe(
        self,
        ids: Int[Tensor, "batch position"],
        sites: Iterable[str],
        visit: Visit,
        *,
        layers: Iterable[int] | None = None,
    ) -> None:
        """Run the blocks (not the vocabulary projection) and show `visit` each layer's sites as they are computed.

        Only one layer's tensors are held at a time.  The pass ends after the last of `layers` (default: all).
        """
        wanted, names = self._layers(layers), tuple(dict.fromkeys(sites))
        check_sites(names)
        seen: dict[str, Tensor] = {}

        def keep(site: str) -> Hook:
            def run(tensor: Tensor) -> None:
                # Mixtures hold their routing, some their output too, with batch and position in one axis.
                flat = site in ROUTED_SITES or tensor.dim() == 2
                seen[site] = tensor.unflatten(0, ids.shape) if flat else tensor

            return run

        def finish(layer: int) -> Hook:
            def at_block_output(tensor: Tensor) -> None:
                shown = dict(seen) | ({"block_output": tensor} if "block_output" in names else {})
                seen.clear()
                visit(layer, shown)
                if layer == wanted[-1]:
                    raise _Enough

            return at_block_output

        hooks = [(layer, site, keep(site)) for layer in wanted for site in names if site != "block_output"]
        hooks += [(layer, "block_output", finish(layer)) for layer in wanted]
        with torch.no_grad(), self.hooked(hooks), suppress(_Enough):
            self.body(input_ids=ids.to(self.device), use_cache=False)

    @contextmanager
    def edited(self, edits: Mapping[tuple[int, str], Callable[[Tensor], Tensor]]) -> Iterator[None]:
        """While open, every forward pass has the sites `(layer, site)` replaced by the edit's value.

        An edit sees the tensor as the model holds it (routed sites: batch and position in one axis).

        >>> with model.edited({(3, "ffn_output"): torch.zeros_like}):
        ...     loss_without_layer_3 = model.losses(ids).mean()
        """
        check_sites(tuple(site for _, site in edits))
        with self.hooked([(layer, site, edit) for (layer, site), edit in edits.items()]):
            yield

    def outputs_of(self, layer: int, ids: Int[Tensor, "batch position"]) -> Any:
        """All that the layer returns for these tokens; None for layer -1."""
        kept: list[Any] = []

        def keep(_: Any, __: Any, output: Any) -> None:
            kept.append(output)
            raise _Enough

        if layer < 0:
            return None
        handle = self.layers[layer].register_forward_hook(keep)
        try:
            with torch.no_grad(), suppress(_Enough):
                self.body(input_ids=ids.to(self.device), use_cache=False)
        finally:
            handle.remove()
        return kept[0]

    def resumes(self, layer: int) -> bool:
        """Whether a pass can begin at `layer`: not where the layers before it pass on more than they return."""
        ids = torch.arange(1, 6)[None] % self.vocab_size
        whole = self.logits(ids)
        with self.resumed(layer, self.outputs_of(layer - 1, ids)):
            return torch.equal(self.logits(ids), whole)

    @contextmanager
    def resumed(self, layer: int, before: Any) -> Iterator[None]:
        """While open, a pass begins at `layer`: the layers before it give back `before` (see `outputs_of`) unread.

        What the layer does is the same operation on the same numbers, so its results are the same bit for bit.
        """
        skipped = self.layers[:layer]
        try:
            for block in skipped:
                block.__dict__["forward"] = lambda *_, **__: before  # a bridge hands on what it is set by name
            yield
        finally:
            for block in skipped:
                block.__dict__.pop("forward", None)

    def _layers(self, layers: Iterable[int] | None) -> list[int]:
        chosen = sorted(set(range(self.n_layers) if layers is None else layers))
        if not chosen or chosen[0] < 0 or chosen[-1] >= self.n_layers:
            raise ValueError(f"layers {chosen} are not all in 0..{self.n_layers - 1} of {self.title}")
        return chosen

    def __repr__(self) -> str:
        """Name and shape."""
        kinds = "/".join(sorted({block.kind for block in self.blocks}))
        return f"<{self.title}: {self.n_layers} {kinds} layers, d_model {self.d_model}, d_mlp {self.d_mlp}>"


def _surprise(logits: Float[Tensor, "tokens vocab"], token: Int[Tensor, " tokens"]) -> Float[Tensor, " tokens"]:
    """-log softmax(logits)[token] in float32."""
    scores = logits.float()
    return scores.logsumexp(dim=1) - scores.gather(1, token[:, None])[:, 0]
