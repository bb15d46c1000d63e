"""How concentrated one token's neuron activations are: seven scale-free measures."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.columns import real_matrix

SHARES = {"energy_top1": 0.01, "energy_top5": 0.05, "energy_top10": 0.10, "energy_top20": 0.20}
"""Energy measure -> share of the neurons whose energy is counted."""
MEASURES = (*SHARES, "hoyer", "gini", "kurtosis", "participation_ratio")


def token_measures(z: Float[Tensor, "n_tokens d_mlp"]) -> Float[Tensor, "n_tokens n_measures"]:
    """The measures of each token, in the order of MEASURES; a token of zeros gives NaN.

    With e the squared activations in falling order and d = d_mlp:

        energy_topS          sum of the first round(S d) of e / sum of e
        hoyer                1 - |z|_1 / (sqrt d |z|_2): 0 if all are equal, 1 - 1/sqrt d if one is active
        gini                 of |z|: 0 if all are equal, 1 - 1/d if one is active
        kurtosis             mean (z - mean z)^4 / (mean (z - mean z)^2)^2: 3 for a Gaussian
        participation_ratio  (sum e)^2 / (d sum e^2): 1 if all are equal, 1/d if one is active

    A vector of independent Gaussians has energy_top10 .4393, hoyer .2021, gini .4142, participation_ratio 1/3.
    Sources: Hoyer 2004, whose own measure is this one times sqrt d / (sqrt d - 1); Hurley and Rickard 2009 (Gini).
    """
    z = z.float()
    d = z.shape[1]
    z = z / z.abs().amax(dim=1, keepdim=True)  # fourth powers of raw activations can overflow
    size = _falling(z.abs())
    energy = size.square()
    total = energy.sum(dim=1)
    running = energy.cumsum(dim=1)
    tops = [running[:, max(round(share * d), 1) - 1] / total for share in SHARES.values()]
    l1 = size.sum(dim=1)
    hoyer = 1 - l1 / (d * total).sqrt()
    rank = torch.arange(1, d + 1, device=z.device, dtype=z.dtype)
    gini = (d + 1 - 2 * (size * rank).sum(dim=1) / l1) / d
    centred = z - z.mean(dim=1, keepdim=True)
    variance = centred.square().mean(dim=1)
    kurtosis = centred.square().square().mean(dim=1) / variance.square()
    participation = total.square() / (d * energy.square().sum(dim=1))
    return torch.stack([*tops, hoyer, gini.abs(), kurtosis, participation], dim=1)


def _falling(size: Tensor) -> Tensor:
    """Each row in falling order; numpy's vectorised sort is several times faster than torch's on a CPU."""
    if size.device.type == "cpu":
        return torch.from_numpy(np.sort(size.numpy(), axis=1)).flip(1)
    return size.sort(dim=1, descending=True).values


def describe(z: Float[Tensor, "n_tokens d_mlp"]) -> dict[str, float]:
    """Mean over tokens of every measure of `token_measures`, tokens of zeros left out.

    The kurtosis is NaN where all activations of a token are equal.  Raises ValueError for input that is not (tokens,
    d_mlp), is empty, or holds NaN or infinities.
    """
    z = real_matrix(z, "the activations (tokens, d_mlp)")
    active = z[z.abs().sum(dim=1) > 0]
    if not len(active):
        raise ValueError("every token's activations are all zero; there is nothing to describe")
    active = active / active.abs().amax(dim=1, keepdim=True)  # single precision holds every ratio, not every size
    means = token_measures(active).double().mean(dim=0)
    return dict(zip(MEASURES, means.tolist(), strict=True))
