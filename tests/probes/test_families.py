"""Every mixture-of-experts family that the installed transformers builds, seen as used."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from probes import ModelError, open_model
from probes.models import SITES
from probes.models.moe import REFUSED, RoutedModel
from tests.probes.families import TABLE, families, ids, observed, routed_sum, table, tiny_moe

WORKING = tuple(kind for kind in families() if kind not in REFUSED)
MUST = {
    "mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "gpt_oss", "granitemoe", "phimoe",
    "llama4_text", "switch_transformers", "glm4_moe", "jetmoe",
}  # fmt: skip
SIGMOID = {
    "afmoe", "axk1", "axk2", "bailing_hybrid", "beam", "deepseek_v3", "deepseek_v32", "dots1", "dots3_note_text",
    "exaone_moe", "flint", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "hy_v3", "hy_v4", "inkling2_text",
    "inkling_text", "kimi_linear", "kolibri1", "laguna", "lfm2_moe", "llama4_text", "mimo_v2_flash", "minimax_m2",
    "minimax_m3_vl_text", "nemotron_h", "solar_open",
}  # fmt: skip
"""Families whose routers call sigmoid, by reading their code."""
SCORE = dict.fromkeys(SIGMOID, "sigmoid") | {"deepseek_v4": "sqrt softplus", "gemma4_text": "as given"}


def test_the_families_asked_for_are_among_those_that_work() -> None:
    assert set(WORKING) >= MUST
    assert len(WORKING) >= 50


@pytest.mark.parametrize("kind", WORKING)
def test_a_family_is_seen_as_used(kind: str) -> None:
    model, seen, (plain, again) = observed(kind)
    assert torch.equal(again, plain), "hooks changed the model's output"
    layers = [layer for layer, block in enumerate(model.blocks) if block.kind == "moe"]
    assert layers
    for layer in layers:
        block, found = model.blocks[layer], seen[layer]
        assert found["expert_index"].shape == found["expert_weight"].shape == (2, 12, block.k)
        assert found["expert_output"].shape == (2, 12, block.k, model.d_model)
        classes = block.n_experts + (kind == "zaya")  # the last stands for skipping the experts
        assert found["router_logits"].shape == found["router_probabilities"].shape == (2, 12, classes)
        assert found["router_input"].shape[:2] == (2, 12)
        assert int(found["expert_index"].max()) < block.n_experts
        assert found["expert_output"].abs().max() > 0
        torch.testing.assert_close(found["router_probabilities"].sum(-1), torch.ones(2, 12))
        scale = found["ffn_output"].abs().max()
        assert (routed_sum(model, layer, found) - found["ffn_output"]).abs().max() < 1e-5 * scale, layer
        assert model.score[layer] == SCORE.get(kind, "softmax")


@pytest.mark.parametrize("kind", WORKING)
def test_router_logits_are_those_that_transformers_gives(kind: str) -> None:
    model, seen, _ = observed(kind)
    with torch.no_grad():
        given = model.body(input_ids=ids(), output_router_logits=True, use_cache=False).router_logits
    mine = [found["router_logits"] for found in seen.values() if "router_logits" in found]
    if kind == "jetmoe":  # its attention is a mixture too
        given = given[2::3]
    if kind == "deepseek_v4":  # transformers leaves out the layers that look experts up by token
        mine = mine[-len(given) :]
    assert len(given) == len(mine)
    assert all(torch.equal(theirs.flatten(), ours.flatten()) for theirs, ours in zip(given, mine, strict=True))


def silence(model: RoutedModel, layer: int, expert: int) -> None:
    """Set the matrix through which an expert speaks to 0."""
    experts = model.mixtures[layer].experts  # type: ignore[union-attr]
    if isinstance(experts, torch.nn.ModuleDict):
        experts[f"expert_{expert}"].wo.weight.zero_()
    else:
        getattr(experts, "down_proj", getattr(experts, "weight", None))[expert].zero_()


@pytest.mark.parametrize(
    "kind", ["deepseek_v3", "deepseek_v2", "olmoe", "llama4_text", "switch_transformers", "jetmoe", "glm4_moe"]
)
def test_silencing_an_expert_changes_exactly_the_tokens_reported_to_use_it(kind: str) -> None:
    changes: dict[str, Any] = {}
    if kind == "deepseek_v3":
        changes = {"n_group": 4, "topk_group": 2}
    _, seen, _ = observed(kind, **changes)
    found, layer = seen[1], 1
    for expert in range(4):
        other = open_model(tiny_moe(kind, **changes))
        silence(other, layer, expert)
        now: dict[str, Tensor] = {}
        other.observe(ids(), ("ffn_output",), lambda _, sites, now=now: now.update(sites), layers=[layer])
        changed = (now["ffn_output"] != found["ffn_output"]).any(-1)
        assert torch.equal(changed, (found["expert_index"] == expert).any(-1))


def test_a_choice_read_off_the_logits_would_be_wrong_where_groups_and_biases_choose() -> None:
    _, seen, _ = observed("deepseek_v3", n_group=4, topk_group=2)
    naive = seen[1]["router_logits"].topk(2).indices.sort(-1).values
    used = seen[1]["expert_index"].sort(-1).values
    assert (naive == used).all(-1).double().mean() < 0.8


def test_tokens_that_a_full_expert_dropped_are_told() -> None:
    _, seen, _ = observed("switch_transformers")
    dropped = seen[0]["expert_index"][..., 0] == -1
    assert 0 < dropped.sum() < dropped.numel()
    assert (seen[0]["expert_weight"][..., 0][dropped] == 0).all()
    assert (seen[0]["ffn_output"][dropped] == 0).all()
    with pytest.raises(ModelError, match="encoder-decoder"):
        open_model(tiny_moe("switch_transformers")).losses(ids())


@pytest.mark.parametrize("kind", ["mixtral", "llama4_text", "jetmoe", "gpt_oss"])
def test_an_expert_output_that_is_replaced_by_itself_changes_nothing(kind: str) -> None:
    model = open_model(tiny_moe(kind))
    plain = model.logits(ids())
    with model.edited({(1, "expert_output"): lambda outputs: outputs.clone()}):
        assert torch.equal(model.logits(ids()), plain)
    with model.edited({(1, "expert_output"): torch.zeros_like}):
        silent = model.logits(ids())
        seen: dict[str, Tensor] = {}
        model.observe(ids(), ("ffn_output", "shared_output"), lambda _, sites: seen.update(sites), layers=[1])
    assert not torch.equal(silent, plain)
    rest = seen.get("shared_output", torch.zeros(model.d_model))
    if kind == "jetmoe":
        rest = rest + model.mixtures[1].block.bias
    torch.testing.assert_close(seen["ffn_output"], rest.expand_as(seen["ffn_output"]), atol=1e-7, rtol=1e-4)


def test_doge_is_refused_because_its_tokens_see_later_ones() -> None:
    hf = tiny_moe("doge")
    later = ids().clone()
    later[:, -1] = (later[:, -1] + 1) % 300
    with torch.no_grad():
        before, after = (hf(input_ids=i, use_cache=False).logits for i in (ids(), later))
    assert not torch.equal(before[:, :-1], after[:, :-1]), "transformers mended Doge: take it off the list"
    with pytest.raises(ModelError, match="Doge"):
        open_model(hf)
    assert open_model(tiny_moe("olmoe")).n_experts == 8


def test_the_table_of_families_is_up_to_date() -> None:
    assert Path(TABLE).read_text() == table(), "run `python -m tests.probes.families`"
    assert "shared_output" in SITES
