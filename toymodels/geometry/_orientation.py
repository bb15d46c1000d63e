"""One deterministic orientation for every rotation of the same geometry."""

import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.geometry._measures import check
from toymodels.geometry._recognition import recognize


def canonical_rotation(W: Float[Tensor, "d_hidden n_features"]) -> Float[Tensor, "d_hidden d_hidden"]:
    """The orthogonal Q for which Q @ W depends on W^T W alone, so that two runs of one polytope plot alike.

    Pieces of the geometry (`recognize`) take axes of their own, the largest first; within a piece the vertices are
    taken in the order of the ideal polytope: the first lies on its first axis, the second in the positive half of the
    plane of the first two, and so on (Gram-Schmidt, skipping directions already spanned).  Apply the Q of the last
    snapshot to all of them and a film of training does not tumble.  Q may reflect.
    Meaningless for a hidden ReLU, whose axes are neurons.
    """
    recognition = recognize(W)
    order = [f for part in recognition.parts for f in part.features]
    order += sorted(recognition.unrepresented, key=lambda f: -float(W[:, f].norm()))
    columns = W.detach().double()
    least = 1e-6 * float(columns.norm(dim=0).max())
    axes = torch.zeros(0, W.shape[0], dtype=torch.float64, device=W.device)
    # Directions barely outside the span would put noise on an axis of its own, so clear ones are taken first.
    for share in (0.1, 0.0):
        for feature in order:
            column = columns[:, feature]
            residual = column - axes.T @ (axes @ column)
            residual = residual - axes.T @ (axes @ residual)
            if len(axes) < W.shape[0] and residual.norm() > max(share * float(column.norm()), least):
                axes = torch.cat([axes, (residual / residual.norm())[None]])
    return _completed(axes).to(W.dtype)


def orient(W: Float[Tensor, "*stack d_hidden n_features"]) -> Float[Tensor, "*stack d_hidden n_features"]:
    """W in its canonical orientation; a stack (snapshots in order of time) is turned by the rotation of its last."""
    last = check(W).reshape(-1, *W.shape[-2:])[-1]
    return canonical_rotation(last) @ W


def _completed(axes: Tensor) -> Tensor:
    """Orthonormal rows completed to a square orthogonal matrix; the added rows are orthogonal to all features."""
    missing = axes.shape[1] - len(axes)
    if not missing:
        return axes
    rest = torch.linalg.svd(axes)[2][len(axes) :] if len(axes) else torch.eye(axes.shape[1], dtype=axes.dtype)
    return torch.cat([axes, rest])
