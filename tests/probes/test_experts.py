"""What an expert is worth: planted experts, exact zeros, and an oracle that edits weights instead of outputs."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from data.corpus import Corpus
from data.progress import Cancelled
from data.runs import create
from probes import experts, merging, open_model
from probes.ablation import Held, replaced
from probes.expert_fits import Fits, Moments, table
from probes.expert_similarity import pairs
from probes.expert_text import Damage, halves
from probes.models.moe import RoutedModel
from probes.stream import StreamConfig
from tests.probes.families import tiny_moe

CONFIG = StreamConfig(n_tokens=600, window=32, tokens_per_document=62)


def opened(kind: str, tokenizer: Any, **changes: Any) -> RoutedModel:
    return open_model(tiny_moe(kind, **changes), tokenizer=tokenizer)  # type: ignore[return-value]


def loss(model: RoutedModel, text: Any) -> torch.Tensor:
    return torch.cat([model.losses(batch.ids).flatten() for batch in text.batches])


def test_an_expert_that_is_never_used_is_worth_exactly_nothing(tokenizer: Any, corpus: Corpus) -> None:
    hf = tiny_moe("deepseek_v3")
    for layer in hf.model.layers:
        layer.mlp.gate.e_score_correction_bias[3] = -1e9
    worth = experts.measure(
        open_model(hf, tokenizer=tokenizer), corpus, n_tokens=600, config=CONFIG, tagger=None, curves=False
    )
    mine = worth.damage.query("expert == 3")
    assert len(mine) and (mine[["value", "low", "high", "share"]] == 0).all().all()
    assert (worth.damage.query("expert != 3 and replacement == 'zero'").value != 0).any()
    assert worth.fits.query("expert == 3").n.eq(0).all()


@pytest.mark.parametrize("kind", ["olmoe", "qwen2_moe", "deepseek_v3", "gpt_oss", "mixtral", "granitemoe", "phimoe"])
def test_a_replacement_by_itself_leaves_every_loss_bit_for_bit(kind: str, tokenizer: Any, corpus: Corpus) -> None:
    model = opened(kind, tokenizer)
    _, score = halves(model, corpus, CONFIG)
    plain = loss(model, score)
    held = Held(model, 1, score)  # raises unless resuming at layer 1 gives the losses bit for bit
    assert torch.equal(torch.cat([x.flatten() for x in held.loss]), plain)
    with replaced(model, 1, {2: 2, 5: 5}, None):
        assert torch.equal(loss(model, score), plain)
    assert torch.equal(loss(model, score), plain), "something was left behind"


def test_leaving_an_expert_out_is_what_zero_weights_do(tokenizer: Any, corpus: Corpus) -> None:
    model, hf = opened("olmoe", tokenizer), tiny_moe("olmoe")
    _, score = halves(model, corpus, CONFIG)
    with torch.no_grad():
        hf.model.layers[1].mlp.experts.down_proj[4].zero_()
    oracle = loss(open_model(hf), score)
    with replaced(model, 1, {4: "zero"}, None):
        found = loss(model, score)
    torch.testing.assert_close(found, oracle, rtol=1e-5, atol=1e-5)
    nothing = Fits(torch.zeros(8, 32), torch.zeros(8, 32, 32), torch.zeros(8, 32))
    with replaced(model, 1, {4: "mean"}, nothing):
        torch.testing.assert_close(loss(model, score), oracle, rtol=1e-5, atol=1e-5)
    held = Held(model, 1, score)
    damage, _ = held.damage(4, "zero", nothing, 0)
    real = torch.cat([score.real(i).flatten() for i in range(len(score.batches))])
    change = (oracle - loss(model, score))[real].double()
    assert damage.sums[:, 0].sum() == pytest.approx(float(change.sum()), rel=1e-3, abs=1e-4)
    assert damage.counts[:, 0].sum() == len(change) == score.n_tokens


def test_experts_that_pass_tokens_through_are_affine_and_not_constant(tokenizer: Any, corpus: Corpus) -> None:
    hf = tiny_moe("longcat_flash")
    hf.model.layers[0].mlp.router.e_score_correction_bias[8:] += 1
    model = open_model(hf, tokenizer=tokenizer)
    assert isinstance(model, RoutedModel)
    fit, score = halves(model, corpus, CONFIG)
    fitted, scored = Moments.of(model, 0, fit), Moments.of(model, 0, score)
    fits = Fits.to(fitted)
    found = table(0, fits, fitted, scored).query("n > 40 and n_fit > 40")
    passing = found[found.expert >= 8]
    assert len(passing) and (passing.affine_fvu < 1e-3).all() and (passing.constant_fvu > 0.3).all()
    at = int(passing.expert.iloc[0])
    with replaced(model, 0, {at: "affine"}, fits):
        near = (loss(model, score) - (plain := loss(open_model(model), score))).abs().mean()
    with replaced(model, 0, {at: "zero"}, fits):
        far = (loss(model, score) - plain).abs().mean()
    assert near < 0.1 * far


def test_participation_and_fvu_are_those_of_the_samples(tokenizer: Any, corpus: Corpus) -> None:
    generator = torch.Generator().manual_seed(0)
    x, A = torch.randn(4_000, 6, generator=generator), torch.randn(6, 6, generator=generator)
    x[:, 2:] = 0  # two dimensions of like size
    o = x @ A + 1 + torch.randn(4_000, 6, generator=generator)
    zeros = [torch.zeros(1, *s, dtype=torch.float64) for s in ((), (6,), (6,), (6, 6), (6, 6), ())]
    half = [Moments(*(z.clone() for z in zeros)) for _ in range(2)]
    for at, part in enumerate((slice(0, 2_000), slice(2_000, None))):
        half[at].add(x[part], torch.zeros(2_000, 1, dtype=torch.long), o[part][:, None])
    row = table(0, Fits.to(half[0]), *half).iloc[0]
    tested, mean = o[2_000:], o[:2_000].mean(0)
    assert row.constant_fvu == pytest.approx(float((tested - mean).square().sum() / tested.square().sum()), rel=1e-4)
    assert row.participation == pytest.approx(2, abs=0.05)
    total = float((tested - tested.mean(0)).square().sum())
    assert row.affine_fvu == pytest.approx(6 * 2_000 / total, rel=0.05)  # what is left is the noise


def test_an_expert_seen_less_often_than_it_has_inputs_is_not_overfitted() -> None:
    generator = torch.Generator().manual_seed(0)
    x, A = torch.randn(1_080, 64, generator=generator), torch.randn(64, 4, generator=generator) / 8
    noisy = x @ A + torch.randn(1_080, 4, generator=generator)
    affine = torch.nn.functional.pad(x @ A + 1, (0, 60))
    noise = torch.nn.functional.pad(torch.randn(1_080, 4, generator=generator), (0, 60))
    found = []
    for o, n in ((affine, 500), (torch.nn.functional.pad(noisy, (0, 60)), 80), (noise, 80)):
        zeros = [torch.zeros(1, *s, dtype=torch.float64) for s in ((), (64,), (64,), (64, 64), (64, 64), ())]
        half = [Moments(*(z.clone() for z in zeros)) for _ in range(2)]
        for seen, part in zip(half, (slice(0, n), slice(80, None)), strict=True):
            seen.add(x[part], torch.zeros(len(x[part]), 1, dtype=torch.long), o[part][:, None])
        found.append(float(table(0, Fits.to(half[0]), *half).affine_fvu.iloc[0]))
    exact, shrunk, nothing = found
    assert exact < 1e-4
    assert 0.5 < shrunk < 0.95  # the noise alone is half of the variance; least squares leaves 2 and more
    assert 0.95 < nothing < 1.05


def test_fitting_reads_further_in_its_own_documents(tokenizer: Any, corpus: Corpus) -> None:
    model = opened("olmoe", tokenizer)
    fit, score = halves(model, corpus, CONFIG)
    longer, same = halves(model, corpus, CONFIG, fit_tokens=700)
    names = [{w.document for b in text.batches for w in b.windows} for text in (fit, score, longer)]
    assert sum(len(w) - 1 for b in longer.batches for w in b.windows) == 700
    assert not names[2] & names[1] and names[2] >= names[0]
    for one, other in zip(score.batches, same.batches, strict=True):
        assert torch.equal(one.ids, other.ids)
    with pytest.raises(ValueError, match="not 10000000"):
        halves(model, corpus, CONFIG, fit_tokens=10_000_000)


def test_a_copied_expert_is_found_and_merges_without_loss(tokenizer: Any, corpus: Corpus) -> None:
    hf = tiny_moe("olmoe")
    stack = hf.model.layers[1].mlp.experts
    with torch.no_grad():
        stack.gate_up_proj[5] = stack.gate_up_proj[2]
        stack.down_proj[5] = stack.down_proj[2]
    model = open_model(hf, tokenizer=tokenizer)
    assert isinstance(model, RoutedModel)
    _, score = halves(model, corpus, CONFIG)
    found = pairs(model, 1, score)
    copy = found.query("expert == 2 and other == 5").iloc[0]
    assert copy[["output_cosine", "neuron_cosine", "subspace"]].to_numpy() == pytest.approx(1, abs=1e-5)
    rest = found.query("not (expert == 2 and other == 5)")
    assert rest.output_cosine.max() < 0.9
    assert rest.subspace.mean() == pytest.approx(copy.subspace_chance, abs=0.05)
    plain = loss(model, score)
    with replaced(model, 1, {5: 2}, None):
        torch.testing.assert_close(loss(model, score), plain, rtol=1e-5, atol=1e-5)
    orders = merging.orders(found, np.arange(8) / 8, np.arange(8)[::-1], 0)
    assert orders["similarity"][0] == 2 and orders["load"][0] == 0 and orders["damage"][0] == 7
    alike = merging.similarity(found, 8)
    chosen = {"similarity": orders["similarity"]}
    curve = merging.curves(model, score, {1: chosen}, {1: alike}).query("removed == 0.125").set_index("how")
    assert abs(curve.value["merge"]) < 1e-5 < abs(curve.value["prune"])


def test_gradients_are_those_of_finite_differences(tokenizer: Any, corpus: Corpus) -> None:
    from probes.expert_similarity import gradients

    model = opened("qwen3_moe", tokenizer)
    _, score = halves(model, corpus, CONFIG)
    found = gradients(model, 1, score)
    direction = torch.zeros(32)
    direction[3] = 1e-2
    totals = []
    for sign in (1, -1):
        chosen: list[torch.Tensor] = []
        hooks = [
            (1, "expert_index", lambda i, c=chosen: c.__setitem__(slice(None), [i])),
            (1, "expert_output", lambda o, c=chosen, s=sign: o + s * direction * (c[0] == 2)[..., None]),
        ]
        with model.hooked(hooks):
            totals.append(model.losses(score.batches[0].ids)[score.real(0)].double().sum())
    assert float(found[2, 3]) == pytest.approx(float(totals[0] - totals[1]) / 2e-2, rel=0.05, abs=2e-3)


def test_share_and_damage_that_agree_correlate_and_that_do_not_do_not() -> None:
    rng = np.random.default_rng(0)
    share = np.hstack([np.full((6, 1), 0.2), rng.random((6, 5))])
    unrelated = rng.random((6, 6))
    for truth, least, most in ((share, 0.9, 1.0), (unrelated, -0.6, 0.6)):
        damages = []
        for e in range(6):
            damage = Damage(6)
            damage.counts += 20
            damage.sums += 20 * truth[e] + rng.normal(size=damage.sums.shape)
            damages.append(damage)
        found = experts._agreement(share, damages)
        assert least <= found["correlation"] <= most
        assert found["low"] <= found["correlation"] <= found["high"]
        assert found["n_cells"] == 30


def test_a_stopped_measurement_goes_on_with_the_next_layer(tokenizer: Any, corpus: Corpus, tmp_path: Path) -> None:
    model = opened("olmoe", tokenizer)
    asked = {"n_tokens": 300, "config": CONFIG, "tagger": None, "replace": ("zero", "random")}
    whole = experts.measure(model, corpus, **asked)
    assert set(whole) == {"damage", "fits", "pairs", "agreement", "vectors", "curves", "fewer"}
    assert whole.fewer.query("kept == 2").value.eq(0).all()
    run = create("worth", {}, kind="probe.worth", root_folder=tmp_path)

    def stop(done: float, total: float, note: str = "") -> None:
        if "layer 1" in note:
            raise Cancelled

    with pytest.raises(Cancelled):
        experts.measure(model, corpus, run=run, progress=stop, **asked)
    assert set(run.table("damage").layer) == {0}
    resumed = experts.measure(model, corpus, run=run, **asked)
    for name, frame in whole.items():
        pd.testing.assert_frame_equal(frame.reset_index(drop=True), resumed[name].reset_index(drop=True))
        pd.testing.assert_frame_equal(frame.reset_index(drop=True), run.table(name))


def test_what_cannot_be_measured_is_said(tiny: Any, tokenizer: Any, corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="has no experts"):
        experts.measure(tiny, corpus)
    model = opened("olmoe", tokenizer)
    with pytest.raises(ValueError, match="must name some of zero"):
        experts.measure(model, corpus, replace=("none",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"layers \[9\]"):
        experts.measure(model, corpus, layers=[9])


def test_padding_uses_no_expert(tokenizer: Any, corpus: Corpus) -> None:
    model = opened("olmoe", tokenizer)
    _, score = halves(model, corpus, StreamConfig(n_tokens=400, window=32, tokens_per_document=45))
    held = Held(model, 1, score)
    n_experts, k = model.blocks[1].n_experts, model.blocks[1].k
    assert sum(held.used(expert) for expert in range(n_experts)) == k * score.n_tokens
