"""Which features a neuron answers to, where the hidden axes mean something (hidden ReLU, privileged basis)."""

from jaxtyping import Float
from pandas import DataFrame
from torch import Tensor

from toymodels.geometry._measures import check


def neurons(W: Float[Tensor, "d_hidden n_features"], *, share: float = 0.2, represented: float = 0.1) -> DataFrame:
    """One row a neuron: `neuron, norm, n_features, effective_features, top_feature, top_share, kind`.

    `n_features` counts the weights of at least `share` times the neuron's largest; `effective_features` is the
    participation ratio (sum w^2)^2 / sum w^4, which needs no threshold; `top_share` is max w^2 / sum w^2.
    `kind` is `monosemantic` (one feature), `polysemantic` (several) or `dead` (norm below `represented` times the
    largest neuron's).  Source of the terms: Elhage et al. 2022, "Superposition in a privileged basis".
    """
    check(W)
    if W.ndim != 2:
        raise ValueError(f"neurons takes one matrix (d_hidden, n_features), not shape {tuple(W.shape)}")
    if not 0 < share <= 1:
        raise ValueError(f"share={share} is not in (0, 1]: it is a share of the neuron's largest weight")
    weights = W.detach().double().abs()
    largest, top = weights.max(dim=1)
    norms = weights.norm(dim=1)
    if not bool(norms.isfinite().all()):
        raise ValueError("the squares of W's entries do not fit torch.float64; scale W down")
    alive = (norms >= represented * norms.max()) & (norms > 0)
    scaled = weights / largest.clamp_min(1e-300).unsqueeze(1)
    squares = scaled.square()
    counts = (scaled >= share).sum(1) * alive
    energy = squares.sum(1).clamp_min(1e-300)
    kinds = [
        "dead" if not a else "monosemantic" if c == 1 else "polysemantic" for a, c in zip(alive, counts, strict=True)
    ]
    return DataFrame(
        {
            "neuron": range(len(norms)),
            "norm": norms.numpy(),
            "n_features": counts.numpy(),
            "effective_features": (alive * energy.square() / squares.square().sum(1).clamp_min(1e-300)).numpy(),
            "top_feature": top.numpy(),
            "top_share": (alive / energy).numpy(),
            "kind": kinds,
        }
    )
