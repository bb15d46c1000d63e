"""Tiny models of every mixture-of-experts family that the installed transformers builds as a language model.

`python -m tests.probes.families` writes the table probes/models/FAMILIES.md from what is seen in them.
"""

import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probes import open_model
from probes.models.moe import REFUSED, RoutedModel

TABLE = Path(__file__).parents[2] / "probes" / "models" / "FAMILIES.md"
OBSERVED = (
    "ffn_input", "ffn_output", "router_input", "router_logits", "router_probabilities", "expert_index",
    "expert_weight", "expert_output", "shared_output",
)  # fmt: skip
SHAPE = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 128, "head_dim": 8,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 8),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "top_k_experts"), 2),
    **dict.fromkeys(("moe_topk", "moe_k"), 2),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("shared_intermediate_size", "vocab_size_per_layer_input"), 16),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers"), 0),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    "enable_moe_block": True,
    "is_moe": True,
}  # fmt: skip
FAMILY: dict[str, dict[str, Any]] = {
    "zaya": {"num_experts_per_tok": 1},
    "gemma4_text": {"hidden_size_per_layer_input": 0},
    "granitemoehybrid": {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "dbrx": {
        "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128,
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 8, "moe_top_k": 2, "hidden_size": 32},
        "attn_config": {"kv_n_heads": 4, "clip_qkv": 8, "rope_theta": 1e4},
    },
    "switch_transformers": {
        "d_model": 32, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 4, "num_sparse_encoder_layers": 2,
        "num_decoder_layers": 2, "num_sparse_decoder_layers": 1, "expert_capacity": 2, "decoder_start_token_id": 0,
    },
    "jetmoe": {"kv_channels": 8},
    "flint": {"mlp_only_layers": [0]},
    "beam": {"mlp_layer_types": ["sparse", "sparse"]},
    "mimo_v2_flash": {"layer_types": ["full_attention", "full_attention"], "mlp_layer_types": ["dense", "sparse"]},
    "deepseek_v4": {"mlp_layer_types": ["hash_moe", "moe"]},
    "kimi_linear": {"linear_head_dim": 8, "linear_num_heads": 4, "layer_types": ["full_attention"] * 2},
    "longcat_flash": {"num_layers": 2, "zero_expert_num": 2, "ffn_hidden_size": 24, "num_attention_heads": 4},
}  # fmt: skip
"""What a family needs beyond the common settings."""


@cache
def families() -> tuple[str, ...]:
    """Model types of transformers' language models whose code speaks of experts."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES, model_type_to_module_name
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    root = Path(transformers.__file__).parent / "models"
    found = ["switch_transformers"]
    for kind in CONFIG_MAPPING_NAMES:
        if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or f"{kind}_text" in CONFIG_MAPPING_NAMES:
            continue  # of a model for text and images, the part that reads text
        module = model_type_to_module_name(kind)
        code = root / module / f"modeling_{module}.py"
        if code.exists() and re.search(r"class \w*(Experts|MoE|SparseMLP)\w*\(|\.experts\b", code.read_text()):
            found.append(kind)
    return tuple(sorted(found))


def tiny_moe(kind: str, seed: int = 0, **changes: Any) -> Any:
    """A tiny model of the family with random weights; ValueError and the like where its configuration forbids it."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    blank = type(AutoConfig.for_model(kind))
    known = set(inspect.signature(blank.__init__).parameters) | set(dir(blank))
    common = {name: value for name, value in (SHAPE | EXPERTS).items() if name in known}
    config = AutoConfig.for_model(kind, **(common | FAMILY.get(kind, {}) | changes))
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config, attn_implementation="eager").eval()
        for weight in [*model.parameters(), *(b for n, b in model.named_buffers() if "bias" in n)]:
            if weight.is_floating_point() and not weight.any():  # routers and biases that begin at 0 decide nothing
                torch.nn.init.normal_(weight, std=0.1)
        for name, table in model.named_buffers():
            if name.endswith("tid2eid"):  # DeepSeek-V4's first layers look experts up by token
                table.random_(8)
        return model


def ids() -> Tensor:
    """Two windows of 12 tokens."""
    return torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(0))


def observed(kind: str, **changes: Any) -> tuple[RoutedModel, dict[int, dict[str, Tensor]], tuple[Tensor, Tensor]]:
    """The family's tiny model, its sites, and its output without the door and through it after observing."""
    return _observed(kind, tuple(sorted(changes.items())))


@cache
def _observed(kind: str, changes: tuple[tuple[str, Any], ...]) -> Any:
    hf = tiny_moe(kind, **dict(changes))
    with torch.no_grad():
        plain = hf.get_encoder()(ids())[0] if hf.config.is_encoder_decoder else hf(ids(), use_cache=False).logits
    model = open_model(hf)
    assert isinstance(model, RoutedModel)
    seen: dict[int, dict[str, Tensor]] = {}
    model.observe(ids(), OBSERVED, lambda layer, sites: seen.update({layer: sites}))
    with torch.no_grad():
        again = model.body(ids())[0] if hf.config.is_encoder_decoder else model.logits(ids())
    return model, seen, (plain, again)


def routed_sum(model: RoutedModel, layer: int, found: dict[str, Tensor]) -> Tensor:
    """The block's output put together from its parts: weights, unweighted outputs, shared experts."""
    mixture = model.mixtures[layer]
    assert mixture is not None
    weight = found["expert_weight"] if mixture.weighs == "output" else torch.ones_like(found["expert_weight"])
    total = (found["expert_output"] * weight[..., None]).sum(2) * mixture.scale
    if mixture.shared_inside:
        total = total + found["shared_output"]
    total = total + getattr(mixture.block, "bias", 0.0)  # JetMoE
    norm = getattr(mixture.block, "post_mlp_layernorm", None)  # A.X K1
    return (total if norm is None else norm(total)).reshape(found["ffn_output"].shape)


def table() -> str:
    """The table of families, in Markdown."""
    import transformers

    rows = []
    for kind in families():
        if kind in REFUSED:
            rows.append((kind, "refused: " + REFUSED[kind], "", "", "", ""))
            continue
        model, seen, _ = observed(kind)
        layer = next(i for i, block in enumerate(model.blocks) if block.kind == "moe")
        mixture, found = model.mixtures[layer], seen[layer]
        assert mixture is not None
        total = found["expert_weight"].sum(-1)
        sums = "yes" if torch.allclose(total, torch.ones_like(total), atol=1e-3) else "no"
        shared = "no" if mixture.shared is None else "in the block" if mixture.shared_inside else "beside the block"
        shared += " (gated)" if mixture.shared_gate is not None else ""
        bias = any("bias" in name for name, _ in (*mixture.block.named_buffers(), *_router_parameters(mixture)))
        rows.append((kind, mixture.rule, model.score[layer], sums, shared, "yes" if bias else "no"))
    rows.append(("nllb_moe", "refused: " + REFUSED["nllb_moe"], "", "", "", ""))
    head = ("family", "choice seen at", "score", "weights sum to 1", "shared experts", "router or choice has a bias")
    lines = ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)]
    text = f"""# Mixture-of-experts families

What `open_model` sees in each family that transformers {transformers.__version__} builds as a language model, found on
tiny models with random weights ({len(rows) - 2} families work, 2 are refused). Written by
`python -m tests.probes.families`; tests/probes/test_families.py checks every row: outputs are bitwise unchanged,
weights times unweighted outputs plus shared experts give the block's output, router logits are bitwise those of
`output_router_logits`. Switch Transformers is observed in its encoder.

"""
    return text + "\n".join(lines) + "\n"


def _router_parameters(mixture: Any) -> list[tuple[str, Any]]:
    return [] if mixture.router is None else list(mixture.router.named_parameters())


if __name__ == "__main__":
    TABLE.write_text(table())
