"""What a path through depth says beyond its layers: links between neighbouring layers, and how many paths there are.

An expert of layer l tells of the expert of layer l + 1 even if both see only the token's identity, so their mutual
information is set against the same nulls as any label's: `link` is `specialization.association` with the expert of the
layer before as label, and its `within_type` is what the path adds to the token.
"""

from typing import Any

import numpy as np
from jaxtyping import Int
from pandas import DataFrame

from probes.choices import Codes
from probes.information import entropy
from probes.matching import together
from probes.specialization import Association, association


def link(
    before: Int[np.ndarray, " n_tokens"],
    then: Int[np.ndarray, "n_tokens k"],
    types: Codes,
    groups: Codes | None = None,
    seed: int = 0,
    **options: Any,
) -> Association:
    """Association of the heaviest expert of one layer with the experts of the next."""
    return association(then, before, types, groups, seed, **options)


def diversity(heaviest: Int[np.ndarray, "n_tokens n_layers"]) -> DataFrame:
    """How many paths there are, by the heaviest expert of each layer: measure, value.

    distinct = paths taken; effective = exp(entropy of paths); independent and markov = exp of the entropy of chains
    with the same shares by layer, and by pair of neighbouring layers; n_tokens bounds the first two, not the chains.
    """
    heaviest = np.asarray(heaviest)
    if heaviest.ndim != 2 or not heaviest.size:
        raise ValueError(f"heaviest has shape {heaviest.shape}; give (tokens, layers), the heaviest expert of each")
    if heaviest.min() < 0:
        raise ValueError("heaviest holds -1: leave out tokens that no expert of some layer got")
    _, n = np.unique(heaviest, axis=0, return_counts=True)
    width = int(heaviest.max()) + 1
    alone = [entropy(np.bincount(column)) for column in heaviest.T]
    neighbours = zip(heaviest.T, heaviest.T[1:], strict=False)
    pairs = [entropy(together(a, b, width, width).ravel()) for a, b in neighbours]
    chain = alone[0] + sum(joint - h for joint, h in zip(pairs, alone, strict=False))
    values = {"distinct": len(n), "effective": np.exp(entropy(n)), "independent": np.exp(sum(alone))}
    values |= {"markov": np.exp(chain), "n_tokens": len(heaviest)}
    return DataFrame({"measure": list(values), "value": [float(v) for v in values.values()]})
