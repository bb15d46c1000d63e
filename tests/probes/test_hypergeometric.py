"""Both hypergeometric tails against exact fractions, and what holds of them whatever the numbers."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy import stats

from probes.hypergeometric import tails


def test_every_count_of_small_urns_is_exact() -> None:
    for total, marked, drawn in ((1, 1, 1), (7, 3, 4), (9, 0, 5), (12, 12, 3), (40, 17, 0), (60, 25, 33)):
        counts = np.arange(-1, total + 2)
        exact = [Fraction(_ways(total, marked, drawn, int(k)), comb(total, drawn)) for k in counts]
        at_least, at_most = tails(counts, total, np.array(marked), np.array(drawn))
        np.testing.assert_allclose(at_most, np.cumsum(exact).astype(float), rtol=1e-13, atol=0)
        np.testing.assert_allclose(at_least, np.cumsum(exact[::-1])[::-1].astype(float), rtol=1e-13, atol=0)


def _ways(total: int, marked: int, drawn: int, k: int) -> int:
    return comb(marked, k) * comb(total - marked, drawn - k) if 0 <= k <= drawn else 0


def test_far_tails_keep_their_digits() -> None:
    total, marked, drawn = 5_000, 600, 900
    counts = np.array([0, 20, 60, 108, 160, 300, 600])
    for k, more, fewer in zip(counts, *tails(counts, total, np.array(marked), np.array(drawn)), strict=True):
        exact = sum(_ways(total, marked, drawn, j) for j in range(k, 601))
        assert more == pytest.approx(float(Fraction(exact, comb(total, drawn))), rel=1e-12, abs=0)
        exact = sum(_ways(total, marked, drawn, j) for j in range(int(k) + 1))
        assert fewer == pytest.approx(float(Fraction(exact, comb(total, drawn))), rel=1e-12, abs=0)


def test_millions_of_tokens_agree_with_scipy_and_the_tails_share_one_term() -> None:
    total, marked, drawn = 8_000_000, np.array([1_000, 300_000])[:, None], np.array([50, 20_000, 400_000])[None, :]
    mean = marked * drawn / total
    count = np.floor(mean + 3 * np.sqrt(mean))
    at_least, at_most = tails(count, total, marked, drawn)
    assert at_least.shape == (2, 3)
    np.testing.assert_allclose(at_least, stats.hypergeom.sf(count - 1, total, marked, drawn), rtol=1e-8)
    np.testing.assert_allclose(at_least + at_most - 1, stats.hypergeom.pmf(count, total, marked, drawn), rtol=1e-8)


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="more tokens are marked or drawn"):
        tails(np.array([1]), 10, np.array([11]), np.array([3]))
