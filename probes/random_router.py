"""Specialization that the geometry of the router's input gives away: random directions as router, at the same load.

The scores of token x are w_e . x + b_e with w_e uniform on the sphere; the k highest are taken, and the b_e are fitted
so that each expert gets the share of tokens that the trained expert e has.  What the trained router's choices share
with a label beyond this is due to the directions it learned, not to where the tokens lie.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

ROUNDS = 60
CLOSE = 0.002
"""Fitting ends when this share of the slots, or less, is at another expert than wanted."""
FITTED_ON = 20_000
"""Tokens the biases are fitted on."""


class RandomRouter(NamedTuple):
    """Choices of a router of random directions."""

    experts: Int[np.ndarray, "n_tokens k"]
    load_error: float
    """Half the sum of |load - wanted load|: share of the slots misplaced, over all tokens."""


def random_router(
    inputs: Float[np.ndarray, "n_tokens d_model"], load: Shaped[np.ndarray, " n_experts"], k: int, seed: int
) -> RandomRouter:
    """Route by random directions at the given load (counts or shares); experts without load get nothing.

    Raises ValueError if an expert would need more than every token, k exceeds the experts that have load, or an input
    is not finite.
    """
    rng, inputs = np.random.default_rng(seed), np.asarray(inputs, dtype=np.float32)
    load = np.asarray(load, dtype=np.float64)
    if inputs.ndim != 2 or not len(inputs):
        raise ValueError(f"inputs has shape {inputs.shape}; give (tokens, d_model) with at least one token")
    if not np.isfinite(inputs).all():
        raise ValueError("inputs holds NaN or infinite values; a router cannot score them")
    if (load < 0).any() or not 1 <= k <= (load > 0).sum():
        raise ValueError(f"k={k} experts a token need at least as many experts with load; {(load > 0).sum()} have any")
    used = np.flatnonzero(load)
    wanted = k * load[used] / load.sum()
    if wanted.max() > 1 + 1e-9:
        raise ValueError(
            f"expert {used[wanted.argmax()]} would need {wanted.max():.2f} times all tokens; check load, k"
        )
    directions = rng.standard_normal((inputs.shape[1], len(used)), dtype=np.float32)
    scores = inputs @ (directions / np.linalg.norm(directions, axis=0))
    sample = scores if len(scores) <= FITTED_ON else scores[rng.choice(len(scores), FITTED_ON, replace=False)]
    chosen = _best(scores + fitted_biases(sample, np.minimum(wanted, 1), k), k)
    got = np.bincount(chosen.ravel(), minlength=len(used)) / chosen.size
    return RandomRouter(used[chosen], float(np.abs(got - wanted / k).sum() / 2))


def fitted_biases(
    scores: Float[np.ndarray, "n_tokens n_experts"], wanted: Float[np.ndarray, " n_experts"], k: int
) -> Float[np.ndarray, " n_experts"]:
    """Biases at which expert e is among the k best on a share wanted[e] of the tokens.

    Given the others' biases, e is taken where its score exceeds the k-th best of the others; its bias is moved half way
    to the quantile of that margin which takes the share wanted, all experts at once, until the load fits.
    """
    bias = np.zeros(scores.shape[1], dtype=np.float32)
    if k == scores.shape[1]:
        return bias
    places = np.clip(np.round((1 - wanted) * len(scores)).astype(int), 0, len(scores) - 1)
    for _ in range(ROUNDS):
        shifted = scores + bias
        best = np.partition(shifted, (-k - 1, -k), axis=1)
        last, next_best = best[:, -k, None], best[:, -k - 1, None]
        inside = shifted >= last
        if np.abs(inside.mean(axis=0) - wanted).sum() / 2 / k <= CLOSE:
            break
        margin = np.sort(shifted - np.where(inside, next_best, last), axis=0)
        bias -= margin[places, np.arange(len(places))] / 2
    return bias


def _best(scores: Float[np.ndarray, "n_tokens n_experts"], k: int) -> Int[np.ndarray, "n_tokens k"]:
    return np.argpartition(-scores, k - 1, axis=1)[:, :k]
