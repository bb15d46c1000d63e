"""Experts made constant, affine or equal by hand must be found so; those left random must not."""

from typing import Any

import numpy as np
import pytest
import torch
from pandas import DataFrame

from data.corpus import Corpus
from probes import constancy, open_model
from probes.expert_similarity import downs, neuron_cosines, of_all, pairs, same_token_cosine
from probes.expert_text import halves
from probes.stream import StreamConfig
from tests.probes.families import tiny_moe

CONFIG = StreamConfig(window=32, tokens_per_document=62)
N_TOKENS = 1_000


def measured(hf: Any, tokenizer: Any, corpus: Corpus) -> DataFrame:
    found = constancy.measure(open_model(hf, tokenizer=tokenizer), corpus, N_TOKENS, config=CONFIG)
    return found.set_index(["measure", "layer"])


def test_random_experts_are_no_constants_and_copies_are_found(tokenizer: Any, corpus: Corpus) -> None:
    hf = tiny_moe("olmoe")
    with torch.no_grad():
        experts = hf.model.layers[1].mlp.experts
        for weight in (experts.gate_up_proj, experts.down_proj):
            weight[:] = weight[:1].clone()
    found = measured(hf, tokenizer, corpus)
    assert found.loc["output_cosine", "value"][1] == pytest.approx(1, abs=1e-5)
    assert found.loc["neuron_cosine", "value"][1] == pytest.approx(1, abs=1e-5)
    for name in ("output_cosine", "neuron_cosine"):
        row = found.loc[name, 0]
        assert row["low"] <= row["value"] <= row["high"] < 0.9 and row["chance"] < 0.9
    shares = found.loc["constant_fvu"]
    assert (shares["value"] > 0.5).all() and shares["value"].between(shares["low"], shares["high"]).all()


def test_experts_that_pass_tokens_through_are_affine_and_not_constant(tokenizer: Any, corpus: Corpus) -> None:
    hf = tiny_moe("longcat_flash")
    hf.model.layers[0].mlp.router.e_score_correction_bias[8:] += 1
    found = measured(hf, tokenizer, corpus)
    assert found.loc["affine_fvu", "value"][0] < 1e-3 and found.loc["constant_fvu", "value"][0] > 0.3


def test_constant_experts_cost_nothing_to_replace(tokenizer: Any, corpus: Corpus) -> None:
    hf = tiny_moe("gpt_oss")
    experts = hf.model.layers[0].mlp.experts
    with torch.no_grad():
        experts.down_proj.zero_()
        experts.down_proj_bias.normal_(generator=torch.Generator().manual_seed(0))
    found = measured(hf, tokenizer, corpus)
    assert found.loc["constant_fvu", "value"][0] < 1e-5
    cost = found.loc["mean_cost", 0]
    assert abs(cost["value"]) < 1e-5 and abs(cost["chance"]) > 1e-3
    other = found.loc["mean_cost", 1]
    assert other["low"] <= other["value"] <= other["high"] and other["value"] != 0


def test_means_over_pairs_are_those_of_the_pairs(tokenizer: Any, corpus: Corpus) -> None:
    model = open_model(tiny_moe("olmoe"), tokenizer=tokenizer)
    _, score = halves(model, corpus, CONFIG.model_copy(update={"n_tokens": 600}))
    every = pairs(model, 1, score)  # type: ignore[arg-type]
    outputs = of_all(model, 1, score)  # type: ignore[arg-type]
    unit = torch.nn.functional.normalize(outputs, dim=2)
    real = unit.any(-1).all(0)  # the token that begins a window has no embedding
    slow = np.mean([float((unit[i] * unit[j])[real].sum(-1).mean()) for i in range(8) for j in range(i)])
    states: dict[str, torch.Tensor] = {}
    batch = score.batches[0]
    model.observe(batch.ids, ("ffn_input",), lambda _, s: states.update(s), layers=[1])
    quick = same_token_cosine(model, 1, batch.flat(states["ffn_input"])[:256])  # type: ignore[arg-type]
    assert torch.equal(quick.isfinite(), real)
    assert float(quick[real].mean()) == pytest.approx(slow, abs=1e-6)
    assert float(quick[real].mean()) == pytest.approx(every["output_cosine"].mean(), abs=1e-6)
    written = downs(model, 1, range(8))  # type: ignore[arg-type]
    assert written is not None
    alike = neuron_cosines(written)
    unit = torch.nn.functional.normalize(written, dim=1)
    cosines = (unit[2].T @ unit[5]).abs()
    assert float(alike[2, 5]) == pytest.approx(float(cosines.amax(0).mean() + cosines.amax(1).mean()) / 2, abs=1e-6)
    assert torch.allclose(alike.diagonal(), torch.ones(8), atol=1e-5)


def test_a_dense_model_is_refused(tiny: Any, corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="no experts"):
        constancy.measure(tiny, corpus)
