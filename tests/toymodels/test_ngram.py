from collections import Counter, defaultdict

import numpy as np
import pytest

from toymodels.ngram import KneserNey


def slow(text: list[int], vocab_size: int, order: int, history: tuple[int, ...], token: int) -> float:
    """The definition, by dictionaries and recursion."""
    runs = {n: Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1)) for n in range(1, order + 1)}
    counts = {order: runs[order]}
    for n in range(order - 1, 0, -1):
        before = defaultdict(set)
        for run in runs[n + 1]:
            before[run[1:]].add(run[0])
        counts[n] = Counter({run: len(b) for run, b in before.items()})

    def p(h: tuple[int, ...]) -> float:
        n = len(h) + 1
        shorter = p(h[1:]) if h else 1 / vocab_size
        after = {run: c for run, c in counts[n].items() if run[:-1] == h}
        if not after:
            return shorter
        once, twice = (sum(1 for c in counts[n].values() if c == times) for times in (1, 2))
        discount = once / (once + 2 * twice) if once else 0.5
        total = sum(after.values())
        own = max(after.get((*h, token), 0) - discount, 0) / total
        return own + discount * len(after) / total * shorter

    return p(history)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_each_probability_is_that_of_the_definition(order: int) -> None:
    rng = np.random.default_rng(order)
    text, row = rng.integers(0, 6, 200) ** 2 // 6, rng.integers(0, 6, 12)
    found = KneserNey(text, 6, order).loss(row[None])[0]
    wanted = [slow(text.tolist(), 6, order, tuple(row[max(0, i - order + 1) : i]), int(row[i])) for i in range(1, 12)]
    np.testing.assert_allclose(np.exp(-found), wanted, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_after_a_history_sum_to_one(order: int) -> None:
    text = np.random.default_rng(0).zipf(1.5, 3_000) % 30
    model = KneserNey(text, 30, order)
    rows = np.array([[3, 1, 2, token] for token in range(30)])
    assert np.exp(-model.loss(rows)[:, -1]).sum() == pytest.approx(1, abs=1e-12)


def test_a_repeated_text_is_foretold_and_a_random_one_costs_its_entropy() -> None:
    again = np.tile(np.arange(10), 200)
    assert KneserNey(again, 10, 3).loss(again[None, :50])[0, 2:].max() < 0.02
    rng = np.random.default_rng(1)
    fair = KneserNey(rng.integers(0, 4, 100_000), 4, 2).loss(rng.integers(0, 4, (1, 10_000))).mean()
    assert fair == pytest.approx(np.log(4), abs=0.01)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match="choose a lower order"):
        KneserNey(np.arange(10), 50_000, 5)
    with pytest.raises(ValueError, match="give more text"):
        KneserNey(np.arange(3), 10, 5)
