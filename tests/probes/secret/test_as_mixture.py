"""A model with secret experts is measured as any mixture of experts: routing, specialization, ablation."""

import numpy as np
import pytest
import torch

from data import runs
from data.corpus import Corpus
from probes import LanguageModel, experts, open_model, routing, secret
from probes.secret.export import keep
from probes.stream import StreamConfig

READ = StreamConfig(n_tokens=3_000, tokens_per_document=150, window=64, shard_tokens=1_500)


@pytest.fixture(scope="module")
def mixture(words_model: LanguageModel, words: Corpus, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    root = tmp_path_factory.mktemp("mixture")
    inputs = secret.capture(words_model, words, (1,), READ, root=root)
    run = runs.create("kept", {}, kind="secret", root_folder=root)
    keep(run, [secret.fit(words_model, layer=1, inputs=inputs, n_experts=6, n_active=8)])
    return open_model(words_model, secret_experts=run)


def test_routing_is_measured_in_the_layers_that_have_experts(mixture: LanguageModel, words: Corpus) -> None:
    tables = routing.measure(mixture, words, 3_000, n_permutations=10, config=READ)
    assert set(tables.load["layer"]) == {1} and set(tables.load["condition"]) == {"real", "random_init"}
    assert set(tables.by_class["condition"]) == {"real", "random_init", "random_directions", "hash"}
    real = tables.load.query("condition == 'real'")
    assert real["share"].sum() == pytest.approx(1) and (real["share"] > 0).sum() > 1
    # a router that never was fitted chooses too, and not always the same
    assert (tables.load.query("condition == 'random_init'")["share"] > 0).sum() > 1
    # cells of the inputs are mostly told by the token here: more than a table of tokens in random order
    by = tables.specialization.query("condition == 'real' and labels == 'word_class'").iloc[0]
    assert by["mi"] > by["null_label"] + 3 * by["sd_label"]


def test_an_expert_left_out_costs_where_it_is_used(mixture: LanguageModel, words: Corpus) -> None:
    config = StreamConfig(n_tokens=1_500, tokens_per_document=150, window=64)
    tables = experts.measure(mixture, words, layers=[1], replace=("zero",), n_tokens=1_500, curves=False, config=config)
    damage = tables.damage.query("word_class == 'all' and of == 'read'").set_index("expert")
    assert len(damage) == 6
    # the first positions of a window keep the dense block: what is left out there changes nothing
    ids = torch.arange(20).view(1, 20) % mixture.vocab_size
    plain = mixture.logits(ids)
    block = mixture.hf.plain.base_model.layers[1].mlp
    with torch.no_grad():
        kept = block.experts.bias.clone()
        block.experts.bias += 1
        changed = mixture.logits(ids)
        block.experts.bias.copy_(kept)
    assert torch.equal(changed[:, :4], plain[:, :4]) and not torch.allclose(changed[:, 4:], plain[:, 4:])
    assert np.isfinite(damage["value"]).all() and (damage.query("share > 0")["value"].abs() > 0).all()
