"""Superposition makes models vulnerable: adversarial attacks ride on interference.

An L2 attack of norm eps = `strength` * mean |x| is tried along each feature's own direction, delta_i = +-eps G_i/|G_i|
with G = W^T W (gradient attacks fail on very sparse data: most outputs are off and have no gradient), and for each
sample the worst of them counts:

    vulnerability = E_x [ max_i L(x + delta_i, x) - L(x, x) ],   L(x', x) = sum_j I_j (x_j - f(x')_j)^2

It is reported as a ratio to the same quantity of the best model without superposition at the same feature probability:
the m most important features in a dimension of their own, the others answered by their mean.  That model has 1 exactly
in units of eps^2 (uniform importance), so the ratio says how many times more one unit of attack does.
Source: Elhage et al. 2022, 'Toy Models of Superposition', section on adversarial robustness.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from pandas import DataFrame
from torch import Tensor

from data import Progress, Tables, silent
from toymodels.config import ToyConfig
from toymodels.features import sample
from toymodels.results import Toy
from toymodels.training import train_stack

DEFAULT = ToyConfig(
    n_features=200, d_hidden=20, steps=3000, learning_rate=3e-3, schedule="cosine", feature_probability=1.0
)
"""The published shape, with a faster schedule."""

PROBABILITIES = tuple(float(p) for p in 20.0 ** -np.linspace(0, 1, 10))
"""1 down to .05, evenly in the logarithm."""


def run(
    base: ToyConfig = DEFAULT,
    *,
    feature_probabilities: Sequence[float] = PROBABILITIES,
    seeds: int | Sequence[int] = 3,
    strength: float = 0.1,
    samples: int = 2048,
    progress: Progress = silent,
) -> Tables:
    """Vulnerability over sparsity, next to 1/D*; all probabilities and seeds train in one stack.

    Tables:
    * `runs`, one row a probability and seed: `feature_probability, seed, best` (lowest loss of the seeds), `loss`,
      `dimensions_per_feature` (D* = d_hidden / ||W||_F^2), `features_per_dimension` (1/D*), `epsilon`, `clean`
      (sum of squares, no attack), `vulnerability` with its standard error over samples `vulnerability_se`,
      `reference` (that of the model without superposition on the same samples: the control), `ratio`, `ratio_random`
      (control: the worst of as many attacks in random directions, over the reference's own worst), `n_samples`.
    * `summary`, one row a probability: the best seed's `features_per_dimension` and `ratio`, `ratio_min`, `ratio_max`
      over seeds, `n_seeds`.
    """
    chosen = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    grid = [(p, seed) for p in feature_probabilities for seed in chosen]
    configs = [ToyConfig.model_validate(base.model_dump() | {"feature_probability": p}) for p, _ in grid]
    toys = train_stack(configs, [seed for _, seed in grid], snapshots=0, progress=progress)
    rows = []
    for i, (p, seed) in enumerate(grid):
        toy = toys[i]
        size = float(toy.W.double().square().sum())
        known = {"feature_probability": p, "seed": seed, "loss": toy.loss}
        known |= {"dimensions_per_feature": base.d_hidden / size, "features_per_dimension": size / base.d_hidden}
        rows.append(known | measure(toy, strength=strength, samples=samples))
    frame = DataFrame(rows)
    lowest = frame.groupby("feature_probability")["loss"].transform("min")
    frame.insert(2, "best", frame["loss"] == lowest)
    return Tables({"runs": frame, "summary": _summary(frame)})


def measure(toy: Toy, *, strength: float = 0.1, samples: int = 2048, seed: int = 0) -> dict[str, float]:
    """`epsilon, clean, vulnerability, vulnerability_se, reference, ratio, ratio_random, n_samples` of one toy.

    `seed` draws the samples, which the toy and its reference share.  Raises ValueError for a model that is not
    x' = relu(W^T W x + b) with x as its target.
    """
    config = toy.config
    if config.model != "relu" or config.activation != "relu" or config.target != "identity":
        raise ValueError("adversarial attacks are derived for relu(W^T W x + b); use model='relu', target='identity'")
    x = sample(config, samples, seed=seed, step=2**31)
    epsilon = strength * float(x.norm(dim=1).mean())
    without = without_superposition(config)
    clean, harm = _harm(toy, x, _along_features(toy.W, epsilon))
    _, reference = _harm(without, x, _along_features(without.W, epsilon))
    generator = torch.Generator().manual_seed(seed)
    blind = torch.randn(config.n_features, config.n_features, generator=generator)
    _, random = _harm(toy, x, epsilon * blind / blind.norm(dim=1, keepdim=True))
    return {
        "epsilon": epsilon,
        "clean": float(clean.mean()),
        "vulnerability": float(harm.mean()),
        "vulnerability_se": float(harm.std() / samples**0.5),
        "reference": float(reference.mean()),
        "ratio": float(harm.mean() / reference.mean()),
        "ratio_random": float(random.mean() / reference.mean()),
        "n_samples": samples,
    }


def without_superposition(config: ToyConfig) -> Toy:
    """The best model with a dimension for each of m features: W_i = e_i for the m that lower the loss most, b = 0
    there and b_j = E[x_j] elsewhere (features that are not represented are answered by their mean).
    """
    x = sample(config, 1 << 14, seed=0, step=2**31 + 1)
    gain = torch.as_tensor(config.importances, dtype=torch.float32) * x.var(0)
    if config.importance == 1.0 and np.ptp(config.probabilities) == 0:
        gain = -torch.arange(config.n_features, dtype=torch.float32)  # all alike: take the first
    kept = gain.argsort(descending=True)[: config.d_hidden]
    W = torch.zeros(config.d_hidden, config.n_features)
    W[torch.arange(len(kept)), kept] = 1.0
    b = x.mean(0)
    b[kept] = 0.0
    return Toy(config, -1, W, b, float("nan"))


def _along_features(W: Float[Tensor, "d_hidden n_features"], epsilon: float) -> Float[Tensor, "attacks n_features"]:
    """eps G_i / |G_i| for every represented feature; a feature with G_i = 0 has no attack."""
    gram = W.T @ W
    norm = gram.norm(dim=1, keepdim=True)
    return epsilon * (gram / norm.clamp_min(1e-12))[norm[:, 0] > 1e-6]


def _harm(
    toy: Toy, x: Float[Tensor, "samples n_features"], attacks: Float[Tensor, "attacks n_features"]
) -> tuple[Float[Tensor, " samples"], Float[Tensor, " samples"]]:
    """Clean loss, and the largest increase over the attacks and their opposites, for each sample.

    W^T W (x + delta) = W^T W x + W^T W delta, so an attack costs one addition a feature.
    """
    importance = torch.as_tensor(toy.config.importances, dtype=x.dtype)
    moved = (attacks @ toy.W.T) @ toy.W
    moved = torch.cat([moved, -moved])
    before = (x @ toy.W.T) @ toy.W + toy.b
    clean = ((before.relu() - x).square() * importance).sum(1)
    worst = []
    for some, target in zip(before.split(32), x.split(32), strict=True):
        after = (some[:, None] + moved).relu_().sub_(target[:, None]).square_()
        worst.append((after @ importance).amax(1))
    return clean, torch.cat(worst) - clean


def _summary(runs: DataFrame) -> DataFrame:
    best = runs[runs["best"]].drop_duplicates("feature_probability")
    shown = best[["feature_probability", "dimensions_per_feature", "features_per_dimension", "ratio", "ratio_random"]]
    spread = runs.groupby("feature_probability").agg(
        ratio_min=("ratio", "min"), ratio_max=("ratio", "max"), n_seeds=("seed", "nunique")
    )
    return shown.merge(spread.reset_index(), on="feature_probability").reset_index(drop=True)
