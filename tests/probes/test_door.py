"""The door to large mixtures, on tiny models of the same classes, and to the one that ships."""

import importlib.util
from pathlib import Path

import pytest
import torch

from probes import ModelError, open_model
from probes.models import door
from tests.probes.families import ids, tiny_moe
from tests.probes.large import RECIPES

HAS_ACCELERATE = importlib.util.find_spec("accelerate") is not None


@pytest.mark.parametrize("kind", [recipe.kind for recipe in RECIPES.values()])
def test_a_class_of_large_mixtures_opens_as_transformers_runs_it(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

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
