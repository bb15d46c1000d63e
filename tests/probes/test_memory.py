import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pandas import DataFrame
from pandas.testing import assert_frame_equal

from data import Cancelled, runs
from data.corpus import Corpus
from probes import LanguageModel, memory, open_model, stream
from probes.sinks import KEPT
from probes.stream import Observation, StreamConfig
from probes.triggers import Triggers, contexts
from probes.value_vectors import extremes, final_norm, readout, top_tokens, value_vectors
from tests.probes.test_stream import Everything
from tests.probes.tiny import tiny_hf

SMALL = StreamConfig(n_tokens=600, window=32, batch_tokens=128, shard_tokens=150)


class Remembering(Everything):
    """The slow oracle: keeps every activation with the token, its place and what follows it."""

    def rows(self, layer: int) -> list[tuple[int, int, int, np.ndarray]]:
        """(document, position, next token, activations) of every ordinary token that has a next one in its window."""
        found = []
        for seen in (s for s in self.seen if s.layer == layer):
            place = 0
            for window in seen.tokens.windows:
                for i in range(len(window)):
                    ordinary = bool(seen.group[place] == KEPT) and window.position_in_document[i] >= 0
                    if ordinary and i + 1 < len(window):
                        where = (window.document_index, int(window.position_in_document[i]))
                        z = seen.sites["neurons"][place].numpy()
                        found.append((*where, int(window.token_ids[i + 1]), z))
                    place += 1
        return found


@pytest.fixture(scope="module")
def streamed(tiny: LanguageModel, corpus: Corpus) -> tuple[Triggers, Remembering]:
    triggers, oracle = Triggers(tiny, [0, 2], k=7), Remembering()
    stream.run(tiny, corpus, {"t": triggers, "o": oracle}, SMALL)
    return triggers, oracle


def test_triggers_are_those_of_a_full_sort(streamed: tuple[Triggers, Remembering]) -> None:
    triggers, oracle = streamed
    table = triggers.tables().triggers
    assert set(table["layer"]) == {0, 2}
    for layer in (0, 2):
        rows = oracle.rows(layer)
        for neuron in range(64):
            for sign, factor in (("+", 1), ("-", -1)):
                mine = table[(table["layer"] == layer) & (table["neuron"] == neuron) & (table["sign"] == sign)]
                ordered = sorted(((-factor * z[neuron], d, p, n) for d, p, n, z in rows if factor * z[neuron] > 0))[:7]
                assert mine["rank"].tolist() == list(range(len(ordered)))
                np.testing.assert_array_equal(mine["activation"], [-factor * o[0] for o in ordered])
                assert mine["place"].tolist() == [(o[1] << 32) + o[2] for o in ordered]
                assert mine["next_id"].tolist() == [o[3] for o in ordered]


def test_merging_in_any_order_gives_the_whole(tiny: LanguageModel, corpus: Corpus) -> None:
    whole = Triggers(tiny, [1], k=5)
    thirds = [Triggers(tiny, [1], k=5) for _ in range(3)]

    class Dealing(Everything):
        n = 0

        def update(self, seen: Observation) -> None:
            if seen.layer == 1:
                thirds[self.n % 3].update(seen)
                self.n += 1

    stream.run(tiny, corpus, {"w": whole, "d": Dealing()}, SMALL)
    one, two = Triggers(tiny, [1], k=5), Triggers(tiny, [1], k=5)
    for made, order in ((one, (0, 1, 2)), (two, (2, 0, 1))):
        for i in order:
            made.merge(thirds[i])
    assert_frame_equal(one.tables().triggers, whole.tables().triggers)
    assert_frame_equal(two.tables().triggers, whole.tables().triggers)
    fresh = Triggers(tiny, [1], k=5)
    fresh.restore(whole.state())
    assert_frame_equal(fresh.tables().triggers, whole.tables().triggers)


def test_of_equal_activations_the_earliest_are_kept(tiny: LanguageModel, corpus: Corpus) -> None:
    """Ties are what bfloat16 is full of; with all activations equal the triggers are the first tokens of the text."""
    oracle = Remembering()
    kept = Triggers(tiny, [0], k=4)
    with tiny.edited({(0, "neurons"): torch.ones_like}):
        stream.run(tiny, corpus, {"t": kept, "o": oracle}, SMALL)
    first = sorted((d << 32) + p for d, p, _, _ in oracle.rows(0))[:4]
    table = kept.tables().triggers
    assert set(table["sign"]) == {"+"}, "an activation of zero or of the other sign is no trigger"
    assert all(part["place"].tolist() == first for _, part in table.groupby("neuron"))


def test_memory_does_not_grow_with_tokens(tiny: LanguageModel, corpus: Corpus) -> None:
    sizes = []
    for n in (150, 600):
        kept = Triggers(tiny, [0, 1, 2], k=3)
        stream.run(tiny, corpus, {"t": kept}, SMALL.model_copy(update={"n_tokens": n}))
        sizes.append(sum(a.nbytes for a in kept.state().values()))
    assert sizes[0] == sizes[1] == 3 * 2 * 64 * 3 * 20


def test_contexts_are_the_text_itself(
    tiny: LanguageModel, corpus: Corpus, streamed: tuple[Triggers, Remembering]
) -> None:
    rows = streamed[0].tables().triggers
    text = contexts(corpus, tiny.tokenizer, rows["place"], window=32, before=5, after=3)
    assert set(text["place"]) == set(rows["place"]) and not text["place"].duplicated().any()
    documents = {d.document: d for d in corpus.tokenize(tiny.tokenizer)}
    whole = 0
    for row in text.itertuples():
        pieces = documents[row.document].text
        begin = max(row.position - 5, row.position // 31 * 31)
        assert row.token == pieces[row.position]
        before, after = "".join(pieces[begin : row.position]), "".join(pieces[row.position + 1 : row.position + 4])
        if (before + after).isascii():  # two tokens of one letter are both that letter
            assert (row.before, row.after) == (before, after)
            whole += 1
        assert row.next_token == pieces[row.position + 1]
    assert whole > 50
    next_ids = rows.merge(text, on="place")
    decoded = [tiny.tokenizer.decode([i]).replace("Ġ", " ") for i in next_ids["next_id"]]
    plain = [(a, b) for a, b in zip(decoded, next_ids["next_token"], strict=True) if a.isascii()]
    assert len(plain) > 100 and all(a == b for a, b in plain)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_value_vectors_are_the_columns_of_the_down_projection(tokenizer: Any, dtype: str) -> None:
    model = open_model(tiny_hf(), tokenizer=tokenizer, dtype=dtype)
    down = model.plain_weights()["model.layers.1.mlp.down_proj.weight"]
    assert torch.equal(value_vectors(model, 1), down.float().T)
    with_bias = open_model(tiny_hf("gpt_neox"), tokenizer=tokenizer)
    weights = with_bias.plain_weights()
    with torch.no_grad():
        weights["gpt_neox.layers.1.mlp.dense_4h_to_h.bias"].fill_(3.0)
    wanted = weights["gpt_neox.layers.1.mlp.dense_4h_to_h.weight"].T
    torch.testing.assert_close(value_vectors(with_bias, 1), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "norm", "centres"), [("llama", "model.norm", False), ("gpt_neox", "gpt_neox.final_layer_norm", True)]
)
def test_the_final_norm_is_read_from_what_it_does(tokenizer: Any, kind: str, norm: str, centres: bool) -> None:
    hf = tiny_hf(kind)
    gain = torch.rand(32, generator=torch.Generator().manual_seed(1)) + 0.5
    with torch.no_grad():
        hf.get_submodule(norm).weight.copy_(gain)
        if centres:
            hf.get_submodule(norm).bias.fill_(2.0)
    model = open_model(hf, tokenizer=tokenizer)
    found, subtracts = final_norm(model)
    torch.testing.assert_close(found, gain, rtol=1e-4, atol=1e-5)
    assert subtracts is centres


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_values_rank_tokens_as_the_model_itself_would(tokenizer: Any, kind: str) -> None:
    """The readout orders tokens as the real final norm and unembedding order them, given the value alone."""
    hf = tiny_hf(kind)
    model = open_model(hf, tokenizer=tokenizer)
    values = value_vectors(model, 0)[:20] * 100  # large enough for the norm's epsilon not to matter
    with model.edited({(model.n_layers - 1, "block_output"): lambda t: values[None]}):
        logits = model.hf(input_ids=torch.zeros(1, 1, dtype=torch.long), use_cache=False).logits[0]
    most, least = extremes(values, readout(model))
    assert torch.equal(most, logits.argmax(dim=1)) and torch.equal(least, logits.argmin(dim=1))
    ids, scores = top_tokens(values, readout(model), 5)
    assert torch.equal(ids, logits.topk(5, dim=1).indices)
    standard = (logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True)
    torch.testing.assert_close(scores, standard.topk(5, dim=1).values, rtol=1e-3, atol=1e-3)


def test_agreement_has_its_closed_forms() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 5, 400)
    found = memory.agreement(ids, ids)
    assert found["rate"] == 1 and found["p_value"] == pytest.approx(1 / 1000) and found["n_agree"] == 400
    pairings = np.mean([[a == b for b in ids] for a in ids])
    assert found["chance"] == pytest.approx(pairings)
    apart = memory.agreement(np.zeros(10, dtype=int), np.ones(10, dtype=int))
    assert apart["rate"] == 0 and apart["chance"] == 0 and apart["p_value"] == 1
    z = 1.959964
    assert apart["high"] == pytest.approx(z**2 / (10 + z**2), rel=1e-4), "Wilson's interval at 0 of n"
    assert math.isnan(memory.agreement(np.array([], dtype=int), np.array([], dtype=int))["rate"])


def test_unrelated_lists_agree_as_often_as_chance() -> None:
    """Uneven token counts, no relation: p-values are not small more often than they may be, and rates match chance."""
    rng = np.random.default_rng(1)
    law = np.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    found = [memory.agreement(*rng.choice(6, (2, 300), p=law), seed=i) for i in range(60)]
    assert np.mean([f["p_value"] <= 0.05 for f in found]) <= 0.15
    assert np.mean([f["rate"] - f["chance"] for f in found]) == pytest.approx(0, abs=0.01)


@pytest.fixture
def planted(tokenizer: Any, corpus: Corpus) -> tuple[LanguageModel, dict[int, int]]:
    """A model whose neurons 3, 4 and 5 of layer 1 write the very token that follows their strongest trigger."""
    model = open_model(tiny_hf(), tokenizer=tokenizer)
    first = memory.measure(model, corpus, 600, layers=[1], neurons=[3], controls=(), config=SMALL)
    triggers = Triggers(model, [1])
    stream.run(model, corpus, {"t": triggers}, SMALL)
    table = triggers.tables().triggers.query("sign == '+' and rank == 0").set_index("neuron")["next_id"]
    assert len(first.memory_neurons) <= 128
    hf = tiny_hf()
    said = {neuron: int(table[neuron]) for neuron in (3, 4, 5)}
    with torch.no_grad():
        for neuron, token in said.items():
            row = hf.lm_head.weight[token]
            hf.model.layers[1].mlp.down_proj.weight[:, neuron] = row / row.norm()
    return open_model(hf, tokenizer=tokenizer), said


def test_planted_memories_are_found(planted: tuple[LanguageModel, dict[int, int]], corpus: Corpus) -> None:
    model, said = planted
    found = memory.measure(model, corpus, 600, layers=[1], neurons=2, config=SMALL)
    plus = found.memory_neurons.query("sign == '+'").set_index("neuron")
    assert plus.loc[list(said), "agrees"].all() and plus.loc[list(said), "card"].all()
    assert plus.loc[3, "value_token"] == model.tokenizer.decode([said[3]])
    cards = set(found.memory_neurons.query("card")["neuron"])
    assert set(found.memory_triggers["neuron"]) == cards == set(found.memory_values["neuron"])
    best = found.memory_values.query("neuron == 4 and sign == '+' and rank == 1").iloc[0]
    assert best["token"] == model.tokenizer.decode([said[4]])
    assert best["score"] == found.memory_values.query("neuron == 4 and sign == '+'")["score"].max()
    rates = found.memory_agreement.set_index(["condition", "sign"])
    assert set(rates.index.get_level_values(0)) == {"real", "random_init"}
    assert rates.loc[("real", "+"), "n_agree"] >= 3
    assert rates.loc[("real", "+"), "n_agree"] == plus["agrees"].sum()
    assert (found.memory_agreement["n_tokens"] == 600).all()


def test_frequency_is_the_share_of_ordinary_tokens_with_an_open_gate(tiny: LanguageModel, corpus: Corpus) -> None:
    oracle = Everything()
    stream.run(tiny, corpus, {"o": oracle}, SMALL)
    found = memory.measure(tiny, corpus, 600, layers=[2], controls=(), config=SMALL).memory_neurons
    fires = (oracle.of(2, "gate") > 0).double().mean(0).numpy()
    for row in found.itertuples():
        assert row.frequency == pytest.approx(fires[row.neuron])


def test_a_cancelled_measurement_resumes_to_the_same_tables(
    tiny: LanguageModel, corpus: Corpus, tmp_path: Path
) -> None:
    whole = memory.measure(tiny, corpus, 600, neurons=2, config=SMALL)
    run = runs.create("cut", {"n": 600}, kind="test", root_folder=tmp_path)
    calls, seen = 0, set()

    def stop(done: float, total: float, note: str = "") -> None:
        nonlocal calls
        calls += 1
        seen.update(run.table_names())
        assert 0 <= done <= total
        if calls in (7, 15, 24):
            raise Cancelled

    finished = None
    for _ in range(4):
        try:
            finished = memory.measure(tiny, corpus, 600, neurons=2, config=SMALL, run=run, progress=stop)
        except Cancelled:
            continue
    assert finished is not None and calls > 24
    assert {"memory_agreement", "memory_triggers"} <= seen, "tables of whole shards are there before the end"
    for name, frame in whole.items():
        assert_frame_equal(finished[name], frame, check_exact=True)
        assert_frame_equal(run.table(name), DataFrame(frame), check_exact=True)


def test_what_cannot_be_measured_is_said_in_one_sentence(tiny: LanguageModel, corpus: Corpus) -> None:
    for wrong, says in (
        ({"layers": [7]}, r"layers \[7\] are not all dense layers"),
        ({"neurons": [64]}, "numbers in 0..63"),
        ({"neurons": 0}, "at least 1"),
        ({"controls": ("gaussian",)}, "'gaussian' is not a control"),
        ({"k": 0}, "choose at least 1"),
    ):
        with pytest.raises(ValueError, match=says):
            memory.measure(tiny, corpus, 100, config=SMALL, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no dense feed-forward block"):
        memory.measure(open_model(tiny_hf("olmoe", num_experts=4), tokenizer=tiny.tokenizer), corpus, 100)
    with pytest.raises(ValueError, match="without a tokenizer"):
        memory.measure(open_model(tiny_hf()), corpus, 100)
