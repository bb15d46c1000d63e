import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal

from data import Cancelled, runs
from data.corpus import Corpus
from data.tables import Tables
from probes import LanguageModel, shards, sparsity, stream
from probes.firing import Concentration, Firing, InputMoments, SinkCount, Sums, interval
from probes.sinks import FIRST, SINK, find_sinks
from probes.stream import Observation, StreamConfig
from tests.probes.oracle import Everything

SMALL = StreamConfig(n_tokens=600, window=32, batch_tokens=128, shard_tokens=150)


def test_every_token_is_seen_once_in_every_layer(tiny: LanguageModel, corpus: Corpus) -> None:
    seen = Everything()
    passed = stream.run(tiny, corpus, {"all": seen}, SMALL)
    assert passed.n_tokens == 600
    wanted = list(corpus.tokenize(tiny.tokenizer, n_tokens=600, tokens_per_document=1023))
    assert passed.n_documents == len(wanted)
    for layer in range(tiny.n_layers):
        of_layer = [s for s in seen.seen if s.layer == layer]
        read = [t for s in of_layer for w in s.tokens.windows for t in w.token_ids[1:].tolist()]
        assert sorted(read) == sorted(np.concatenate([d.token_ids for d in wanted]).tolist())
        assert all(len(s.tokens) == len(s.group) == len(s.sites["gate"]) for s in of_layer)


def test_shards_cut_ahead_come_in_order_and_a_failure_comes_in_its_place() -> None:
    def cut() -> Any:
        yield from ([number] for number in range(5))
        raise ValueError("no more text")

    coming = shards.ahead(cut())  # type: ignore[arg-type]
    assert [next(coming) for _ in range(5)] == [[0], [1], [2], [3], [4]]
    with pytest.raises(ValueError, match="no more text"):
        next(coming)


def test_padding_changes_nothing(tiny: LanguageModel, corpus: Corpus) -> None:
    """A short window read in one batch with long ones gives what it gives alone."""
    together, alone = Everything(), Everything()
    stream.run(tiny, corpus, {"x": together}, SMALL.model_copy(update={"batch_tokens": 10_000}))
    stream.run(tiny, corpus, {"x": alone}, SMALL.model_copy(update={"batch_tokens": 1}))
    for layer in range(tiny.n_layers):
        a, b = together.of(layer, "neurons"), alone.of(layer, "neurons")
        assert a.shape == b.shape
        torch.testing.assert_close(a.sum(0), b.sum(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a.square().sum(0), b.square().sum(0), rtol=1e-4, atol=1e-6)


def test_accumulators_agree_with_everything_kept_in_memory(tiny: LanguageModel, corpus: Corpus) -> None:
    oracle, firing, moments = Everything(), Firing(tiny), InputMoments(tiny, stride=1)
    shape, sinks = Concentration(tiny, stride=1), SinkCount(tiny)
    parts = {"o": oracle, "f": firing, "m": moments, "c": shape, "s": sinks}
    stream.run(tiny, corpus, parts, SMALL)
    neurons, layers = firing.tables().neurons, firing.tables().layers
    for layer in range(tiny.n_layers):
        fires = (oracle.of(layer, "gate") > 0).double()
        mine = neurons[neurons.layer == layer].frequency.to_numpy()
        np.testing.assert_allclose(mine, fires.mean(0).numpy())
        row = layers[(layers.layer == layer) & (layers.sinks == "without")].iloc[0]
        assert row.value == pytest.approx(float(fires.mean())) and row.n_tokens == len(fires)
        assert row.low <= row.value <= row.high
        x = oracle.of(layer, "ffn_input").double()
        mean, covariance, count = moments.moments(layer)
        assert count == len(x)
        torch.testing.assert_close(mean, x.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(covariance, x.T.cov(correction=0), rtol=1e-3, atol=1e-5)
        z = oracle.of(layer, "neurons")
        table = shape.tables().layers.query("layer == @layer and sinks == 'without'").set_index("measure").value
        for name, value in sparsity.describe(z).items():
            assert table[name] == pytest.approx(value, rel=1e-5)
    assert (sinks.tables().sinks.n_tokens == len(torch.cat([s.group for s in oracle.seen if s.layer == 0]))).all()


def test_merging_two_halves_gives_the_whole(tiny: LanguageModel, corpus: Corpus) -> None:
    whole, halves = Firing(tiny), (Firing(tiny), Firing(tiny))
    turn: list[int] = []

    class Alternating(Everything):
        def update(self, seen: Observation) -> None:
            if seen.layer == 0:
                turn.append(len(turn) % 2)
            halves[turn[-1]].update(seen)

    stream.run(tiny, corpus, {"whole": whole, "halves": Alternating()}, SMALL)
    assert set(turn) == {0, 1}
    halves[0].merge(halves[1])
    for name, frame in whole.tables().items():
        assert_frame_equal(halves[0].tables()[name], frame)


def test_sinks_are_told_from_ordinary_tokens() -> None:
    output = torch.ones(50, 4)
    output[[0, 2, 17]] *= 1000.0
    position = torch.arange(50) % 25
    energy, group = find_sinks(output, position, first_positions=4, ratio=100.0)
    assert energy[17] == 4e6
    assert group[17] == SINK and (group == SINK).sum() == 1
    assert (group[position < 4] == FIRST).all() and (group == FIRST).sum() == 8


def test_a_planted_sink_is_counted_and_left_out(tiny: LanguageModel, corpus: Corpus) -> None:
    def spike(y: torch.Tensor) -> torch.Tensor:
        return torch.cat([y[:, :10], y[:, 10:11] * 1e3, y[:, 11:]], dim=1)

    counted = SinkCount(tiny)
    with tiny.edited({(1, "ffn_output"): spike}):
        stream.run(tiny, corpus, {"s": counted}, SMALL)
    table = counted.tables().sinks.set_index("layer")
    windows = sum(len(d) // 31 + (len(d) % 31 >= 10) for d in corpus.tokenize(tiny.tokenizer, n_tokens=600))
    assert table.n_sinks[1] == windows and table.energy_share[1] > 0.99
    assert table.n_sinks[0] == 0


def test_intervals_cover_the_mean_of_blocks() -> None:
    """With 40 blocks of known spread, a 95% interval holds the truth in about 95% of draws."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        sums, counts = np.zeros(64), np.zeros(64)
        counts[:40] = 10
        sums[:40] = 10 * rng.normal(0.3, 0.1, 40)
        low, high = interval(sums, counts)
        hits += low <= 0.3 <= high
    assert 0.90 <= hits / 300 <= 0.98
    assert np.isnan(interval(np.array([1.0]), np.array([2.0]))).all()


def test_a_cancelled_pass_resumes_to_the_same_tables(tiny: LanguageModel, corpus: Corpus, tmp_path: Path) -> None:
    whole = sparsity.measure(tiny, corpus, 600, config=SMALL)
    run = runs.create("cut", {"n": 600}, kind="test", root_folder=tmp_path)
    calls = 0

    def stop(done: float, total: float, note: str = "") -> None:
        nonlocal calls
        calls += 1
        if calls in (4, 9, 15):
            raise Cancelled

    finished = None
    for _ in range(4):
        try:
            finished = sparsity.measure(tiny, corpus, 600, config=SMALL, run=run, progress=stop)
        except Cancelled:
            assert run.table_names(), "tables of whole shards are there already"
    assert finished is not None and calls > 15
    for name, frame in whole.items():
        assert_frame_equal(finished[name], frame, check_exact=True)
        assert_frame_equal(run.table(name), frame, check_exact=True)


KILLED = """
    import sys, time, torch
    from pathlib import Path
    sys.path.insert(0, {here!r})
    from tests.probes.tiny import tiny_hf
    from transformers import AutoTokenizer
    from data import runs
    from data.corpus import open_corpus
    from probes import open_model, sparsity
    from probes.stream import StreamConfig

    model = open_model(tiny_hf(), tokenizer=AutoTokenizer.from_pretrained({tokenizer!r}))
    run = runs.create("killed", {{"n": 600}}, kind="test", root_folder=Path({root!r}))
    config = StreamConfig(n_tokens=600, window=32, batch_tokens=128, shard_tokens=150)
    slow = lambda *_: time.sleep(0.15)
    sparsity.measure(model, open_corpus({corpus!r}), 600, config=config, run=run, progress=slow)
"""


def test_a_killed_process_resumes_to_the_same_tables(
    tiny: LanguageModel, corpus: Corpus, tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    texts = tmp_path / "text"
    texts.mkdir()
    for document in corpus:
        (texts / Path(document.name).name).write_text(document.text, encoding="utf-8")
    places = {"tokenizer": str(tmp_path / "tokenizer"), "root": str(tmp_path), "corpus": str(texts)}
    script = textwrap.dedent(KILLED.format(here=str(Path(__file__).parents[2]), **places))
    process = subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"OMP_NUM_THREADS": "1"})
    state = tmp_path / "killed" / "random_init.safetensors"
    for _ in range(1200):
        if state.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was killed in the middle, not finished"
    run = runs.open_run("killed", tmp_path)
    from data.corpus import open_corpus

    resumed = sparsity.measure(tiny, open_corpus(texts), 600, config=SMALL, run=run)
    whole = sparsity.measure(tiny, open_corpus(texts), 600, config=SMALL)
    for name, frame in whole.items():
        assert_frame_equal(resumed[name], frame, check_exact=True)


def test_sums_on_the_processor_are_there_at_once_and_smaller_ones_go_to_the_beginning() -> None:
    class Plain(Sums):
        def update(self, seen: Observation) -> None: ...

        def tables(self) -> Tables:
            return Tables()

    found = Plain(x=np.zeros((2, 3, 2), dtype=np.int64))
    held = found.arrays["x"]
    found.add("x", 1, torch.ones(3, 2))
    found.add("x", 1, torch.full((2, 2), 4.0))
    assert held[0].sum() == 0 and held[1].tolist() == [[5, 5], [5, 5], [1, 1]]
