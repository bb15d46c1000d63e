"""The loss that toys are compared by: exact on a finite dataset, else on a large stratified sample."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from toymodels import features
from toymodels.config import ToyConfig
from toymodels.gradients import Activation, Params, losses

SAMPLES = 1 << 16
_ELEMENTS = 1 << 20


def evaluate(
    configs: Sequence[ToyConfig],
    seeds: Sequence[int],
    params: Params,
    *,
    samples: int = SAMPLES,
    fresh: bool = False,
    activation: Activation | None = None,
) -> Float[Tensor, " instances"]:
    """Mean over samples and features of I_i (t_i - x'_i)^2 for each instance.

    Finite datasets are scored on their own points unless `fresh`, which is then the test loss.  Otherwise all instances
    of equal settings see the same `samples` stratified draws (fewer where n_features is very large), so that seeds are
    compared with common random numbers.
    """
    out = torch.empty(len(configs), dtype=torch.float64)
    groups: dict[ToyConfig, list[int]] = {}
    for i, config in enumerate(configs):
        groups.setdefault(config, []).append(i)
    with torch.no_grad():
        for config, members in groups.items():
            finite = config.n_points is not None and not fresh
            shared = finite and config.data_seed is not None
            if not finite or shared:
                x = features.dataset(config, 0).T if finite else _fresh(config, samples)
                out[members] = _score(config, {k: v[members] for k, v in params.items()}, x, activation)
                continue
            for i in members:
                x = features.dataset(config, seeds[i]).T
                out[i] = _score(config, {k: v[i : i + 1] for k, v in params.items()}, x, activation)[0]
    return out


def _fresh(config: ToyConfig, samples: int) -> Float[Tensor, "n_features samples"]:
    count = max(1024, min(samples, (1 << 23) // config.n_features))
    x = features.stratified(config, count)
    if config.unit_norm:
        x = x / x.norm(dim=0, keepdim=True).clamp(min=1e-12)
    return x


def _score(
    config: ToyConfig, params: Params, x: Float[Tensor, "n_features samples"], activation: Activation | None
) -> Float[Tensor, " instances"]:
    x = x.to(params["W"].dtype)
    importance = torch.as_tensor(config.importances, dtype=x.dtype)
    k, size = len(params["W"]), x.shape[1]
    width = max(256, _ELEMENTS // x.shape[0])
    total = torch.zeros(k, dtype=torch.float64)
    rows = max(1, _ELEMENTS // (x.shape[0] * min(width, size)))
    for part in x.split(width, dim=1):
        for at in range(0, k, rows):
            some = {name: value[at : at + rows] for name, value in params.items()}
            loss = losses(config, some, importance, part.expand(len(some["W"]), -1, -1), activation)
            total[at : at + rows] += loss.double() * part.shape[1]
    return total / size
