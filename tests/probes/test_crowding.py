import numpy as np
import pytest
import torch

from probes import frames
from probes.crowding import features_per_dimension, of_random_directions


@pytest.mark.parametrize(
    ("dictionary", "known"),
    [
        (frames.orthonormal(5), 1),
        (frames.mercedes_benz(), 3 / 2),
        (frames.icosahedron(), 6 / 3),
        (frames.lines_28(), 28 / 7),
        (frames.dirac_hadamard(16), 32 / 16),
        (torch.ones(4, 1).repeat(1, 9), 9),
    ],
)
def test_frames_of_known_crowding(dictionary: torch.Tensor, known: float) -> None:
    assert features_per_dimension(dictionary) == pytest.approx(known)


def test_lengths_and_empty_columns_do_not_count() -> None:
    lengths = torch.tensor([3.0, 0.1, 7.0, 2.0, 1.0, 0.5])
    padded = torch.cat([frames.icosahedron() * lengths, torch.zeros(3, 2)], dim=1)
    assert features_per_dimension(padded) == pytest.approx(2)
    assert np.isnan(features_per_dimension(torch.zeros(3, 2)))


@pytest.mark.parametrize(("d", "n"), [(8, 40), (40, 8)])
def test_random_directions_have_their_expectation(d: int, n: int) -> None:
    drawn = [features_per_dimension(frames.random_directions(d, n, seed=seed)) for seed in range(100)]
    assert np.mean(drawn) == pytest.approx(of_random_directions(d, n), abs=4 * np.std(drawn) / 10)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_lengths_of_any_size_do_not_matter(size: float) -> None:
    assert features_per_dimension(size * torch.eye(3, dtype=torch.float64)) == pytest.approx(1)


def test_one_direction_has_a_dimension_to_itself() -> None:
    assert of_random_directions(5, 1) == 1 == pytest.approx(features_per_dimension(torch.ones(5, 1)))
