import itertools
from typing import Any

import numpy as np
import pytest
import torch
from pandas import DataFrame
from pandas.testing import assert_frame_equal
from scipy import stats

from data.corpus import Corpus
from data.wordclass import Words
from probes import LanguageModel, associations, kinds, open_model, sparsity, stream
from probes.associations import Text
from probes.contexts import CLASSES, Contexts, position_bins, position_label
from probes.firing import Firing
from probes.stream import StreamConfig
from tests.probes.oracle import Everything
from tests.probes.tiny import tiny_hf

SMALL = StreamConfig(n_tokens=600, window=32, batch_tokens=128, shard_tokens=150)


class ByLength:
    """Words of white-space-separated text: NOUN if longer than four letters, else ADP."""

    name = "by-length-1"

    def tag(self, texts: Any) -> list[Words]:
        found = []
        for text in texts:
            rows, at = [], 0
            for word in text.split():
                at = text.index(word, at)
                rows.append((at, at + len(word), "NOUN" if len(word) > 4 else "ADP", "", 0))
                at += len(word)
            found.append(Words.of(rows))
        return found


def a_text(seed: int, n_types: int = 400, n_tokens: int = 12_000) -> tuple[Text, np.ndarray]:
    """Types with Zipf frequencies, each mostly of one of four classes; the word class of each token of each type."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(3, n_types + 3)
    types = rng.choice(n_types, n_tokens, p=weights / weights.sum())
    home = rng.integers(0, 4, n_types)
    classes = np.where(rng.random(n_tokens) < 0.9, home[types], rng.integers(0, 4, n_tokens))
    counts = np.zeros((n_types, 4), dtype=np.int64)
    np.add.at(counts, (types, classes), 1)
    return Text(counts), home


def fire(text: Text, rates: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Firings by type and by class of one neuron that fires on each (type, class) at its rate."""
    fired = rng.binomial(text.counts, rates)
    return fired.sum(axis=1), fired.sum(axis=0)


def claims(text: Text, neurons: list[tuple[np.ndarray, np.ndarray]]) -> DataFrame:
    tests = associations.associate(text, np.stack([n[0] for n in neurons], 1), np.stack([n[1] for n in neurons], 1))
    tests["q"] = associations.false_discovery(tests["p"].to_numpy())
    return tests[tests["q"] <= kinds.FDR]


def test_kinds_have_their_edges() -> None:
    frequency = np.array([0, 0.0009, 0.001, 0.05, 0.0501, 0.3, 0.301, 0.5, 0.501, 1.0])
    assert kinds.kind_of(frequency).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    frame = DataFrame({"condition": "real", "layer": 3, "neuron": range(10), "frequency": frequency, "n_tokens": 9})
    shares = kinds.bands(frame).set_index("kind")["share"]
    assert shares.to_dict() == dict.fromkeys(kinds.BANDS, 0.2)
    ranked = kinds.spectrum(frame)
    assert ranked["frequency"].is_monotonic_decreasing and ranked["rank"].tolist() == list(range(1, 11))
    assert ranked["neuron"].iloc[0] == 9


def test_kinds_of_layers_agree_with_frequencies(tiny: LanguageModel, corpus: Corpus) -> None:
    found = sparsity.measure(tiny, corpus, 600, config=SMALL, controls=("random_init",), tagger=ByLength())
    mine = found.kinds.set_index(["condition", "layer", "kind"])
    for row in kinds.bands(found.neurons).itertuples():
        assert mine.share[row.condition, row.layer, row.kind] == pytest.approx(row.share)
    assert (mine.low <= mine.share).all() and (mine.share <= mine.high).all()
    assert set(found.word_classes.word_class) <= set(CLASSES) and {"NOUN", "ADP"} <= set(found.word_classes.word_class)


def test_frequencies_by_class_and_position_agree_with_everything_kept(tiny: LanguageModel, corpus: Corpus) -> None:
    firing = Firing(tiny)
    oracle, mine, beside = Everything(), Contexts(tiny), Contexts(tiny, firing)
    parts = {"o": oracle, "m": mine, "f": firing, "b": beside}
    stream.run(tiny, corpus, parts, SMALL, tagger=ByLength())
    found = mine.tables()
    for name, frame in beside.tables().items():
        assert_frame_equal(frame, found[name])
    for layer in range(tiny.n_layers):
        seen = [s for s in oracle.seen if s.layer == layer]
        share = torch.cat([(s.sites["gate"] > 0).double().mean(1) for s in seen])
        kept = torch.cat([s.group for s in seen]) == 0
        names = np.array([c for s in seen for w in s.tokens.windows for c in w.word_class])
        position = torch.cat([s.tokens.position for s in seen])
        for row in found.word_classes.query("layer == @layer").itertuples():
            inside = kept.numpy() & (names == row.word_class)
            assert row.n_tokens == inside.sum() and row.frequency == pytest.approx(float(share[inside].mean()))
        table = found.positions.query("layer == @layer").set_index("position")
        assert table.frequency["2"] == pytest.approx(float(share[position == 2].mean()))
        inside = (position >= 8) & (position < 16)
        assert table.frequency["8-15"] == pytest.approx(float(share[inside].mean()))
        assert table.n_tokens.sum() == len(share)


def test_positions_fall_into_their_octaves() -> None:
    position = torch.tensor([0, 3, 4, 7, 8, 255, 256])
    assert [position_label(int(b)) for b in position_bins(position)] == [
        *("0", "3", "4-7", "4-7", "8-15", "128-255", "256-511")
    ]


def test_frequency_bins_hold_twenty_types_of_like_frequency() -> None:
    text, _ = a_text(0)
    n = text.occurrences
    bins = associations.frequency_bins(n)
    sizes = np.bincount(bins[bins >= 0])
    assert (sizes >= 20).all() and (bins[n == 0] == -1).all()
    edges = [(n[bins == b].min(), n[bins == b].max()) for b in range(len(sizes))]
    assert all(upper[0] > lower[1] for upper, lower in itertools.pairwise(edges)), "bins do not overlap"
    assert set(associations.frequency_bins(np.array([5, 9, 0]))) == {0, -1}


def test_permutation_moments_agree_with_permutations() -> None:
    rng = np.random.default_rng(1)
    text, _ = a_text(1, n_types=120, n_tokens=3000)
    excess = rng.gamma(0.5, 3, (120, 2)) * text.occurrences[:, None] ** 0.5
    bins = associations.frequency_bins(text.occurrences)
    found = associations.type_moments(excess, text.profiles, bins)
    drawn = []
    for _ in range(20_000):
        order = np.arange(120)
        for b in range(bins.max() + 1):
            inside = np.flatnonzero(bins == b)
            order[inside] = rng.permutation(inside)
        order = order[bins >= 0]
        drawn.append(text.profiles[order].T @ excess[bins >= 0])
    draws = np.array(drawn)
    spread = draws.std(axis=0)
    np.testing.assert_allclose(found.mean, draws.mean(axis=0), atol=4 * spread.max() / 141)
    np.testing.assert_allclose(found.variance, draws.var(axis=0), rtol=0.06)
    np.testing.assert_allclose(found.third / spread**3, stats.skew(draws), atol=0.1)
    # the tail law, at a point that 1% of permutations exceed: right or cautious
    point = found._replace(observed=np.quantile(draws, 0.99, axis=0))
    assert (point.tail() > 0.007).all() and (point.tail() < 0.025).all()


def test_label_null_is_what_exchanging_labels_gives() -> None:
    rng = np.random.default_rng(2)
    labels, fires = np.repeat([0, 1], [60, 140]), rng.random(200) < 0.2
    draws = np.array([fires[rng.permutation(200) < 60].sum() for _ in range(20_000)])
    for seen in (10, 14, 18):
        p = associations.label_null(np.array([[seen], [0]]), np.bincount(labels), np.array([fires.sum()]))[0, 0]
        assert p == pytest.approx((draws >= seen).mean(), abs=0.01)


def test_a_planted_neuron_is_found_and_nothing_else() -> None:
    """One neuron fires on class 2; twenty fire on arbitrary types, which alone would pass the label null."""
    rng = np.random.default_rng(3)
    text, _ = a_text(3)
    planted = fire(text, np.where(np.arange(4) == 2, 0.4, 0.05), rng)
    by_type = [fire(text, rng.choice([0.02, 0.5], (400, 1), p=[0.8, 0.2]), rng) for _ in range(20)]
    found = claims(text, [planted, *by_type])
    assert found[["neuron", "word_class"]].to_numpy().tolist() == [[0, 2]]
    assert found["rate"].iloc[0] == pytest.approx(0.4, abs=0.05) and found["elsewhere"].iloc[0] < 0.1
    tests = associations.associate(text, np.stack([n[0] for n in by_type], 1), np.stack([n[1] for n in by_type], 1))
    assert (tests["p_label"] < 1e-4).mean() > 0.1, "the label null alone would claim many of them"


@pytest.mark.parametrize("driven_by", ["nothing", "types"])
def test_shuffled_neurons_are_claimed_in_at_most_five_percent_of_draws(driven_by: str) -> None:
    rng = np.random.default_rng(4)
    false = 0
    for draw in range(200):
        text, _ = a_text(100 + draw, n_types=200, n_tokens=4_000)
        rates = (
            rng.choice([0.02, 0.4], (4, 200, 1), p=[0.8, 0.2]) if driven_by == "types" else np.full((4, 200, 1), 0.1)
        )
        false += len(claims(text, [fire(text, rate, rng) for rate in rates])) > 0
    assert false / 200 <= 0.05


def test_untestable_tokens_are_counted() -> None:
    counts = np.zeros((41, 2), dtype=np.int64)
    counts[:40, 0] = 4  # forty like types of the first class only: exchanging them changes nothing
    counts[40, 1] = 1000  # one type holds the second class
    lonely, stuck = associations.untestable(Text(counts))
    assert lonely.tolist() == [0, 1] and stuck.tolist() == [0, 0]
    assert associations.untestable(Text(counts[:40]))[1].tolist() == [1, 0]


def test_favourite_tokens_are_those_surely_fired_on() -> None:
    seen = np.array([1, 100, 100])
    fired = np.array([[1, 0], [90, 0], [10, 0]])
    rows = associations.favourite_types(seen, fired)
    assert rows["type"].tolist() == [1, 0, 2] and (rows["neuron"] == 0).all()
    assert rows["rate"].tolist() == [0.9, 1.0, 0.1]


def test_a_neuron_planted_in_a_model_is_found_by_the_whole_measurement(corpus: Corpus, tokenizer: Any) -> None:
    """A neuron whose gate follows the word class is claimed in the model, and not with random weights."""
    model = open_model(tiny_hf(), tokenizer=tokenizer)
    long_words = {
        t
        for d in corpus.tokenize(tokenizer, n_tokens=1500, tokens_per_document=1023, tagger=ByLength())
        for t, c in zip(d.token_ids.tolist(), d.word_class, strict=True)
        if c == "NOUN"
    }
    wanted = torch.tensor([t in long_words for t in range(300)])
    ids: list[torch.Tensor] = []
    base = model.hf.base_model
    handle = base.register_forward_pre_hook(lambda m, a, k: ids.append(k["input_ids"]), with_kwargs=True)
    try:

        def follow(gate: torch.Tensor) -> torch.Tensor:
            gate = gate.clone()
            gate[..., 5] = torch.where(wanted[ids[-1]] & (torch.arange(gate.shape[1]) % 3 == 0), 1.0, -1.0)
            return gate

        with model.edited({(1, "gate"): follow}):
            found = kinds.measure(model, corpus, 1500, tagger=ByLength(), layers=[1], config=SMALL)
    finally:
        handle.remove()
    classes = found.neuron_classes
    kept = found.neuron_tokens.query("neuron == 5")
    assert len(kept) and kept["kind"].iloc[0] == "specialised"
    five = classes[(classes["condition"] == "real") & (classes["neuron"] == 5)]
    assert five["word_class"].tolist() == ["NOUN"] and (five["low"] > five["elsewhere"]).all()
    assert set(found.class_summary["condition"]) == {"real", "random_init", "exchanged"}
    assert len(found.neuron_tokens) and found.untestable["lonely"].between(0, 1).all()


def test_untagged_text_is_refused(tiny: LanguageModel, corpus: Corpus) -> None:
    class Silent:
        name = "silent"

        def tag(self, texts: Any) -> list[Words]:
            return [Words.of([]) for _ in texts]

    with pytest.raises(ValueError, match="no dense feed-forward"):
        kinds.measure(open_model(tiny_hf("olmoe", num_experts=4)), corpus, 100, tagger=ByLength())
