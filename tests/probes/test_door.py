"""The door to large mixtures, on tiny models of the same classes, and to the one that ships."""

import importlib.util
from pathlib import Path

import pytest
import torch

from probes import ModelError, open_model
from probes.models import door
from tests.probes.families import ids, tiny_moe

RECIPES = {
    "allenai/OLMoE-1B-7B-0924": "olmoe",
    "Qwen/Qwen3-30B-A3B": "qwen3_moe",
    "mistralai/Mixtral-8x7B-v0.1": "mixtral",
    "deepseek-ai/DeepSeek-V2-Lite": "deepseek_v2",
    "openai/gpt-oss-20b": "gpt_oss",
    "ibm-granite/granite-3.1-3b-a800m-base": "granitemoe",
}
HAS_ACCELERATE = importlib.util.find_spec("accelerate") is not None


@pytest.mark.parametrize(("name", "kind"), RECIPES.items())
def test_a_recipe_opens_a_model_of_its_class(name: str, kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    assert f'open_model("{name}"' in (door.__doc__ or "")
    tiny_moe(kind).save_pretrained(tmp_path)
    hf = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation="eager")
    if not HAS_ACCELERATE:
        with pytest.raises(ModelError, match="accelerate"):
            open_model(str(tmp_path), dtype="bfloat16", device_map="cpu")
    model = open_model(str(tmp_path), dtype="bfloat16", device_map="cpu" if HAS_ACCELERATE else None)
    with torch.no_grad():
        assert torch.equal(model.logits(ids()), hf(input_ids=ids(), use_cache=False).logits)
    seen: dict[str, torch.Tensor] = {}
    model.observe(ids(), ("expert_index", "expert_weight"), lambda _, s: seen.update(s))
    assert seen["expert_index"].shape == (2, 12, 2)


def test_an_encoder_decoder_opens_from_a_folder(tmp_path: Path) -> None:
    tiny_moe("switch_transformers").save_pretrained(tmp_path)
    assert open_model(tmp_path).n_layers == 2


def test_the_mixture_that_ships_is_named_when_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "BUNDLED_FOLDER", tmp_path / "tinymoe")
    with pytest.raises(ModelError, match="'tinymoe' is missing"):
        open_model("tinymoe")
    tiny_moe("olmoe").save_pretrained(tmp_path / "tinymoe")
    assert open_model("tinymoe").name == "tinymoe"
