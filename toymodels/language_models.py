"""Small configurations of transformers' own classes, and the tokenizer they read with."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.files import check_folder, replacing
from toymodels.language_config import ROUTED, LanguageConfig

END = "<|endoftext|>"
"""Token that begins every document."""
_DOWN = ("down_proj", "dense_4h_to_h")


def build(config: LanguageConfig, tokenizer: Any) -> Any:
    """The model with its first weights, drawn from the seed; the global generator stays where it was."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.for_model(config.family, **shape(config, len(tokenizer)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32, attn_implementation="sdpa")
    if config.family in ROUTED:
        model.set_experts_implementation("grouped_mm")  # the fastest dispatch on a CPU
    return model.train()


def shape(config: LanguageConfig, vocab_size: int) -> dict[str, Any]:
    """Settings of transformers' configuration class of the family."""
    head = config.d_model // config.n_heads
    common = {
        "vocab_size": vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_mlp,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_heads,
        "hidden_act": config.activation,
        "max_position_embeddings": max(config.window, 1_024),
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": None,
    }
    if config.family not in ROUTED:
        return common
    experts = {"num_experts_per_tok": config.k, "moe_intermediate_size": config.d_mlp}
    if config.family == "deepseek_v3":
        narrow = {"kv_lora_rank": max(config.d_model // 2, 8), "q_lora_rank": None, "n_group": 1, "topk_group": 1}
        heads = {"qk_rope_head_dim": head, "qk_nope_head_dim": head, "v_head_dim": head}
        return common | experts | narrow | heads | {"n_routed_experts": config.n_experts, "first_k_dense_replace": 0}
    shared = {"shared_expert_intermediate_size": config.d_mlp} if config.family == "qwen2_moe" else {}
    return common | experts | shared | {"num_experts": config.n_experts}


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the model and its tokenizer as a transformers folder, each file with its SHA-256."""
    from transformers.utils import logging as transformers_logging

    # A small model is written in milliseconds; a bar for that is noise.
    transformers_logging.disable_progress_bar()
    with replacing(folder, sealed=True) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)


def down_projections(model: nn.Module) -> list[nn.Module]:
    """The linear layer of each dense feed-forward block whose input are the neurons, in order of the layers."""
    return [m for name, m in model.named_modules() if name.endswith(_DOWN) and isinstance(m, nn.Linear)]


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> Any:
    """A byte-level BPE trained on these texts, or the one that `folder` holds from before."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if (folder / "tokenizer.json").exists():
        check_folder(folder)
        return PreTrainedTokenizerFast.from_pretrained(folder)
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=END, eos_token=END)
    with replacing(folder, sealed=True) as scratch:
        tokenizer.save_pretrained(scratch)
    return tokenizer
