import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from probes import LanguageModel, ModelError, open_model
from probes.controls import gaussian_like, random_init, shuffled
from probes.models import SITES, known_models
from probes.models.weights import sha256
from tests.probes.families import tiny_moe
from tests.probes.tiny import tiny_hf

DENSE = {
    "llama": {},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 64, "n_positions": 128},
    "gpt_neox": {"hidden_act": "relu"},
    "gemma2": {"head_dim": 8},
    "phi3": {},
    "qwen2": {},
}
DEEPSEEK = {"n_routed_experts": 8, "n_group": 4, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 16}
DEEPSEEK |= {"kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
ROUTED = {
    "olmoe": {"num_experts": 8},
    "mixtral": {"num_local_experts": 8},
    "qwen2_moe": {"num_experts": 8, "shared_expert_intermediate_size": 32},
    "deepseek_v3": DEEPSEEK,
    "gpt_oss": {"num_local_experts": 8, "head_dim": 8},
}
DENSE_SITES = ("block_input", "attention_output", "ffn_input", "gate", "neurons", "ffn_output", "block_output")


def ids(batch: int = 2, positions: int = 24) -> torch.Tensor:
    return torch.randint(1, 300, (batch, positions), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", DENSE)
def test_logits_through_the_door_are_the_plain_models_bit_for_bit(kind: str) -> None:
    hf = tiny_hf(kind, **DENSE[kind])
    with torch.no_grad():
        plain = hf(ids()).logits
    before = copy.deepcopy(hf.state_dict())
    found = open_model(hf).logits(ids())
    if kind == "gpt2":  # the bridge splits its fused query-key-value matrix: other matmuls, other rounding
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)
    else:
        assert torch.equal(found, plain)
    assert all(torch.equal(w, before[name]) for name, w in hf.state_dict().items()), "the object in hand was changed"


@pytest.mark.parametrize("kind", DENSE)
def test_observed_sites_fit_together(kind: str) -> None:
    model = open_model(tiny_hf(kind, **DENSE[kind]))
    seen: dict[int, dict[str, torch.Tensor]] = {}
    model.observe(ids(), DENSE_SITES, lambda layer, sites: seen.update({layer: sites}))
    assert list(seen) == [0, 1, 2]
    for layer, sites in seen.items():
        assert {s: t.shape[-1] for s, t in sites.items()} == {s: 64 if s in ("gate", "neurons") else 32 for s in sites}
        with torch.no_grad():
            again = model.feed_forward(layer)(sites["ffn_input"])
        torch.testing.assert_close(again, sites["ffn_output"])
        if layer:
            torch.testing.assert_close(seen[layer - 1]["block_output"], sites["block_input"])


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_neurons_are_the_input_of_the_down_projection(kind: str) -> None:
    hf = tiny_hf(kind, **DENSE[kind])
    model = open_model(hf)
    found: dict[str, torch.Tensor] = {}
    model.observe(ids(), ("neurons", "gate", "ffn_output"), lambda _, sites: found.update(sites), layers=[2])
    mlp = hf.base_model.layers[2].mlp
    down = mlp.down_proj if kind == "llama" else mlp.dense_4h_to_h
    torch.testing.assert_close(down(found["neurons"]), found["ffn_output"])
    if kind == "gpt_neox":
        torch.testing.assert_close(found["gate"].relu(), found["neurons"])


@pytest.mark.parametrize("kind", ROUTED)
def test_routed_models_keep_their_logits_and_show_the_choice_that_was_used(kind: str) -> None:
    routed = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
    hf = tiny_hf(kind, **(routed | ROUTED[kind]))
    with torch.no_grad():
        plain = hf(ids()).logits
    model = open_model(hf)
    assert torch.equal(model.logits(ids()), plain)
    blocks = [b for b in model.blocks if b.kind == "moe"]
    assert blocks and all((b.n_experts, b.k) == (8, 2) for b in blocks)

    seen: dict[int, dict[str, torch.Tensor]] = {}
    sites = ("ffn_input", "ffn_output", "router_logits", "expert_index", "expert_weight", "expert_output")
    model.observe(ids(), sites, lambda layer, s: seen.update({layer: s}))
    for block, found in zip(model.blocks, seen.values(), strict=True):
        if block.kind == "dense":
            assert "expert_index" not in found
            continue
        assert found["router_logits"].shape == (2, 24, 8)
        assert found["expert_index"].shape == found["expert_weight"].shape == (2, 24, 2)
        assert found["expert_output"].shape == (2, 24, 2, 32)
        if kind in ("olmoe", "mixtral", "gpt_oss"):  # no shared expert: the weighted outputs are the block's output
            summed = (found["expert_output"] * found["expert_weight"][..., None]).sum(dim=2)
            torch.testing.assert_close(summed, found["ffn_output"], rtol=1e-4, atol=1e-6)
    assert torch.equal(model.logits(ids()), plain), "observing left something behind"


def test_grouped_routing_is_not_the_top_of_the_logits() -> None:
    """DeepSeek-V3 chooses within groups: reading the choice off the logits would be wrong, so it is not done."""
    model = open_model(tiny_hf("deepseek_v3", num_experts_per_tok=2, moe_intermediate_size=16, **DEEPSEEK))
    seen: dict[str, torch.Tensor] = {}
    model.observe(ids(), ("router_logits", "expert_index"), lambda _, s: seen.update(s), layers=[2])
    naive = seen["router_logits"].topk(2).indices.sort(-1).values
    used = seen["expert_index"].sort(-1).values
    assert (naive == used).all(-1).double().mean() < 0.9
    assert ((used // 2)[..., 0] == (used // 2)[..., 1]).all(), "with one group of two open, both come from it"


def test_an_edit_replaces_a_site_and_goes_away(tiny: LanguageModel) -> None:
    plain = tiny.logits(ids())
    with tiny.edited({(1, "ffn_output"): torch.zeros_like, (2, "neurons"): lambda z: z * 0}):
        silenced = tiny.logits(ids())
    assert not torch.equal(silenced, plain)
    assert torch.equal(tiny.logits(ids()), plain)
    with tiny.edited({(1, "ffn_output"): lambda y: y}):
        assert torch.equal(tiny.logits(ids()), plain)


def test_a_pass_ends_after_the_last_layer_asked_for(tiny: LanguageModel) -> None:
    seen: list[int] = []
    later: list[int] = []
    with tiny.edited({(2, "block_input"): lambda x: (later.append(2), x)[1]}):
        tiny.observe(ids(), ["neurons"], lambda layer, _: seen.append(layer), layers=[1])
    assert seen == [1] and later == []


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "olmoe"])
def test_a_pass_that_begins_in_the_middle_ends_the_same_bit_for_bit(family: str) -> None:
    model = open_model(tiny_moe(family) if family == "olmoe" else tiny_hf(family))
    plain, read = model.logits(ids()), []
    with model.edited({(0, "ffn_output"): lambda y: (read.append(0), y)[1]}):
        before = model.outputs_of(0, ids())
        assert read == [0]
        with model.resumed(1, before):
            assert torch.equal(model.logits(ids()), plain)
        assert read == [0], "the layer before is not computed again"
    assert model.resumes(1) and torch.equal(model.logits(ids()), plain)


def test_losses_are_negative_log_likelihoods(tiny: LanguageModel) -> None:
    logits = tiny.logits(ids()).double()
    expected = -logits.log_softmax(-1)[:, :-1].gather(2, ids()[:, 1:, None]).squeeze(2)
    torch.testing.assert_close(tiny.losses(ids()).double(), expected, rtol=1e-5, atol=1e-6)


def test_random_init_and_shuffled_keep_what_they_should(tiny: LanguageModel) -> None:
    weights = tiny.plain_weights()
    mixed = shuffled(tiny, seed=1).plain_weights()
    for name, weight in weights.items():
        if ".mlp." in name:
            assert not torch.equal(mixed[name], weight)
            assert torch.equal(mixed[name].flatten().sort().values, weight.flatten().sort().values)
        else:
            assert torch.equal(mixed[name], weight)
    fresh = random_init(tiny, seed=1)
    assert torch.equal(random_init(tiny, seed=1).logits(ids()), fresh.logits(ids()))
    assert not torch.equal(random_init(tiny, seed=2).logits(ids()), fresh.logits(ids()))


def test_gaussian_samples_have_the_moments_asked_for() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([1.0, -2.0, 0.5])
    root = torch.tensor([[1.0, 0.0], [0.5, 2.0], [1.0, 2.0]])  # a singular covariance on purpose
    x = gaussian_like(mean, root @ root.T, 200_000, generator)
    torch.testing.assert_close(x.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(x.T.cov(), root @ root.T, atol=0.06, rtol=0.02)


def test_folders_open_and_cannot_be_pickles(tiny: LanguageModel, tokenizer: Any, tmp_path: Path) -> None:
    hf = tiny_hf()
    hf.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    model = open_model(tmp_path / "model")
    assert torch.equal(model.logits(ids()), tiny.logits(ids()))
    assert model.fingerprint == tiny.fingerprint != open_model(tiny_hf(seed=1)).fingerprint
    assert model.document_token == 0
    torch.save(hf.state_dict(), tmp_path / "model" / "pytorch_model.bin")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"cannot be opened"):
        open_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("/nowhere/at/all", "no folder or GGUF file"),
        ("missing.gguf", "no GGUF file"),
        ("nobody/no-such-model", "neither a local folder nor reachable"),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_sentence(source: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=says) as caught:
        open_model(source)
    assert "\n" not in str(caught.value)


def test_bad_arguments_are_said_in_one_sentence(tiny: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="dtype 'float8'"):
        open_model(tiny_hf(), dtype="float8")
    with pytest.raises(ModelError, match=r"no config\.json"):
        open_model(tmp_path)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 40)
    with pytest.raises(ModelError, match="cannot be read as a GGUF"):
        open_model(tmp_path / "broken.gguf")
    with pytest.raises(ValueError, match="'mlp' is not a site"):
        tiny.observe(ids(), ["mlp"], lambda *_: None)
    with pytest.raises(ValueError, match=r"layers \[7\]"):
        tiny.observe(ids(), ["neurons"], lambda *_: None, layers=[7])
    with pytest.raises(ValueError, match="has no experts"):
        tiny.observe(ids(), ["expert_index"], lambda *_: None)
    assert set(DENSE_SITES) < set(SITES)


def test_a_family_whose_routing_is_broken_is_refused() -> None:
    config = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_experts": 4}

    class Pretender(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = type("C", (), {"model_type": "nllb_moe", **config})()

    from probes.models.moe import check_family

    with pytest.raises(ModelError, match="experts 0 and 1 only"):
        check_family(Pretender(), "NLLB-MoE")


@pytest.mark.model
def test_smollm2_opens_and_equals_the_plain_model() -> None:
    from transformers import AutoModelForCausalLM

    model = open_model("smollm2-135m")
    assert model.title == "SmolLM2-135M-Instruct (Q4_1, dequantised)"
    assert (model.n_layers, model.d_model, model.d_mlp, model.k) == (30, 576, 1536, 0)
    assert "smollm2-135m" in known_models()
    words = model.tokenizer("The state of our union is strong.", return_tensors="pt").input_ids
    plain = AutoModelForCausalLM.from_pretrained(model.source, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(model.logits(words), plain(words).logits)
    assert 2.0 < model.losses(words).mean() < 5.0


def test_sha256_is_the_standard_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
