import math
from pathlib import Path

import pytest
import torch
from transformers import OlmoeConfig
from transformers.models.olmoe.modeling_olmoe import load_balancing_loss_func

from data.corpus import Corpus
from tests.toymodels.test_language import SMALL
from toymodels import balancing, language
from toymodels.balancing import Routed, load_balance, mixtures, watched, within_capacity
from toymodels.language import LanguageConfig, train
from toymodels.language_checkpoint import optimizer, restore
from toymodels.language_models import build


def with_(family: str, **changes: object) -> LanguageConfig:
    return LanguageConfig.model_validate(SMALL.model_dump(exclude={"balancing"}) | {"family": family} | changes)


def test_the_load_balancing_loss_is_that_of_transformers() -> None:
    layers = [torch.randn(50, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    chosen = [logits.topk(2, dim=-1).indices for logits in layers]
    wanted = [float(load_balancing_loss_func((logits,), 8, 2)) for logits in layers]
    found = [float(load_balance(*pair)) for pair in zip([x.softmax(-1) for x in layers], chosen, strict=True)]
    assert found == pytest.approx(wanted, rel=1e-6)
    together = balancing.penalty(Routed(layers, chosen), with_("olmoe"))
    assert float(together) == pytest.approx(balancing.AUXILIARY * sum(wanted) / 3, rel=1e-6)
    assert OlmoeConfig().router_aux_loss_coef == balancing.AUXILIARY


def test_only_ways_that_add_to_the_loss_do() -> None:
    logits, chosen = torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.tensor([[1], [0]])
    seen = Routed([logits, logits], [chosen, chosen])
    assert [balancing.penalty(seen, with_("deepseek_v3", balancing=way)) for way in ("none", "bias")] == [0, 0]
    assert balancing.penalty(Routed(), with_("olmoe")) == 0
    partition = [math.log(1 + math.e**2), math.log(2 * math.e)]
    z_loss = float(balancing.penalty(seen, with_("olmoe", balancing="z_loss")))
    assert z_loss == pytest.approx(balancing.Z_LOSS * sum(p**2 for p in partition) / 2)


def test_even_loads_cost_k_and_one_expert_for_all_costs_e() -> None:
    even = torch.arange(8).repeat(4)[:, None]
    assert load_balance(torch.full((32, 8), 1 / 8), even) == pytest.approx(1)
    one = torch.nn.functional.one_hot(torch.zeros(32, dtype=torch.long), 8).float()
    assert load_balance(one, torch.zeros(32, 1, dtype=torch.long)) == pytest.approx(8)


def test_an_expert_takes_the_first_tokens_up_to_its_capacity() -> None:
    index = torch.tensor([[0, 1], [0, 2], [0, 1], [3, 0]])
    room = within_capacity(index, 4, 2)
    assert room.tolist() == [[True, True], [True, True], [False, True], [True, False]]
    assert within_capacity(index, 4, 4).all()


def test_what_is_dropped_is_what_exceeds_the_capacity(corpus: Corpus, tmp_path: Path) -> None:
    config = with_("olmoe", balancing="capacity", capacity=1.25)
    tokenizer, text, _ = language._text(config, tmp_path, corpus)
    with watched(model := build(config, tokenizer), config) as seen:
        model(input_ids=language.batch(text, config, 1))
    for index, dropped in zip(seen.index, seen.dropped, strict=True):
        room = -(-5 * index.numel() // (4 * config.n_experts))  # five quarters of an even share, rounded up
        beyond = (index.flatten().bincount(minlength=config.n_experts) - room).clamp(min=0).sum()
        assert dropped == pytest.approx(float(beyond) / index.numel())


@pytest.mark.parametrize("family", ["olmoe", "qwen2_moe", "deepseek_v3"])
def test_what_is_watched_is_what_the_routers_did(family: str, corpus: Corpus, tmp_path: Path) -> None:
    config = with_(family)
    tokenizer, text, _ = language._text(config, tmp_path, corpus)
    model = build(config, tokenizer)
    rows = language.batch(text, config, 1)
    with watched(model, config) as seen:
        model(input_ids=rows)
    assert len(seen.logits) == len(seen.index) == len(mixtures(model)) == config.n_layers
    for logits, index in zip(seen.logits, seen.index, strict=True):
        assert torch.equal(logits.topk(config.k).indices.sort(-1).values, index.sort(-1).values)


@pytest.mark.parametrize("way", ["none", "auxiliary", "z_loss", "bias", "capacity"])
def test_every_way_trains_and_the_bias_pushes_against_the_load(
    way: str,
    corpus: Corpus,
    tmp_path: Path,
) -> None:
    config = with_("deepseek_v3", balancing=way)
    index = train(config, tmp_path, corpus=corpus)
    assert index["loss"].iloc[-1] < index["loss"].iloc[0]
    moved = build(config, language._text(config, tmp_path, corpus)[0])
    restore(tmp_path, moved, optimizer(moved, config))
    biases = torch.cat([block.gate.e_score_correction_bias for block in mixtures(moved)])
    assert bool(biases.any()) == (way == "bias")
    assert (index["dropped"].iloc[-1] > 0) == (way == "capacity")


def test_a_family_is_balanced_its_own_way_unless_told() -> None:
    assert with_("deepseek_v3").balancing == "bias"
    assert with_("olmoe").balancing == "auxiliary"
    with pytest.raises(ValueError, match="choose deepseek_v3"):
        with_("olmoe", balancing="bias")
