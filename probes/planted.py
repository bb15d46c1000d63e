"""Sparse codes to plant in a dictionary: which features are active, with what magnitudes and signs."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Signs = Literal["random", "positive", "adversarial"]
Supports = Shaped[Tensor, "n width"] | Shaped[np.ndarray, "n width"] | Sequence[Sequence[int]] | None


class SupportSource:
    """Draws supports of exactly k features: uniformly, or from supports seen in use.

    `given` may be None (uniform); lists of feature indices, one a sample (as an integer matrix, -1 for empty places, or
    as lists of different length), like the experts or dictionary features active on a token; or a matrix of codes
    (n, n_features), floating or boolean, whose largest |entries| in a row are its support.  A sample with more than k
    active features gives k of them: the largest of a code, the first of a list; one with fewer is not used.
    """

    def __init__(self, given: Supports, n_features: int):
        self.n_features = n_features
        self.name = "uniform" if given is None else "given"
        self.most = n_features
        """Active features of the largest support that can be drawn."""
        self._lists: list[np.ndarray] | None = None
        if given is None:
            return
        lists = _as_lists(given, n_features)
        for row, chosen in enumerate(lists):
            if len(chosen) and (chosen.min() < 0 or chosen.max() >= n_features):
                raise ValueError(f"support {row} names feature {int(chosen.max())}; the dictionary has {n_features}")
            if len(np.unique(chosen)) != len(chosen):
                raise ValueError(f"support {row} names a feature twice")
        self._lists = lists
        self.most = max((len(chosen) for chosen in lists), default=0)
        if not self.most:
            raise ValueError("the supports given have no active feature at all")

    def draw(self, k: int, trials: int, generator: torch.Generator) -> Int[Tensor, "trials k"]:
        """`trials` supports of k features; ValueError if no given sample has that many."""
        if self._lists is None:
            if k * k * 4 > self.n_features:
                return torch.rand(trials, self.n_features, generator=generator).topk(k, dim=1).indices
            drawn = torch.randint(0, self.n_features, (trials, k), generator=generator)
            while True:  # few features out of many: draw again what repeats itself
                ordered = drawn.sort(1).values
                again = (ordered[:, 1:] == ordered[:, :-1]).any(1)
                if not again.any():
                    return drawn
                drawn[again] = torch.randint(0, self.n_features, (int(again.sum()), k), generator=generator)
        enough = [chosen[:k] for chosen in self._lists if len(chosen) >= k]
        if not enough:
            raise ValueError(f"k={k}, but the supports given have at most {self.most} active features")
        pick = torch.randint(0, len(enough), (trials,), generator=generator).numpy()
        return torch.from_numpy(np.stack(enough)[pick].astype(np.int64))


def coefficients(
    k: int, trials: int, magnitudes: tuple[float, float], generator: torch.Generator
) -> Float[Tensor, "trials k"]:
    """Magnitudes drawn uniformly between the two given, with random signs."""
    low, high = magnitudes
    size = low + (high - low) * torch.rand(trials, k, generator=generator, dtype=torch.float64)
    sign = torch.randint(0, 2, (trials, k), generator=generator, dtype=torch.float64) * 2 - 1
    return size * sign


def adversarial_signs(
    V: Float[Tensor, "d_model n_features"], supports: Int[Tensor, "trials k"]
) -> Float[Tensor, "trials k"]:
    """Signs that help the most dangerous rival: all active features push <v_j, x> of one inactive j the same way.

    The rival is the inactive feature of largest sum |<v_j, v_s>| over the support; no signs raise any rival higher.
    """
    out = []
    for part in supports.split(max(1, 2**24 // (V.shape[1] * supports.shape[1]))):
        active = V.t()[part]  # (n, k, d)
        cosines = active @ V  # (n, k, F)
        danger = cosines.abs().sum(1).scatter_(1, part, -1)
        rival = danger.argmax(1)
        toward = cosines.gather(2, rival[:, None, None].expand(-1, part.shape[1], 1))[:, :, 0]
        out.append(torch.where(toward < 0, -1.0, 1.0))
    return torch.cat(out)


def magnitude_range(amplitudes: Any) -> tuple[float, float]:
    """`amplitudes` as (least, greatest): None or "equal" is (1, 1), a number r is (1, r), a pair is itself."""
    if amplitudes is None or amplitudes == "equal":
        return 1.0, 1.0
    pair = (1.0, amplitudes) if isinstance(amplitudes, int | float) else tuple(amplitudes)
    if len(pair) != 2 or not 0 < float(pair[0]) <= float(pair[1]) < float("inf"):
        raise ValueError(f"amplitudes={amplitudes} is not a range (least, greatest) with 0 < least <= greatest")
    return float(pair[0]), float(pair[1])


def _as_lists(given: Any, n_features: int) -> list[np.ndarray]:
    if isinstance(given, Tensor) and (given.is_complex() or given.layout != torch.strided):
        raise ValueError("supports are a dense matrix of real numbers")
    if isinstance(given, Tensor):
        given = given.detach().cpu().float().numpy() if given.is_floating_point() else given.detach().cpu().numpy()
    if isinstance(given, np.ndarray) and given.ndim != 2:
        raise ValueError(f"supports are a matrix, one row a sample; got shape {given.shape}")
    if isinstance(given, np.ndarray) and given.dtype.kind in "fb":
        if given.shape[1] != n_features:
            raise ValueError(f"codes have {given.shape[1]} columns; the dictionary has {n_features} features")
        if not np.isfinite(given).all():
            raise ValueError("codes hold NaN or infinity")
        counts = (given != 0).sum(1)
        order = np.argsort(-1.0 * np.abs(given), axis=1, kind="stable")
        return [row[:count] for row, count in zip(order, counts, strict=True)]
    try:
        rows = [np.asarray(row).reshape(-1) for row in given]
    except (TypeError, ValueError) as error:
        raise ValueError(f"supports are lists of features, not {type(given).__name__} of something else") from error
    if any(len(row) and row.dtype.kind not in "iu" for row in rows):
        raise ValueError("supports are lists of features, whole numbers; codes are a matrix of floating numbers")
    rows = [row.astype(np.int64) for row in rows]
    return [row[row != -1] for row in rows]
