"""What a dictionary's size and coherence alone promise: closed forms over numbers, no tensors.

Notation: d dimensions (`d_model`), F unit-norm columns (`n_features`), k active features, mu the mutual coherence,
mu_1 the Babel function (`babel[k - 1]` is mu_1(k)).
"""

import math
from collections.abc import Sequence
from numbers import Integral

from scipy.special import betainc, betaincinv

from data.config import LARGEST

ROUNDING = 1e-6
"""Strict inequalities are asked for with this margin, so that 1/3 stored in float32 never certifies one k too many."""

MOST_BITS = 1 << 22
"""Numbers of supports are not written out beyond so many binary digits."""


def welch(d_model: int, n_features: int) -> float:
    """Least coherence any F unit vectors in d dimensions can have: sqrt((F - d) / (d (F - 1))), 0 for F <= d.

    Source: Welch 1974.  Met with equality exactly by equiangular tight frames.
    """
    _whole(d_model=d_model, n_features=n_features)
    if n_features <= d_model:
        return 0.0
    return math.sqrt((n_features - d_model) / (d_model * (n_features - 1)))


def k_from_coherence(mu: float, n_features: int) -> int:
    """Largest k with mu (2k - 1) < 1, capped at F; 0 when mu = 1.

    Up to that many active features of equal magnitude one-step thresholding, OMP and basis pursuit recover every
    support with every sign.  It promises nothing beyond that k; `recovery.empirical` measures what happens there.
    Source: Tropp 2004, Theorem A and Corollary 3.6; Donoho & Elad 2003; Gribonval & Nielsen 2003.
    """
    _whole(n_features=n_features)
    _cosine(mu)
    if mu * (2 * n_features - 1) < 1 - ROUNDING:
        return n_features
    return max(0, math.ceil(((1 - ROUNDING) / mu + 1) / 2) - 1)


def k_from_babel(babel: Sequence[float], n_features: int) -> int:
    """Largest k <= F with mu_1(k - 1) + mu_1(k) < 1 among the k the Babel function was computed for.

    Source: Tropp 2004, Theorem 3.5: never smaller than the k of `k_from_coherence` (up to the k computed).
    """
    _whole(n_features=n_features)
    best, before = 0, 0.0
    for k, now in enumerate(babel, start=1):
        if k > n_features or before + now >= 1 - ROUNDING:
            break
        best, before = k, now
    return best


def thresholding_holds(mu: float, k: int, smallest: float = 1.0, largest: float = 1.0, noise: float = 0.0) -> bool:
    """Whether one-step thresholding must succeed: c_min - (2k - 1) mu c_max > 2 e, with 2 e the noise's share.

    `smallest`, `largest`: magnitudes of the active features; `noise`: bound e on |<v_j, noise>|.  Tight for
    equal magnitudes and e = 0: there is a dictionary and a sign pattern that fails as soon as it is violated.
    """
    _whole(k=k)
    _cosine(mu)
    return smallest - (2 * k - 1) * mu * largest > 2 * noise


def spark(mu: float) -> float:
    """Lower bound 1 + 1/mu on the spark, the least number of linearly dependent columns; infinite for mu = 0.

    A code with k < spark / 2 active features is the only one of its size.  Source: Donoho & Elad 2003.
    """
    _cosine(mu)
    return 1 + 1 / mu if mu > 0 else math.inf


def square_root_bottleneck(d_model: int) -> float:
    """(1 + sqrt d) / 2: beyond it no bound through mu certifies any dictionary with F well above d.

    Because mu >= Welch -> 1/sqrt d as F grows, mu (2k - 1) < 1 forces k < (1 + sqrt d) / 2 there.
    """
    _whole(d_model=d_model)
    return (1 + math.sqrt(d_model)) / 2


def random_coherence(d_model: int, n_features: int, quantile: float = 0.5) -> float:
    """Median (or another quantile) of mu over dictionaries of F directions drawn uniformly on the sphere.

    Solves F (F - 1) / 2 * I_{1 - t^2}((d - 1) / 2, 1/2) = -ln(quantile): the number of pairs beyond t is Poisson.
    """
    _whole(d_model=d_model, n_features=n_features)
    if not 0 < quantile < 1:
        raise ValueError(f"quantile={quantile} is not between 0 and 1")
    if n_features == 1:
        return 0.0
    if d_model == 1:
        return 1.0
    expected = -math.log(quantile) * 2 / (n_features * (n_features - 1))
    if expected >= 1:
        return 0.0
    return math.sqrt(1 - float(betaincinv((d_model - 1) / 2, 0.5, expected)))


def random_features(d_model: int, k: int) -> float:
    """Number of random directions in d dimensions whose median mu still certifies k: where mu (2k - 1) = 1."""
    _whole(d_model=d_model, k=k)
    if d_model == 1 or k < 2:
        return math.inf if d_model > 1 else 1.0
    beyond = float(betainc((d_model - 1) / 2, 0.5, 1 - (2 * k - 1) ** -2))
    return (1 + math.sqrt(1 + 8 * math.log(2) / beyond)) / 2 if beyond > 0 else math.inf


def max_features(d_model: int, k: int) -> float:
    """Upper bound on the F for which any dictionary in d dimensions certifies k by mu (2k - 1) < 1.

    The least of three: Welch; Levenshtein's bound mu^2 >= (3F - d^2 - 2d) / ((d + 2)(F - d)) for F > d (d + 1) / 2;
    and the area of the sphere: caps of half the least angle around +-v_i cannot overlap.  Infinite for k = 1, d > 1.
    """
    _whole(d_model=d_model, k=k)
    if d_model == 1:
        return 1.0
    if k == 1:
        return math.inf
    square = (2 * k - 1) ** -2
    bounds = []
    if square < 1 / d_model:
        bounds.append(max(d_model, d_model * (1 - square) / (1 - square * d_model)))
    if square < 3 / (d_model + 2):
        # Levenshtein: 3F - d^2 - 2d <= square (d + 2)(F - d), valid above d (d + 1) / 2
        slope = 3 - square * (d_model + 2)
        levenshtein = (d_model * (d_model + 2) - square * (d_model + 2) * d_model) / slope
        bounds.append(max(d_model * (d_model + 1) / 2, levenshtein))
    cap = float(betainc((d_model - 1) / 2, 0.5, (1 - math.sqrt(square)) / 2))
    if cap > 0:
        bounds.append(1 / cap)
    return float(math.floor(min(bounds) + ROUNDING)) if bounds else math.inf


def n_supports(n: int, k: int) -> int:
    """Number of non-empty sets of at most k out of n: sum_{1 <= j <= k} C(n, j).

    Over `n_features` it counts which features may be active together: what a code must tell apart, and it grows with
    F.  Over `d_model` the same sum counts patterns of active neurons, which stay as many however many features are
    squeezed in (F = 8, d = 4, k = 2: 36 sets of features against 10 of neurons).  ValueError where the number itself
    would fill the memory.
    """
    _whole(n=n, k=k)
    if min(n, 64 * k) > MOST_BITS:
        raise ValueError(f"the sets of up to {k} out of {n} are more than anybody can count; choose k <= 1000")
    if k >= n:
        return 2**n - 1
    total, sets = 0, 1
    for j in range(1, k + 1):
        sets = sets * (n - j + 1) // j
        total += sets
    return total


def rounded(count: int) -> float:
    """A count of any size as a float; infinite beyond 1.8e308."""
    return float(count) if count.bit_length() < 1024 else math.inf


def thresholding_predictor(d_model: int, n_features: int, k: int) -> float:
    """sqrt(k / d) (sqrt(2 ln F) + sqrt(2 ln k)): thresholding of equal magnitudes mostly succeeds while it is < 1.

    A statement about typical supports of a random dictionary, not about the worst one.
    """
    _whole(d_model=d_model, n_features=n_features, k=k)
    return math.sqrt(k / d_model) * (math.sqrt(2 * math.log(n_features)) + math.sqrt(2 * math.log(k)))


def k_predicted_thresholding(d_model: int, n_features: int) -> int:
    """Largest k <= F whose `thresholding_predictor` is below 1 (at least 1)."""
    _whole(d_model=d_model, n_features=n_features)
    low, high = 1, n_features + 1  # it grows with k
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if thresholding_predictor(d_model, n_features, middle) < 1 else (low, middle)
    return low


def k_predicted_omp(d_model: int, n_features: int) -> float:
    """About d / (2 ln F): where OMP stops working on random dictionaries (Tropp & Gilbert 2007)."""
    _whole(d_model=d_model, n_features=n_features)
    return d_model / (2 * math.log(n_features)) if n_features > 1 else 1.0


def _whole(**numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, Integral) or not 1 <= number <= LARGEST:
            raise ValueError(f"{name}={number} must be a whole number of at least 1 and at most {LARGEST:,}")


def _cosine(mu: float) -> None:
    if not 0 <= mu <= 1 + ROUNDING:
        raise ValueError(f"mu={mu} is not the size of a cosine, which lies in 0..1")
