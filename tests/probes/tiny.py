"""Tiny language models with random weights, and the sentences they read."""

from typing import Any

import torch

SENTENCES = [
    "The committee considered seven proposals about rivers, bridges and harbours.",
    "Walking home, she counted the lamps; there were nineteen of them.",
    "Numbers like 1984 and 2001 appear in titles, naïve façades notwithstanding.",
    "He sang, she laughed, they danced until the old clock stopped.",
]


def tiny_hf(kind: str = "llama", seed: int = 0, **changes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 128, "pad_token_id": 0}
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, **(shape | changes))
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
