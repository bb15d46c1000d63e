"""What turns router logits into probabilities, found from the weights that were used."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

if TYPE_CHECKING:
    from probes.models.moe import RoutedModel

SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
    "sqrt softplus": lambda logits: softplus(logits).sqrt(),
    "as given": torch.relu,
}
"""How families score experts, the commonest first.  Gemma 4's router gives probabilities under the name of logits."""
PROBE_TOKENS = 64
TOLERANCE = 0.02
"""Largest relative spread, above what rounding of 16 bits leaves, at which weights count as proportional to scores."""


def probabilities(logits: Float[Tensor, "tokens n_experts"], score: str) -> Float[Tensor, "tokens n_experts"]:
    """Scores divided by their sum over all experts, in float32: softmax, or the normalised sigmoid of DeepSeek-V3."""
    found = SCORES[score](logits.float())
    return found / found.sum(dim=-1, keepdim=True).clamp(min=1e-20)


def find(model: "RoutedModel") -> tuple[str, ...]:
    """For each layer, the score under which the weights used are proportional to the scores of the experts used.

    Looked up once on 64 fixed tokens.  Families renormalise and scale weights, which leaves their ratios within a
    token; with k = 1 the ratio over tokens decides.  Where no score fits (PhiMoE weighs by a masked softmax) or all do
    (k = 1 with weight 1) it is softmax.  `none` in layers without experts.
    """
    ids = (torch.arange(PROBE_TOKENS) * 7919 % model.vocab_size)[None]
    seen: dict[int, dict[str, Tensor]] = {}
    sites = ("router_logits", "expert_index", "expert_weight")
    model.observe(ids, sites, lambda layer, found: seen.update({layer: found}))
    return tuple(_best(seen[layer]) if seen.get(layer) else "none" for layer in range(model.n_layers))


def _best(seen: dict[str, Tensor]) -> str:
    logits, index, weight = (seen[s].flatten(0, 1) for s in ("router_logits", "expert_index", "expert_weight"))
    used = (index >= 0).all(dim=-1) & (index < logits.shape[-1]).all(dim=-1)
    spread = {name: _spread(score(logits.float()), index, weight.float(), used) for name, score in SCORES.items()}
    name = min(spread, key=lambda n: spread[n])
    return name if spread[name] < TOLERANCE else "softmax"


def _spread(scores: Tensor, index: Tensor, weight: Tensor, used: Tensor) -> float:
    ratio = (weight[used] / scores[used].gather(1, index[used]).clamp(min=1e-20)).double()
    if ratio.shape[1] == 1:
        ratio = ratio.T
    mean = ratio.mean(dim=1)
    spread = float(((ratio.amax(1) - ratio.amin(1)) / mean).mean())
    return spread if spread == spread else float("inf")
