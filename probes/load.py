"""How evenly a router spreads tokens over its experts: measures of one load, counts or weight per expert.

Each is a function of the vector of loads (n_experts), so that slots and gate weights are measured alike, apart.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Load = Float[np.ndarray, " n_experts"] | np.ndarray

BUSIEST = 0.1
"""Share of the experts that are called the busiest."""


def entropy(load: Load) -> float:
    """Entropy in nats of the share that each expert gets; 0 for no load at all."""
    total = load.sum()
    share = load[load > 0] / total if total else np.ones(1)
    return float(-(share * np.log(share)).sum())


def load_entropy(load: Load) -> float:
    """`entropy` over ln n_experts: 1 if all get the same, 0 if one gets all."""
    return entropy(load) / float(np.log(len(load))) if len(load) > 1 else 0.0


def effective_experts(load: Load) -> float:
    """exp(`entropy`): n_experts if all get the same, 1 if one gets all."""
    return float(np.exp(entropy(load)))


def gini(load: Load) -> float:
    """Gini coefficient sum_ij |x_i - x_j| / (2 n sum x): 0 if all get the same, 1 - 1/n if one gets all."""
    n, total = len(load), load.sum()
    if not total:
        return float("nan")
    rank = np.arange(1, n + 1)
    return float((2 * rank - n - 1) @ np.sort(load) / (n * total))


def n_busiest(n_experts: int) -> int:
    """Experts among the busiest `BUSIEST` of them: floor, but at least one."""
    return max(1, int(BUSIEST * n_experts + 1e-9))


def busiest_share(load: Load) -> float:
    """Share of the load on the busiest tenth of the experts."""
    total = load.sum()
    return float(np.sort(load)[-n_busiest(len(load)) :].sum() / total) if total else float("nan")


def busiest_ceiling(n_experts: int, k: int) -> float:
    """The largest `busiest_share` there can be: a token gives an expert at most one of its k slots.

    64 experts and k = 8: 6/8, so "a tenth of the experts does 80% of the work" is impossible there.
    """
    return min(1.0, n_busiest(n_experts) / k)


def dead_share(load: Load) -> float:
    """Share of the experts that got nothing."""
    return float((load == 0).mean())


def balance_loss(load: Load, probability: Load) -> float:
    """n_experts * sum_i f_i P_i with f the share of slots and P the mean router probability of each expert.

    1 for a uniform router, n_experts for one that gives all to one.  Source: Fedus et al. 2021 (Switch), equation 4.
    """
    if not load.sum() or not probability.sum():
        return float("nan")
    return float(len(load) * (load / load.sum()) @ (probability / probability.sum()))


OF_LOAD: dict[str, Callable[[Load], float]] = {
    "load_entropy": load_entropy,
    "effective_experts": effective_experts,
    "gini": gini,
    "busiest_share": busiest_share,
    "dead_share": dead_share,
}
"""Measures of a load alone, by name."""


def uniform_loads(
    n_experts: int, k: int, n_tokens: int, *, draws: int = 200, seed: int = 0
) -> Float[np.ndarray, "draws n_experts"]:
    """Loads of a router that draws k of the experts anew, all alike, for each token: what evenness chance allows.

    Normal approximation of the counts: mean T k/E, variance T (k/E)(1 - k/E), summing to T k.
    """
    rng = np.random.default_rng(seed)
    p = k / n_experts
    noise = rng.standard_normal((draws, n_experts))
    noise -= noise.mean(axis=1, keepdims=True)
    scale = np.sqrt(n_tokens * p * (1 - p) * n_experts / max(n_experts - 1, 1))
    return np.clip(n_tokens * p + scale * noise, 0, None)
