"""Attention sinks: few tokens with massive activations, told apart so that they do not rule every measure."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

KEPT, SINK, FIRST = 0, 1, 2
"""Groups of tokens: ordinary; attention sinks past the first positions; first positions of a window."""
GROUPS = {"kept": KEPT, "sink": SINK, "first": FIRST}


def find_sinks(
    output: Float[Tensor, "n_tokens d_model"],
    position: Int[Tensor, " n_tokens"],
    first_positions: int = 4,
    ratio: float = 100.0,
) -> tuple[Float[Tensor, " n_tokens"], Int[Tensor, " n_tokens"]]:
    """Energy ||y||^2 of each token's FFN output, and the token's group.

    A token past the first positions is a sink when its energy exceeds `ratio` times the median energy of the tokens
    past the first positions.  In one layer of SmolLM2-135M ten of 76,500 such tokens held 98% of the energy.
    """
    energy = output.float().square().sum(dim=1)
    later = position.to(energy.device) >= first_positions
    # no branch and no selection by a mask: a GPU would have to be waited for; without any later token this is NaN
    median = energy.masked_fill(~later, torch.nan).nanmedian()
    group = torch.where(later, torch.where(energy > ratio * median, SINK, KEPT), FIRST)
    return energy, group
