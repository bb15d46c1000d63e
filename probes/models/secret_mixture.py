"""A causal language model some of whose feed-forward blocks are mixtures of experts that were fitted to them.

The rest of the model is its own code, whatever its family.  The architecture is registered with transformers (see
`probes.registering`), so `AutoModelForCausalLM.from_pretrained` opens a folder of it and no remote code is run.
The first positions of a sequence keep the dense block: attention sinks live there, and no student was fitted on them.
Padding at the left, which batched generation puts there, is not counted as positions.
"""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedConfig, PreTrainedModel

from data.runs import Run, open_run

STUDENT = "student_"
"""A run holds the student of layer L as `student_L.safetensors`."""
THEIRS = "open the model that they were fitted to, as in `--model smollm2-135m`"
FIRST = 4
"""Positions at the start of a sequence that keep the dense block."""


class SecretMixtureConfig(PreTrainedConfig):
    """Configuration of the model without mixtures, and the shape of each layer's mixture."""

    model_type = "sparsescope_secret_mixture"

    def __init__(
        self, base: dict[str, Any] | None = None, mixtures: dict[str, dict[str, Any]] | None = None, **more: Any
    ) -> None:
        self.base = base or {}
        """Configuration of the model as it was."""
        self.mixtures = mixtures or {}
        """Layer -> n_experts, rank, shared, k, temperature."""
        known = ("vocab_size", "hidden_size", "num_hidden_layers", "hidden_act", "bos_token_id", "eos_token_id")
        carried = {
            name: self.base[name] for name in (*known, "pad_token_id", "num_attention_heads") if name in self.base
        }
        super().__init__(**(carried | {"tie_word_embeddings": self.base.get("tie_word_embeddings", False)} | more))
        self.num_experts_per_tok = max((m["k"] for m in self.mixtures.values()), default=1)

    def plain(self) -> Any:
        """The configuration of the model without mixtures."""
        fields = {k: v for k, v in self.base.items() if k != "model_type"}
        return AutoConfig.for_model(self.base["model_type"], **fields)


class Router(nn.Module):
    """Scores of the experts: nearness to each expert's centroid, over the temperature."""

    def __init__(self, d_model: int, n_experts: int, temperature: float):
        super().__init__()
        self.centroids = nn.Parameter(torch.zeros(n_experts, d_model))
        self.temperature = temperature

    def forward(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n n_experts"]:
        """Router logits, in float32."""
        centroids = self.centroids.float()
        return (x.float() @ centroids.T - centroids.square().sum(dim=1) / 2) / self.temperature


class AffineExperts(nn.Module):
    """Affine maps of low rank, called with the choice made."""

    has_gate = False

    def __init__(self, d_model: int, n_experts: int, rank: int):
        super().__init__()
        self.num_experts, self.intermediate_dim = n_experts, rank
        self.up_proj = nn.Parameter(torch.zeros(n_experts, d_model, rank))
        self.down_proj = nn.Parameter(torch.zeros(n_experts, rank, d_model))
        self.bias = nn.Parameter(torch.zeros(n_experts, d_model))

    def forward(
        self,
        hidden_states: Float[Tensor, "n d_model"],
        top_k_index: Int[Tensor, "n k"],
        top_k_weights: Float[Tensor, "n k"],
    ) -> Float[Tensor, "n d_model"]:
        """Weighted sum of the chosen experts' answers."""
        x = hidden_states.float()
        y = torch.zeros_like(x)
        for slot in range(top_k_index.shape[1]):
            for e in top_k_index[:, slot].unique().tolist():
                here = top_k_index[:, slot] == e
                answer = x[here] @ self.up_proj[e].float() @ self.down_proj[e].float() + self.bias[e].float()
                y[here] += top_k_weights[here, slot, None].float() * answer
        return y.to(hidden_states.dtype)


class SharedMap(nn.Module):
    """The linear map of low rank that all tokens share."""

    def __init__(self, d_model: int, rank: int):
        super().__init__()
        self.read = nn.Parameter(torch.zeros(d_model, rank))
        self.write = nn.Parameter(torch.zeros(rank, d_model))

    def forward(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """Its answer to each row."""
        return (x.float() @ self.read.float() @ self.write.float()).to(x.dtype)


class MixtureBlock(nn.Module):
    """A feed-forward block: the mixture for every token, the dense block for the first positions."""

    def __init__(self, dense: nn.Module, d_model: int, shape: Mapping[str, Any]):
        super().__init__()
        self.dense = dense
        self.router = Router(d_model, shape["n_experts"], shape["temperature"])
        self.experts = AffineExperts(d_model, shape["n_experts"], shape["rank"])
        self.shared_expert = SharedMap(d_model, shape["shared"]) if shape["shared"] else None
        self.k: int = shape["k"]
        self.begun = 0
        """Positions of the sequence that an earlier call has read."""
        self.padding: Int[Tensor, " batch"] | None = None
        """Padded positions at the left of each sequence, where a mask tells of any."""

    def forward(self, hidden_states: Float[Tensor, "batch position d_model"]) -> Any:
        """Its answer to each token."""
        x = hidden_states.flatten(0, 1)
        top = self.router(x).topk(self.k, dim=1)
        y = self.experts(x, top.indices, top.values.softmax(dim=1))
        if self.shared_expert is not None:
            y = y + self.shared_expert(x)
        y = y.view_as(hidden_states)
        n = max(FIRST + (0 if self.padding is None else int(self.padding.max())) - self.begun, 0)
        if not n:
            return y
        dense = self.dense(hidden_states[:, :n])
        if self.padding is not None:
            position = self.begun + torch.arange(dense.shape[1], device=y.device)
            early = position < FIRST + self.padding.to(y.device)[:, None]
            dense = torch.where(early[:, :, None], dense, y[:, :n])
        return torch.cat([dense, y[:, n:]], dim=1)


class SecretMixtureForCausalLM(PreTrainedModel, GenerationMixin):
    """Any causal language model with some feed-forward blocks replaced."""

    config_class = SecretMixtureConfig
    base_model_prefix = "plain"
    _keep_in_fp32_modules_strict: ClassVar[list[str]] = ["router", "experts", "shared_expert"]  # type: ignore[misc]
    _supports_sdpa = True

    def __init__(self, config: SecretMixtureConfig):
        super().__init__(config)
        attention = getattr(config, "_attn_implementation", None) or "eager"
        self.plain = AutoModelForCausalLM.from_config(config.plain(), attn_implementation=attention)
        for layer, shape in config.mixtures.items():
            block = insert(self.plain, int(layer), shape)
            for part in (block.router, block.experts, block.shared_expert):
                for weight in part.parameters() if part is not None else ():
                    # all 0 until a folder is read, a control with random weights would always choose the same expert
                    nn.init.normal_(weight, std=config.base.get("initializer_range", 0.02))
        self.base_model.register_forward_pre_hook(self._tell_begun, with_kwargs=True)
        self.post_init()

    @property
    def base_model(self) -> nn.Module:
        """The blocks without the vocabulary projection."""
        return self.plain.base_model

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        return self.plain.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The vocabulary projection."""
        return self.plain.get_output_embeddings()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the plain model answers, its blocks replaced."""
        return self.plain(*args, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        if not isinstance(module, Router | AffineExperts | SharedMap):
            self.plain._init_weights(module)

    def _tell_begun(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cache = kwargs.get("past_key_values")
        begun = 0 if cache is None else int(cache.get_seq_length())
        mask = kwargs.get("attention_mask")
        padding = None
        if isinstance(mask, Tensor) and mask.ndim == 2 and bool((mask[:, 0] == 0).any()):
            padding = (mask.cumsum(dim=1) == 0).sum(dim=1)
        for block in self.modules():
            if isinstance(block, MixtureBlock):
                block.begun, block.padding = begun, padding


def insert(plain: Any, layer: int, shape: Mapping[str, Any]) -> MixtureBlock:
    """Put a mixture of this shape, its weights 0, in the place of a layer's feed-forward block."""
    n_layers = plain.config.get_text_config().num_hidden_layers
    layers = next(m for m in plain.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers)
    place = next(name for name, child in layers[layer].named_children() if name in ("mlp", "feed_forward", "ffn", "fc"))
    block = MixtureBlock(getattr(layers[layer], place), plain.config.get_text_config().hidden_size, shape)
    setattr(layers[layer], place, block)
    return block


@torch.no_grad()
def with_mixtures(hf: Any, students: Mapping[int, Mapping[str, np.ndarray]]) -> SecretMixtureForCausalLM:
    """The model with these layers' blocks replaced; arrays as `probes.secret` keeps them.  The model given is used up.

    ValueError if a layer is not there or a student is of another width.
    """
    width, n_layers = hf.config.get_text_config().hidden_size, hf.config.get_text_config().num_hidden_layers
    for layer, arrays in students.items():
        if not 0 <= layer < n_layers:
            raise ValueError(f"the experts stand for layer {layer}, this model has 0..{n_layers - 1}; {THEIRS}")
        if arrays["centroids"].shape[1] != width:
            read = arrays["centroids"].shape[1]
            raise ValueError(f"the experts read {read} numbers, this model has {width}; {THEIRS}")
    shapes = {str(layer): _shape(arrays) for layer, arrays in students.items()}
    base = {k: v for k, v in hf.config.to_dict().items() if k not in ("dtype", "torch_dtype", "architectures")}
    config = SecretMixtureConfig(base=copy.deepcopy(base), mixtures=shapes)
    config._attn_implementation = hf.config._attn_implementation
    config.architectures = [SecretMixtureForCausalLM.__name__]
    with torch.device("meta"):
        made = SecretMixtureForCausalLM(config)
    made.plain = hf
    for layer, arrays in students.items():
        block = insert(hf, layer, shapes[str(layer)])
        values = {
            "router.centroids": "centroids", "experts.up_proj": "read", "experts.down_proj": "write",
            "experts.bias": "bias", "shared_expert.read": "shared_read", "shared_expert.write": "shared_write",
        }  # fmt: skip
        held = dict(block.named_parameters())
        for name, key in values.items():
            if name in held:
                held[name].copy_(torch.from_numpy(np.array(arrays[key])))
    hf.base_model.register_forward_pre_hook(made._tell_begun, with_kwargs=True)
    return made.eval()


def read_students(source: Any) -> tuple[str, dict[int, dict[str, np.ndarray]]]:
    """Name of a run and its students' arrays by layer; ValueError if it holds none."""
    run = source if isinstance(source, Run) else open_run(source)
    names = [name for name in run.tensor_names() if name.startswith(STUDENT)]
    if not names:
        raise ValueError(f"run '{run.name}' holds no secret experts; fit them with `sparsescope probe secret`")
    return run.name, {int(name.removeprefix(STUDENT)): run.tensors(name) for name in names}


def _shape(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    n_experts, _, rank = arrays["read"].shape
    return {
        "n_experts": n_experts, "rank": rank, "shared": arrays["shared_read"].shape[1],
        "k": int(arrays["k"][0]), "temperature": float(arrays["temperature"][0]),
    }  # fmt: skip


def register() -> None:
    """Tell transformers of the architecture."""
    AutoConfig.register(SecretMixtureConfig.model_type, SecretMixtureConfig, exist_ok=True)
    AutoModelForCausalLM.register(SecretMixtureConfig, SecretMixtureForCausalLM, exist_ok=True)


register()
