import numpy as np
import pytest
from scipy import stats

from toymodels import counter


def integers(seed: int, stream: int, step: int, size: int = 1 << 16) -> np.ndarray:
    return counter.Draws(1, 1, size).integers(counter.keys(seed, stream, step, step + 1))[0, 0].copy()


def test_every_byte_of_the_bits_is_uniform() -> None:
    words = np.concatenate([integers(seed, 0, step) for seed in range(4) for step in range(8)]).view(np.uint32)
    for shift in (8, 16, 24):
        counts = np.bincount((words >> np.uint32(shift)) & np.uint32(255), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_neighbouring_positions_steps_seeds_and_streams_are_uncorrelated() -> None:
    base = integers(0, 0, 0).astype(float)
    bound = 4.5 / np.sqrt(base.size)
    others = {
        "next position": np.roll(base, 1),
        "next step": integers(0, 0, 1).astype(float),
        "far step": integers(0, 0, 9_999).astype(float),
        "next seed": integers(1, 0, 0).astype(float),
        "next stream": integers(0, 1, 0).astype(float),
    }
    for name, other in others.items():
        assert abs(np.corrcoef(base, other)[0, 1]) < bound, name
        assert abs(np.corrcoef(np.abs(base), np.abs(other))[0, 1]) < bound, name


def test_pairs_of_steps_fill_the_square_evenly() -> None:
    """A lattice between two steps would leave cells of the unit square empty or crowded."""
    first = np.concatenate([integers(5, 0, step) for step in range(40)]).view(np.uint32) >> np.uint32(27)
    second = np.concatenate([integers(5, 0, step) for step in range(1, 41)]).view(np.uint32) >> np.uint32(27)
    cells = np.bincount(first.astype(np.int64) * 32 + second, minlength=1024)
    assert 1e-4 < stats.chisquare(cells).pvalue < 1 - 1e-4


def test_one_bit_of_the_key_or_position_flips_half_of_the_high_bits() -> None:
    a, b = integers(0, 0, 0).view(np.uint32), integers(0, 0, 1).view(np.uint32)
    flipped = np.unpackbits(((a ^ b) >> np.uint32(16)).astype(np.uint16).view(np.uint8)).mean()
    assert flipped == pytest.approx(0.5, abs=0.005)


def test_the_table_is_a_bijection() -> None:
    assert np.unique(counter.table(1 << 18)).size == 1 << 18


def test_keys_are_a_function_of_their_step_and_never_repeat() -> None:
    whole, later = counter.keys(3, 0, 0, 1_000), counter.keys(3, 0, 400, 410)
    assert np.array_equal(whole[400:410], later)
    many = np.concatenate([counter.keys(s, stream, 0, 5_000) for s in range(4) for stream in range(3)])
    assert np.unique(many.astype(np.uint64) @ np.array([1 << 32, 1], dtype=np.uint64)).size == len(many)
    assert (many[:, 1] % 2 == 1).all()


def test_stacks_draw_what_single_instances_draw() -> None:
    pairs = np.concatenate([counter.keys(seed, 0, 7, 8) for seed in (4, 9, 2)])
    together = counter.Draws(3, 6, 100).integers(pairs).copy()
    for i in range(3):
        alone = counter.Draws(1, 6, 100).integers(pairs[i : i + 1])
        assert np.array_equal(alone[0], together[i])
