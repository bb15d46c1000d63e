"""A layer of a tiny model: captured, imitated, put back, kept, exported and read as a mixture of experts."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data import runs
from data.corpus import Corpus
from data.progress import Cancelled
from probes import LanguageModel, open_model, secret
from probes.controls import gaussian_like
from probes.secret import pairs as conditions
from probes.secret.embedding import curves, tables_by_token
from probes.secret.export import export, keep, students
from probes.secret.fitting import Layer
from probes.secret.losses import held_out_documents, measure_losses
from probes.secret.pairs import moments, participation
from probes.secret.teacher import LayerTeacher
from probes.stream import StreamConfig
from tests.probes.tiny import tiny_hf

READ = StreamConfig(n_tokens=6_000, tokens_per_document=200, window=64, shard_tokens=1_000)


@pytest.fixture(scope="module")
def captured(words_model: LanguageModel, words: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("inputs")
    return secret.capture(words_model, words, (0, 1), READ, root=root)


def test_what_is_captured_is_what_the_layer_reads(words_model: LanguageModel, words: Corpus, captured: Any) -> None:
    seen = secret.read_inputs(captured, 1)
    assert len(seen.rows) == len(seen.token) == len(seen.sink) > 4_000
    assert 0 < seen.held_out.mean() < 0.4
    document = next(iter(words.tokenize(words_model.tokenizer, n_tokens=6_000, tokens_per_document=200)))
    window = next(document.windows(64, begin_token_id=words_model.document_token))
    ids = torch.from_numpy(np.asarray(window.token_ids))[None]
    shown: list[torch.Tensor] = []
    words_model.observe(ids, ("ffn_input",), lambda _, s: shown.append(s["ffn_input"][0, 4:]), layers=[1])
    here = np.flatnonzero(seen.document == 0)
    found = np.array(seen.rows[here])
    nearest = torch.cdist(shown[0].float(), torch.from_numpy(found)).min(dim=1).values
    assert nearest.max() < 0.01  # what `cdist` rounds; other tokens are farther than 1
    assert torch.cdist(shown[0].float(), shown[0].float()).median() > 1
    assert set(window.token_ids[4:]) <= set(seen.token[here])


def test_a_killed_capture_goes_on_and_ends_alike(
    words_model: LanguageModel, words: Corpus, captured: Any, tmp_path: Path
) -> None:
    def stop(done: float, total: float, note: str = "") -> None:
        if done > 3_000:
            raise Cancelled

    with pytest.raises(Cancelled):
        secret.capture(words_model, words, (0, 1), READ, root=tmp_path, progress=stop)
    again = secret.read_inputs(secret.capture(words_model, words, (0, 1), READ, root=tmp_path), 1)
    whole = secret.read_inputs(captured, 1)
    np.testing.assert_array_equal(again.rows, whole.rows)
    np.testing.assert_array_equal(again.token, whole.token)


def test_the_teacher_is_the_layer_and_its_neurons_add_up_to_it(words_model: LanguageModel, captured: Any) -> None:
    teacher = LayerTeacher(words_model, 1)
    x = torch.from_numpy(np.array(secret.read_inputs(captured, 1).rows[:50]))
    torch.testing.assert_close(teacher(x), words_model.feed_forward(1)(x[None])[0].detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(teacher.neurons(x) @ teacher.value_vectors(), teacher(x), atol=1e-5, rtol=1e-3)


def test_conditions_keep_what_they_promise(words_model: LanguageModel, captured: Any) -> None:
    layer = Layer(words_model, 1, secret.read_inputs(captured, 1))
    real = layer.real
    mean, covariance = moments(real.x, real.train)
    for name in ("gaussian", "shuffled_axes"):
        drawn = layer.under(name)
        m, c = moments(drawn.x, drawn.train)
        assert (c - covariance).norm() / covariance.norm() < 0.1
        assert (m - mean).norm() < 0.1 * covariance.trace().sqrt()
        assert abs(participation(c) / participation(covariance) - 1) < 0.05
    shuffled = layer.under("shuffled")
    for j in (0, 7):
        np.testing.assert_array_equal(np.sort(shuffled.x[real.train, j]), np.sort(real.x[real.train, j]))
    assert len(layer.under("random_teacher").y) == len(real.y)
    assert not np.allclose(layer.under("shuffled_teacher").y, real.y)
    with pytest.raises(ValueError, match="is no condition"):
        conditions.under("none", real, layer.teacher)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["linear", "constants", "oracle", "static", "oracle_clusters", "learned_clusters"])
def test_students_beat_the_mean_on_documents_not_seen(words_model: LanguageModel, captured: Any, method: str) -> None:
    found = secret.fit(words_model, layer=1, inputs=captured, method=method, n_experts=8, n_active=16)
    assert 0 < found.fvu < 1
    assert found.row()["n_documents"] == len(found.held_out.error) > 3
    assert found.active_parameters.active <= found.active_parameters.active_with_router


def test_refining_begins_at_the_closed_form(words_model: LanguageModel, captured: Any) -> None:
    asked: dict[str, Any] = {"layer": 1, "inputs": captured, "n_experts": 8, "n_active": 16}
    start = secret.fit(words_model, **asked)
    further = secret.fit(words_model, **asked, method="refined", steps=30, rates=(1e-3,))
    assert further.fvu_train < start.fvu_train and further.active_parameters == start.active_parameters
    assert (further.student.write - start.student.write).abs().max() < 0.1  # type: ignore[attr-defined]


def test_all_neurons_are_the_teacher(words_model: LanguageModel, captured: Any) -> None:
    for method in ("oracle", "static"):
        every = secret.fit(words_model, layer=1, inputs=captured, method=method, n_active=64)
        assert every.fvu < 1e-6


def test_dense_students_learn_and_say_how_flat_the_end_was(words_model: LanguageModel, captured: Any) -> None:
    few = secret.fit(words_model, layer=1, inputs=captured, method="dense", n_active=8, steps=20, rates=(3e-3,))
    more = secret.fit(words_model, layer=1, inputs=captured, method="dense", n_active=8, steps=300, rates=(3e-3, 1e-5))
    assert more.fvu < few.fvu < 1.5
    assert more.row()["rate"] == 3e-3
    experts = secret.fit(
        words_model, layer=1, inputs=captured, method="paper", n_experts=32, n_active=8, steps=100, rates=(3e-3,)
    )
    x = torch.from_numpy(np.array(secret.read_inputs(captured, 1).rows[:5]))
    assert experts.route(x).shape == (5, 4)
    cost, d = experts.active_parameters, words_model.d_model
    assert cost.shared == cost.expert == 4 * 2 * d
    assert cost.stored == 4 * 2 * d + 4 + d + 32 * (2 * d + 1) + 32 * d + 32 * 32


def test_compare_resumes_and_takes_ratios_over_the_same_documents(
    words_model: LanguageModel, captured: Any, tmp_path: Path
) -> None:
    asked = secret.grid([1], seeds=(0, 1), n_experts=8, n_active=8, steps=30, rates=(3e-3,))
    run = runs.create("c", {}, kind="secret", root_folder=tmp_path)
    first = secret.compare(words_model, students=asked[:4], inputs=captured, run=run)
    seen: list[str] = []
    tables = secret.compare(
        words_model, students=asked, inputs=captured, run=run, progress=lambda d, n, s="": seen.append(s)
    )
    assert len(tables.secret) == 8 and not any("seed 0" in s for s in seen)
    assert tables.secret["fvu"].tolist()[:4] == first.secret["fvu"].tolist()
    row = tables.secret_ratios.iloc[0]
    assert row["ratio"] == pytest.approx(row["fvu_dense"] / row["fvu"]) and row["low"] < row["ratio"] < row["high"]
    means = tables.secret_ratios.groupby("condition")["ratio"].mean()
    assert tables.secret_gaps["gap"].item() == pytest.approx(means["real"] - means["gaussian"])
    other = [one.model_copy(update={"rank": 4}) for one in asked if one.method == "closed_form"]
    with pytest.raises(ValueError, match="holds a student 'closed_form' of layer 1 with another one of rank"):
        secret.compare(words_model, students=other, inputs=captured, run=run)


def test_the_point_asked_for_first_stays_first(words_model: LanguageModel, captured: Any) -> None:
    at = {"n_active": 8, "steps": 10, "rates": (3e-3,)}
    asked = secret.grid([1], n_experts=8, **at) + secret.grid([1], methods=("closed_form",), n_experts=4, **at)
    found = secret.compare(words_model, students=asked, inputs=captured)
    assert found.secret_gaps["n_experts"].tolist() == [8, 4]


def test_students_that_the_tables_cannot_tell_apart_are_refused(words_model: LanguageModel, captured: Any) -> None:
    asked = [secret.SecretConfig(layer=1, n_experts=8, n_active=16, rank=rank) for rank in (16, 8)]
    with pytest.raises(ValueError, match="differ in rank alone"):
        secret.compare(words_model, students=asked, inputs=captured)
    twice = secret.compare(words_model, students=[asked[0], asked[0]], inputs=captured)
    assert len(twice.secret) == 1
    found = twice.secret.iloc[0]
    assert found["active_sets"] == 8 and found["n_tokens"] == twice.secret_documents["n_tokens"].iloc[0]


def test_padding_at_the_left_of_a_batch_changes_no_answer(
    words_model: LanguageModel, captured: Any, tmp_path: Path
) -> None:
    run = runs.create("kept", {}, kind="secret", root_folder=tmp_path)
    keep(run, [secret.fit(words_model, layer=1, inputs=captured, n_experts=6, n_active=8)])
    hf = open_model(words_model, secret_experts=run).hf
    ids = torch.arange(1, 13).view(1, 12)
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids], dim=1)
    both = torch.cat([padded, torch.arange(20, 37).view(1, 17)])
    mask = torch.ones_like(both)
    mask[0, :5] = 0
    place = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with torch.no_grad():
        alone, beside = hf(input_ids=ids).logits[0], hf(input_ids=both[1:]).logits[0]
        found = hf(input_ids=both, attention_mask=mask, position_ids=place).logits
        torch.testing.assert_close(found[0, 5:], alone, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found[1], beside, atol=1e-4, rtol=1e-4)
        # token by token, as `generate` asks: the sequence is still among its first positions
        cache = hf(input_ids=both[:, :7], attention_mask=mask[:, :7], position_ids=place[:, :7]).past_key_values
        steps = [
            hf(input_ids=both[:, i : i + 1], attention_mask=mask[:, : i + 1], position_ids=place[:, i : i + 1],
               past_key_values=cache).logits[:, 0]
            for i in range(7, 17)
        ]  # fmt: skip
        torch.testing.assert_close(torch.stack(steps, dim=1), found[:, 7:], atol=1e-4, rtol=1e-4)


def test_an_exported_model_is_the_model_with_the_student_and_needs_no_remote_code(
    words_model: LanguageModel, captured: Any, tmp_path: Path
) -> None:
    found = secret.fit(words_model, layer=1, inputs=captured, n_experts=6, n_active=8, rank=5)
    run = runs.create("kept", {}, kind="secret", root_folder=tmp_path)
    keep(run, [found])
    x = torch.from_numpy(np.array(secret.read_inputs(captured, 1).rows[:20]))
    torch.testing.assert_close(students(run)[1](x), found.student(x))
    mixture = open_model(words_model, secret_experts=run)
    ids = torch.arange(40).view(2, 20) % words_model.vocab_size
    with found.install(words_model):
        installed = words_model.logits(ids)
    torch.testing.assert_close(mixture.logits(ids), installed, atol=1e-4, rtol=1e-4)
    assert (installed - words_model.logits(ids))[:, 4:].abs().max() > 1e-3
    torch.testing.assert_close(installed[:, :4], words_model.logits(ids)[:, :4])
    assert mixture.blocks[1].kind == "moe" and mixture.blocks[1].n_experts == 6 and mixture.blocks[0].kind == "dense"
    seen: dict[str, torch.Tensor] = {}
    sites = ("ffn_input", "router_logits", "expert_index", "expert_weight", "expert_output")
    mixture.observe(ids, sites, lambda _, s: seen.update(s), layers=[1])
    rows = seen["ffn_input"].flatten(0, 1).float()
    assert torch.equal(seen["expert_index"].flatten(0, 1), found.route(rows))
    assert torch.equal(seen["router_logits"].argmax(-1), seen["expert_index"][..., 0])
    shared = rows @ found.student.shared_read @ found.student.shared_write
    whole = shared + (seen["expert_output"] * seen["expert_weight"][..., None]).sum(2).flatten(0, 1)
    torch.testing.assert_close(whole, found.student(rows), atol=1e-4, rtol=1e-4)
    folder = export(words_model, run, tmp_path / "exported")
    assert not list(folder.glob("*.py"))
    script = (
        "import probes, torch, sys\n"
        "assert 'transformers' not in sys.modules\n"
        "from transformers import AutoModelForCausalLM\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(folder)!r})\n"
        f"torch.save(model(input_ids=torch.arange(40).view(2, 20) % {words_model.vocab_size}).logits, 'logits.pt')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, env=environment, capture_output=True)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), mixture.logits(ids), atol=1e-4, rtol=1e-4)


def test_bad_requests_are_told_in_a_sentence(words_model: LanguageModel, captured: Any, tmp_path: Path) -> None:
    for settings, said in (
        ({"layer": 9}, "is not in 0"),
        ({"layer": 2}, "holds no inputs of layer 2"),
        ({"layer": 1, "rank": 100}, "n_active"),
        ({"layer": 1, "k": 9, "n_active": 8}, "n_active=8 neurons k=9 experts get 0"),
        ({"layer": 1, "method": "oracle", "n_active": 1000}, "neurons"),
        ({"layer": 1, "method": "paper", "n_experts": 4}, "more experts"),
    ):
        with pytest.raises(ValueError, match=said):
            secret.fit(words_model, inputs=captured, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give text"):
        secret.fit(words_model, layer=1)
    with pytest.raises(ValueError, match="holds no secret experts"):
        open_model(words_model, secret_experts=runs.create("e", {}, kind="x", root_folder=tmp_path))
    other = runs.create("o", {}, kind="x", root_folder=tmp_path)
    keep(other, [secret.fit(words_model, layer=1, inputs=captured, n_experts=4, n_active=8)])
    for place, said in (
        (tiny_hf(num_hidden_layers=1), "stand for layer 1"),
        (tiny_hf(hidden_size=16), "read 32 numbers"),
    ):
        with pytest.raises(ValueError, match=f"{said}.*open the model that they were fitted to"):
            open_model(open_model(place), secret_experts=other)
    found = secret.fit(words_model, layer=1, inputs=captured, method="static", n_active=8)
    with pytest.raises(ValueError, match="closed form"):
        keep(runs.create("f", {}, kind="x", root_folder=tmp_path), [found])


@pytest.mark.parametrize("method", ["closed_form", "dense", "linear", "static"])
def test_text_of_one_document_is_no_basis_for_any_student(
    words_model: LanguageModel, words: Corpus, method: str
) -> None:
    with pytest.raises(ValueError, match="at least six documents"):
        secret.fit(words_model, layer=1, corpus=words, method=method, n_tokens=100, n_experts=2, steps=1)


def test_gaussians_of_a_singular_covariance_have_it() -> None:
    x = gaussian_like(torch.zeros(3), torch.diag(torch.tensor([1.0, 2.0, 0.0])), 4000, torch.Generator().manual_seed(0))
    assert x[:, 2].abs().max() < 1e-5 and x.var(dim=0)[:2].numpy() == pytest.approx([1, 2], rel=0.1)


def test_the_loss_of_the_teacher_put_back_is_the_models(
    words_model: LanguageModel, words: Corpus, captured: Any
) -> None:
    fits = [secret.fit(words_model, layer=layer, inputs=captured, n_experts=4, n_active=8) for layer in (0, 1)]
    read = READ.model_copy(update={"tokens_per_document": None})
    found = measure_losses(words_model, words, fits, read=read, n_tokens=1_000).set_index(["layers", "replaced_by"])
    assert set(found.index.get_level_values(0)) == {"0", "1", "0, 1"}
    for layers in ("0", "1", "0, 1"):
        part = found.loc[layers]
        assert abs(part.loc["teacher", "change"]) < 1e-5 and part.loc["nothing", "change"] == 0
        row = part.loc["student"]
        harm = part.loc["zero", "loss"] - part.loc["nothing", "loss"]
        assert row["recovered_zero"] == pytest.approx((part.loc["zero", "loss"] - row["loss"]) / harm)
        assert row["low"] <= row["change"] <= row["high"]
    # no document that a student was fitted on
    seen = set(secret.read_inputs(captured, 1).document[~secret.read_inputs(captured, 1).held_out].tolist())
    order = words.order(0)
    names = {words[order[i]].name for i in seen}
    assert not names & {d.name for d in held_out_documents(words, 0)}


def test_cells_of_a_table_are_found_and_tables_by_token_know_what_they_saw(
    words_model: LanguageModel, captured: Any
) -> None:
    seen = secret.read_inputs(captured, 0)
    layer = Layer(words_model, 0, seen)
    rows, slopes = curves(layer, ("real",), cells=(4, 16, 64))
    constants = rows.query("what == 'constants'").sort_values("n_cells")
    assert constants["fvu"].is_monotonic_decreasing and (constants["used"] <= constants["n_cells"]).all()
    x, y = np.log(constants["n_cells"]), np.log(constants["fvu"])
    assert slopes["slope"].item() == pytest.approx(-np.polyfit(x, y, 1)[0], rel=1e-6)
    table = tables_by_token(layer, seen.token, seen.previous).set_index("what")["fvu"]
    train, test = layer.real.train, layer.real.test
    slow = np.stack([
        layer.real.y[train][seen.token[train] == t].mean(0) if (seen.token[train] == t).any()
        else layer.real.y[train].mean(0) for t in seen.token[test]
    ])  # fmt: skip
    y = layer.real.y[test]
    assert table["token"] == pytest.approx(float(((slow - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()), rel=1e-4)


def test_a_bigram_is_told_by_both_its_tokens() -> None:
    """Answers that the pair decides leave nothing; token 3 comes before others and never itself."""
    rng = np.random.default_rng(0)
    token, previous = rng.integers(0, 3, 2_000), rng.integers(0, 4, 2_000)
    answer = torch.from_numpy(rng.normal(size=(3, 4, 5))[token, previous]).float()
    known = conditions.Pairs.of(torch.randn(2_000, 6, generator=torch.Generator().manual_seed(0)), answer)
    table = tables_by_token(SimpleNamespace(layer=0, real=known), token, previous)  # type: ignore[arg-type]
    fvu = table.set_index("what")["fvu"]
    assert fvu["bigram"] < 1e-6 and fvu["token"] > 0.5


def test_asking_the_teacher_in_float32_leaves_a_bfloat16_model_as_it_was() -> None:
    model = open_model(tiny_hf(), dtype="bfloat16")
    ids = torch.arange(40).view(2, 20)
    before = model.logits(ids)
    assert LayerTeacher(model, 1)(torch.randn(5, 32)).dtype == torch.float32
    assert torch.equal(model.logits(ids), before)
