"""How many routes there are through depth, against what loads alone and neighbouring layers alone would give.

That an expert tells of the expert of the next layer is measured as any association is, against the same nulls: see
`routed_associations.links`.
"""

import numpy as np
from jaxtyping import Int
from pandas import DataFrame

from probes.information import entropy
from probes.matching import together


def diversity(heaviest: Int[np.ndarray, "n_tokens n_layers"]) -> DataFrame:
    """How many paths there are, by the heaviest expert of each layer: measure, value.

    distinct = paths taken; effective = exp(entropy of paths); independent and markov = exp of the entropy of chains
    with the same shares by layer, and by pair of neighbouring layers; n_tokens bounds the first two, not the chains.
    """
    if not isinstance(heaviest, np.ndarray):
        raise ValueError(f"heaviest is an array (tokens, layers) of experts, not {type(heaviest).__name__}")
    if heaviest.ndim != 2 or not heaviest.size:
        raise ValueError(f"heaviest has shape {heaviest.shape}; give (tokens, layers), the heaviest expert of each")
    if heaviest.dtype.kind not in "iu":
        raise ValueError("heaviest holds no experts; give whole numbers from 0, as routers number them")
    if heaviest.min() < 0:
        raise ValueError("heaviest holds -1: leave out tokens that no expert of some layer got")
    _, n = np.unique(heaviest, axis=0, return_counts=True)
    heaviest = np.unique(heaviest, return_inverse=True)[1].reshape(heaviest.shape)
    width = int(heaviest.max()) + 1
    alone = [entropy(np.bincount(column)) for column in heaviest.T]
    neighbours = zip(heaviest.T, heaviest.T[1:], strict=False)
    pairs = [entropy(together(a, b, width, width).ravel()) for a, b in neighbours]
    chain = alone[0] + sum(joint - h for joint, h in zip(pairs, alone, strict=False))
    values = {"distinct": len(n), "effective": np.exp(entropy(n)), "independent": np.exp(sum(alone))}
    values |= {"markov": np.exp(chain), "n_tokens": len(heaviest)}
    return DataFrame({"measure": list(values), "value": [float(v) for v in values.values()]})
