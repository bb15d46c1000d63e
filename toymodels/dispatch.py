"""Rows to experts and back: sorted by expert, padded to the busiest; nothing dropped, no expert run for nothing."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def gather(
    rows: Float[Tensor, "stack row d"], chosen: Int[Tensor, "stack row k"], n_experts: int
) -> tuple[Float[Tensor, "group place d"], Int[Tensor, " slot"]]:
    """Rows of each (stack, expert) group side by side, and where each of the stack * row * k slots went.

    Groups with fewer rows than the busiest are filled with copies of the very first row, which `scatter` never reads.
    """
    n_stack, _, k = chosen.shape
    group = (chosen + n_experts * torch.arange(n_stack)[:, None, None]).flatten()
    order = group.argsort(stable=True)
    counts = torch.bincount(group, minlength=n_stack * n_experts)
    capacity = int(counts.max())
    starts = counts.cumsum(0) - counts
    sorted_group = group[order]
    place = sorted_group * capacity + torch.arange(len(group)) - starts[sorted_group]
    source = torch.zeros(n_stack * n_experts * capacity, dtype=torch.long)
    source[place] = order // k
    back = torch.empty_like(place)
    back[order] = place
    return rows.flatten(0, 1).index_select(0, source).view(n_stack * n_experts, capacity, -1), back


def scatter(
    outputs: Float[Tensor, "group place d"], back: Int[Tensor, " slot"], shape: torch.Size
) -> Float[Tensor, "stack row k d"]:
    """The output of each slot, in the order of `chosen` (whose shape this is)."""
    return outputs.flatten(0, 1).index_select(0, back).view(*shape, -1)
