import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal
from scipy.linalg import svdvals

from data import Cancelled, runs
from data.corpus import Corpus
from probes import LanguageModel, open_model, rank
from probes.collapse import MEASURES, PATTERN_MEASURES, mean_cosine, norms, residual, stable_rank
from probes.residuals import spectra
from probes.stream import StreamConfig
from probes.variants import VARIANTS, edits, is_sequential
from tests.probes.tiny import tiny_hf

SMALL = StreamConfig(n_tokens=400, window=32, batch_tokens=128, shard_tokens=150)


def named(values: torch.Tensor, names: tuple[str, ...] = MEASURES) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def test_norms_are_those_of_numpy() -> None:
    x = np.random.default_rng(0).normal(size=(7, 5))
    composite, frobenius, l1, linf = norms(torch.from_numpy(x)).tolist()
    assert l1 == pytest.approx(np.linalg.norm(x, 1))
    assert linf == pytest.approx(np.linalg.norm(x, np.inf))
    assert frobenius == pytest.approx(np.linalg.norm(x))
    assert composite == pytest.approx(math.sqrt(np.linalg.norm(x, 1) * np.linalg.norm(x, np.inf)))


def test_the_residual_is_the_distance_to_the_nearest_repeated_vector() -> None:
    """In Frobenius norm the mean token is the nearest: a least-squares fit finds no better vector."""
    x = np.random.default_rng(1).normal(size=(9, 4)) + 3
    fitted, *_ = np.linalg.lstsq(np.ones((9, 1)), x, rcond=None)
    np.testing.assert_allclose(residual(torch.from_numpy(x)).numpy(), x - fitted, atol=1e-12)


def test_one_vector_repeated_has_no_residual_and_rank_one() -> None:
    x = torch.randn(1, 16, generator=torch.Generator().manual_seed(0)).expand(20, 16)
    found = named(rank.window_measures(x))
    assert found["residual_composite"] < 1e-12 and found["residual_frobenius"] < 1e-12
    assert found["stable_rank"] == pytest.approx(1) and found["mean_cosine"] == pytest.approx(1)


def test_orthogonal_tokens_have_the_known_values() -> None:
    """For the identity of size n: the residual is I - 1/n, of Frobenius norm sqrt(n - 1), 1-norm 2 (n - 1) / n."""
    n = 12
    found = named(rank.window_measures(torch.eye(n)))
    assert found["residual_frobenius"] == pytest.approx(math.sqrt((n - 1) / n))
    assert found["residual_l1"] == found["residual_linf"] == pytest.approx(2 * (n - 1) / n)
    assert found["residual_composite"] == pytest.approx(2 * (n - 1) / n)
    assert found["stable_rank"] == pytest.approx(n) and found["mean_cosine"] == pytest.approx(0, abs=1e-12)


def test_stable_rank_and_cosine_agree_with_the_slow_way() -> None:
    x = torch.randn(11, 6, generator=torch.Generator().manual_seed(2)).double() + 0.5
    s = svdvals(x.numpy())
    assert stable_rank(x) == pytest.approx((s**2).sum() / s[0] ** 2)
    pairs = [float(torch.cosine_similarity(x[i], x[j], dim=0)) for i in range(11) for j in range(11) if i != j]
    assert mean_cosine(x) == pytest.approx(np.mean(pairs))
    with_zero = torch.cat([x, torch.zeros(1, 6).double()])
    assert mean_cosine(with_zero) == pytest.approx(mean_cosine(x))
    assert math.isnan(mean_cosine(with_zero[-2:]))
    with pytest.raises(ValueError, match="at least 2"):
        rank.window_measures(x[:1])


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_measures_do_not_depend_on_scale(scale: float) -> None:
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(3)).double()
    torch.testing.assert_close(rank.window_measures(x * scale), rank.window_measures(x))


def test_patterns_have_the_known_spectra() -> None:
    n = 16
    to_first = torch.zeros(n, n)
    to_first[:, 0] = 1
    causal = torch.tril(torch.ones(n, n))
    uniform = causal / causal.sum(dim=1, keepdim=True)
    itself, first, mean = (
        named(row, PATTERN_MEASURES) for row in rank.pattern_measures(torch.stack([torch.eye(n), to_first, uniform]))
    )
    assert itself == pytest.approx(
        {"rank": n, "rank_percent": n, "effective_rank": n, "stable_rank": n, "first_key": 1 / n}
    )
    assert first == pytest.approx(dict.fromkeys(PATTERN_MEASURES, 1.0))
    s = svdvals(uniform.double().numpy())
    assert mean["rank"] == n
    assert mean["rank_percent"] == (s > 0.01 * s[0]).sum()
    assert mean["effective_rank"] == pytest.approx(np.exp(-(s / s.sum() * np.log(s / s.sum())).sum()), rel=1e-5)
    assert mean["first_key"] == pytest.approx((1 / np.arange(1, n + 1)).mean())


def parts_by_hand(model: LanguageModel, ids: torch.Tensor, variant: str) -> list[torch.Tensor]:
    """The variant's residual stream after each block, from transformers' own modules called one after the other."""
    hf = tiny_hf()
    x = hf.model.embed_tokens(ids)
    where = torch.arange(ids.shape[1])[None]
    causal = torch.full((ids.shape[1],) * 2, -torch.inf).triu(1)[None, None]
    after = []
    for block in hf.model.layers:
        turned = hf.model.rotary_emb(x, where)
        a = block.self_attn(block.input_layernorm(x), position_embeddings=turned, attention_mask=causal)[0]
        h = a if variant in ("attention", "attention_ffn") else x + a
        f = block.mlp(block.post_attention_layernorm(h))
        x = {"attention": h, "attention_skip": h, "attention_ffn": f, "full": h + f}[variant]
        after.append(x)
    return after


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_is_the_composition_it_names(tiny: LanguageModel, variant: Any) -> None:
    ids = torch.arange(3, 23)[None]
    seen: list[torch.Tensor] = []
    with tiny.edited(edits(tiny, variant)), torch.no_grad():
        tiny.observe(ids, ("block_output",), lambda _, sites: seen.append(sites["block_output"]))
        wanted = parts_by_hand(tiny, ids, variant)
    assert len(seen) == tiny.n_layers
    for mine, theirs in zip(seen, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_edits_leave_the_model_as_it_was(tiny: LanguageModel) -> None:
    ids = torch.arange(3, 23)[None]
    before = tiny.logits(ids)
    for variant in VARIANTS:
        with tiny.edited(edits(tiny, variant)):
            changed = tiny.logits(ids)
        assert torch.equal(changed, before) == (variant == "full")
    assert torch.equal(tiny.logits(ids), before)


def test_parallel_blocks_are_told_and_split_in_their_own_way(tokenizer: Any) -> None:
    model = open_model(tiny_hf("gpt_neox"), tokenizer=tokenizer)
    assert not is_sequential(model)
    ids = torch.arange(3, 13)[None]
    seen: dict[str, torch.Tensor] = {}
    with model.edited(edits(model, "attention_ffn", sequential=False)):
        sites = ("attention_output", "ffn_output", "block_output")
        model.observe(ids, sites, lambda _, found: seen.update(found), layers=[0])
    torch.testing.assert_close(seen["block_output"], seen["attention_output"] + seen["ffn_output"])


def test_tables_hold_what_one_window_at_a_time_gives(tiny: LanguageModel, corpus: Corpus) -> None:
    assert is_sequential(tiny)
    config = SMALL.model_copy(update={"tokens_per_document": 93})
    table = rank.measure(tiny, corpus, 400, config=config, controls=(), pattern_windows=3).rank_residuals
    assert set(table["variant"]) == set(VARIANTS) and set(table["layer"]) == {-1, 0, 1, 2}
    found = corpus.windows(
        tiny.tokenizer, begin_token_id=tiny.document_token, window=32, n_tokens=400, tokens_per_document=93
    )
    whole = [w for w in found if len(w) == 32]
    assert (table["n_windows"] == len(whole)).all() and len(whole) > 3
    values: dict[tuple[int, str], list[torch.Tensor]] = {}

    def visit(layer: int, sites: dict[str, torch.Tensor]) -> None:
        x = sites["block_output"][0]
        values.setdefault((layer, "in"), []).append(rank.window_measures(x))
        values.setdefault((layer, "out"), []).append(rank.window_measures(x[1:]))

    for window in whole:
        tiny.observe(torch.from_numpy(window.token_ids.astype(np.int64))[None], ("block_output",), visit)
    for (layer, first), each in values.items():
        rows = table[(table["layer"] == layer) & (table["first"] == first) & (table["variant"] == "full")]
        rows = rows.set_index("measure")
        for name, value in named(torch.stack(each).mean(dim=0)).items():
            assert rows.value[name] == pytest.approx(value, rel=1e-4)
            assert rows.low[name] <= rows.value[name] <= rows.high[name]


def test_windows_come_from_documents_of_their_own(tiny: LanguageModel, corpus: Corpus) -> None:
    few = rank.measure(tiny, corpus, 31 * 5, config=SMALL, variants=("full",), controls=(), pattern_windows=2)
    assert set(few.rank_residuals["n_windows"]) == set(few.rank_residuals["n_blocks"]) == {5}
    many = rank.measure(tiny, corpus, 31 * 20, config=SMALL, variants=("full",), controls=(), pattern_windows=2)
    assert (many.rank_residuals["n_windows"] > 12).all() and (many.rank_residuals["n_blocks"] <= 12).all()


def test_a_planted_collapse_is_seen_where_it_happens(tiny: LanguageModel, corpus: Corpus) -> None:
    """From layer 1 on every token is the same vector; the variant `full` alone sees the edit outside of it."""
    one = torch.ones(tiny.d_model)
    with tiny.edited({(1, "block_output"): lambda t: t * 0 + one}):
        table = rank.measure(tiny, corpus, 200, config=SMALL, variants=("full",), controls=(), pattern_windows=2)
    value = table.rank_residuals.query("measure == 'residual_composite' and first == 'in'").set_index("layer").value
    assert value[0] > 0.1 and value[1] < 1e-7


def test_a_cancelled_measurement_resumes_to_the_same_tables(
    tiny: LanguageModel, corpus: Corpus, tmp_path: Path
) -> None:
    whole = rank.measure(tiny, corpus, 400, config=SMALL, pattern_windows=2)
    run = runs.create("cut", {"n": 400}, kind="test", root_folder=tmp_path)
    calls = 0

    def stop(done: float, total: float, note: str = "") -> None:
        nonlocal calls
        calls += 1
        assert 0 <= done <= total
        if calls in (3, 9, 21):
            raise Cancelled

    finished = None
    for _ in range(4):
        try:
            finished = rank.measure(tiny, corpus, 400, config=SMALL, pattern_windows=2, run=run, progress=stop)
        except Cancelled:
            assert "rank_residuals" in run.table_names()
    assert finished is not None and calls > 21
    for name, frame in whole.items():
        assert_frame_equal(finished[name], frame, check_exact=True)
        assert_frame_equal(run.table(name), frame, check_exact=True)


def test_controls_stand_beside_the_model(tiny: LanguageModel, corpus: Corpus) -> None:
    found = rank.measure(
        tiny, corpus, 150, config=SMALL, variants=("full",), controls=("random_init", "shuffled"), pattern_windows=2
    )
    assert set(found.rank_residuals["condition"]) == {"real", "random_init", "shuffled"}
    assert set(found.rank_patterns["condition"]) == {"real", "random_init", "shuffled"}
    assert (found.rank_patterns.groupby(["condition", "measure"]).size() == tiny.n_layers * 4).all()
    assert found.rank_residuals["precision"].unique().tolist() == [torch.finfo(torch.float32).eps]


def test_mixtures_are_measured_without_patterns(tokenizer: Any, corpus: Corpus) -> None:
    model = open_model(tiny_hf("olmoe", num_experts=4, num_experts_per_tok=2), tokenizer=tokenizer)
    assert spectra(model, corpus, 2, SMALL, lambda *_: None).empty
    found = rank.measure(model, corpus, 150, config=SMALL, controls=())
    assert set(found.rank_residuals["variant"]) == set(VARIANTS) and found.rank_patterns.empty


def test_what_cannot_be_measured_is_said_in_one_sentence(tiny: LanguageModel, corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="'skip' is not a variant"):
        rank.measure(tiny, corpus, 100, variants=("skip",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'gaussian' is not a control"):
        rank.measure(tiny, corpus, 100, controls=("gaussian",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no document fills a window of 4000 positions"):
        rank.measure(tiny, corpus, 100, config=SMALL.model_copy(update={"window": 4000, "batch_tokens": 4000}))


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_the_stable_rank_has_no_scale(size: float) -> None:
    assert stable_rank(size * torch.eye(4, dtype=torch.float64)) == pytest.approx(4)
