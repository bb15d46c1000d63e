"""Large mixtures of experts by their name on the hub: what they take, counted from their configuration.

`python -m tests.probes.large` writes probes/models/LARGE.md.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch

TABLE = Path(__file__).parents[2] / "probes" / "models" / "LARGE.md"


class Recipe(NamedTuple):
    """One published model."""

    kind: str
    """Its class in transformers, by model type."""
    published: float
    """Parameters its makers name, in thousand millions."""
    config: dict[str, Any]
    """What its configuration says beyond the class's defaults."""


def _shape(vocab: int, width: int, layers: int, heads: int, key_heads: int, mlp: int) -> dict[str, Any]:
    return {
        "vocab_size": vocab, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": key_heads, "intermediate_size": mlp,
    }  # fmt: skip


RECIPES = {
    "allenai/OLMoE-1B-7B-0924": Recipe(
        "olmoe", 6.92, _shape(50304, 2048, 16, 16, 16, 1024) | {"num_experts": 64, "num_experts_per_tok": 8}
    ),
    "Qwen/Qwen3-30B-A3B": Recipe(
        "qwen3_moe", 30.5, _shape(151936, 2048, 48, 32, 4, 6144)
        | {"head_dim": 128, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8},
    ),
    "mistralai/Mixtral-8x7B-v0.1": Recipe(
        "mixtral", 46.7, _shape(32000, 4096, 32, 32, 8, 14336) | {"num_local_experts": 8, "num_experts_per_tok": 2}
    ),
    "deepseek-ai/DeepSeek-V2-Lite": Recipe(
        "deepseek_v2", 15.7, _shape(102400, 2048, 27, 16, 16, 10944)
        | {"moe_intermediate_size": 1408, "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6}
        | {"first_k_dense_replace": 1, "q_lora_rank": None, "kv_lora_rank": 512, "qk_nope_head_dim": 128}
        | {"qk_rope_head_dim": 64, "v_head_dim": 128},
    ),
    "openai/gpt-oss-20b": Recipe(
        "gpt_oss", 20.9, _shape(201088, 2880, 24, 64, 8, 2880)
        | {"head_dim": 64, "num_local_experts": 32, "num_experts_per_tok": 4},
    ),
    "ibm-granite/granite-3.1-3b-a800m-base": Recipe(
        "granitemoe", 3.30, _shape(49155, 1536, 32, 24, 8, 512)
        | {"num_local_experts": 40, "num_experts_per_tok": 8, "tie_word_embeddings": True},
    ),
}  # fmt: skip


def parameters(recipe: Recipe) -> int:
    """Parameters of the model, built without memory."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(recipe.kind, **recipe.config))
    return sum(p.numel() for p in model.parameters())


def command(name: str, verb: str = "experts") -> list[str]:
    """What to type for a model, after `sparsescope`."""
    return ["probe", verb, "--model", name, "--dtype", "bfloat16", "--device-map", "auto"]


def written() -> str:
    """LARGE.md."""
    rows = [
        f"| {name} | {recipe.kind} | {(n := parameters(recipe)) / 1e9:.1f} | {2 * n / 1e9:.0f} | {4 * n / 1e9:.0f} |"
        for name, recipe in RECIPES.items()
    ]
    commands = "\n".join(f"    sparsescope {' '.join(command(name))}" for name in RECIPES)
    return f"""# Large mixtures of experts by name

Memory of the weights alone, counted from the models' configurations; activations of a batch of 2,048 tokens come on
top. gpt-oss is published packed in 4 bits and unpacked when it is opened. `--device-map auto` needs the package
accelerate, and spreads a model over graphics cards, memory and disk in this order.

| name on the hub | class | parameters, 10^9 | GB in bfloat16 | GB in float32 |
| --- | --- | --- | --- | --- |
{chr(10).join(rows)}

{commands}

`sparsescope probe worth` takes the same options, and so does every other verb that opens a model. Written by
`python -m tests.probes.large`; tests/probes/test_large.py runs each command on a tiny model of the same class.
"""


if __name__ == "__main__":
    TABLE.write_text(written(), encoding="utf-8")
