"""How many neurons pass a threshold, and the thresholds that published methods of sparse inference would choose.

    density_absolute   share of neurons with |z| >= t
    density_rms        share with |z| >= t * (root mean square of the layer's z)
    threshold_teal     size below which the share p of a layer's z lie (TEAL: one quantile a tensor)
    threshold_teal_input   the same for the FFN's input
    threshold_cats     size below which the share p of |act(gate)| lie (CATS; gated blocks)
    density_cett       share of neurons with |z_i| ||w_i|| >= e, where e is the layer's threshold at which the neurons
                       below it make the share c of the output's length: mean ||sum_tail z_i w_i|| / ||sum z_i w_i|| = c

z = act(gate) * up (gated) or act(in), w_i the neuron's column of the down-projection.  Densities depend on the scale of
the weights (an untrained network's z are small), so each is to be read beside its controls.
Sources: TEAL (Liu et al. 2024), CATS (Lee et al. 2024), CETT (Zhang et al. 2024, ReLU^2 wins; Luo et al. 2024).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from pandas import DataFrame
from torch import Tensor

from data.tables import Tables
from probes.dictionaries import of_model
from probes.firing import N_FOLDS, Sums, jackknife
from probes.histogram import LogHistogram, folds, root_mean_square, share_below, size_quantile
from probes.models import LanguageModel
from probes.stream import Accumulator, Observation

ABSOLUTE = (1e-3, 1e-2, 1e-1, 1.0)
RELATIVE = (0.01, 0.1, 0.3, 1.0)
SHARES = (0.25, 0.4, 0.5, 0.65, 0.9)
TAILS = (0.05, 0.1, 0.2, 0.5)
"""Settings measured: thresholds t (absolute, rms-relative), inactive shares p (TEAL, CATS), tail errors c (CETT)."""

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": torch.nn.functional.silu,
    "swish": torch.nn.functional.silu,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "gelu_new": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
}
"""Activation functions by their names in models' settings."""


class Tails(Sums):
    """Length of what the neurons below a threshold add, and how many there are, on every 256th token.

    Thresholds on |z_i| ||w_i|| are the half powers of two from a 4,096th of the batch's largest; below them a tail
    counts as nothing, above as everything, so that any two passes can be merged.
    """

    sites = ("neurons",)
    GRID = 2.0 ** (np.arange(-60, 41) / 2)
    SPAN = 24

    def __init__(self, model: LanguageModel, stride: int = 256):
        shape = (model.n_layers, N_FOLDS, len(self.GRID), 2)
        super().__init__(sums=np.zeros(shape), tokens=np.zeros(shape[:2], dtype=np.int64))
        self.stride = stride
        self._grid = torch.from_numpy(self.GRID).float()
        self.down = {
            layer: of_model(model, f"layer-{layer}-down").matrix
            for layer, block in enumerate(model.blocks)
            if block.kind == "dense"
        }
        self.lengths = {layer: torch.as_tensor(w).float().norm(dim=0) for layer, w in self.down.items()}

    def update(self, seen: Observation) -> None:
        """Add tail lengths and densities of the sampled tokens at every threshold."""
        if "neurons" not in seen.sites or seen.layer not in self.down:
            return
        start = seen.tokens.start % self.stride
        fold, z = folds(seen)[start :: self.stride], seen.sites["neurons"][start :: self.stride]
        if not len(z):
            return
        used = (fold >= 0) & (z != 0).any(dim=1)
        place = fold.masked_fill(~used, N_FOLDS)  # of no use: behind the last fold, and left out
        sums = torch.zeros(N_FOLDS + 1, len(self.GRID), 2, dtype=torch.float64, device=z.device)
        self.add("sums", seen.layer, sums.index_add_(0, place, self._tails(z, seen.layer, used))[:N_FOLDS])
        self.add("tokens", seen.layer, (place[:, None] == torch.arange(N_FOLDS, device=z.device)).sum(dim=0))

    def _tails(
        self, z: Float[Tensor, "n d_mlp"], layer: int, used: Bool[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n n_thresholds 2"]:
        """Relative length of the tail, and share of neurons at or above the threshold; no step waits for a GPU."""
        down = torch.as_tensor(self.down[layer])
        size = z.float().abs() * self.lengths[layer]
        if self._grid.device != size.device:
            self._grid = self._grid.to(size.device)
        grid = self._grid
        largest = (size if used is None else size.masked_fill(~used[:, None], 0)).max()
        last = (grid <= largest).sum()
        every = torch.arange(len(self.GRID), device=z.device)
        out = torch.stack([every >= last, every < last - self.SPAN], dim=1).double().repeat(len(z), 1, 1)
        near = (last - self.SPAN).clamp(min=0) + every[: self.SPAN]
        whole = (z @ down.T).float().norm(dim=1).clamp(min=1e-30)
        below = size[:, None, :] < grid[near][:, None]
        tail = ((z[:, None, :] * below) @ down.T).float().norm(dim=2) / whole[:, None]
        found = torch.stack([tail, 1 - below.float().mean(dim=2)], dim=2).double()
        return out.index_copy_(1, near, torch.where((near < last)[:, None], found, out[:, near]))

    def tables(self) -> Tables:
        """None; `at` reads the curve."""
        return Tables()

    def at(self, sums: np.ndarray, n_tokens: float, tail: float) -> float:
        """Density where the mean tail is `tail`, between two thresholds in proportion; NaN for no tokens."""
        if not n_tokens:
            return float("nan")
        lengths, density = (sums / n_tokens).T
        return float(np.interp(tail, np.maximum.accumulate(lengths), density))


class Thresholds:
    """All measures of this module from one pass: three histograms and the tails."""

    def __init__(self, model: LanguageModel):
        self.blocks = model.blocks
        self.neurons, self.inputs = LogHistogram(model, "neurons"), LogHistogram(model, "ffn_input", stride=4)
        self.gates, self.tails = LogHistogram(model, "gate", stride=4), Tails(model)

    def parts(self) -> dict[str, Accumulator]:
        """What the stream is given."""
        return {"sizes": self.neurons, "input_sizes": self.inputs, "gate_sizes": self.gates, "tails": self.tails}

    def tables(self) -> Tables:
        """`thresholds`: layer, measure, setting, value, low, high (95%, jackknife over folds of documents), n_tokens.

        n_tokens are the tokens sampled for the measure.
        """
        rows: list[dict[str, Any]] = []
        for layer in range(len(self.blocks)):
            rows += self._densities(layer)
            rows += self._quantiles(layer, "threshold_teal", self.neurons)
            rows += self._quantiles(layer, "threshold_teal_input", self.inputs)
            rows += self._gate_quantiles(layer)
            rows += self._tails(layer)
        return Tables(thresholds=DataFrame([row for row in rows if row["n_tokens"]]))

    def _densities(self, layer: int) -> list[dict[str, Any]]:
        counts, tokens = self.neurons.fold_sizes(layer)
        centres, atoms = self.neurons.centres(), self.neurons.atoms

        def absolute(keep: np.ndarray, t: float) -> float:
            return 1 - share_below(counts[keep].sum(axis=0), t, atoms)

        def relative(keep: np.ndarray, t: float) -> float:
            return absolute(keep, t * root_mean_square(counts[keep].sum(axis=0), centres))

        rows = [_row(layer, "density_absolute", t, tokens, absolute) for t in ABSOLUTE]
        return rows + [_row(layer, "density_rms", t, tokens, relative) for t in RELATIVE]

    def _quantiles(self, layer: int, measure: str, histogram: LogHistogram) -> list[dict[str, Any]]:
        counts, tokens = histogram.fold_sizes(layer)

        def quantile(keep: np.ndarray, p: float) -> float:
            return size_quantile(counts[keep].sum(axis=0), p, histogram.atoms)

        return [_row(layer, measure, p, tokens, quantile) for p in SHARES]

    def _gate_quantiles(self, layer: int) -> list[dict[str, Any]]:
        block = self.blocks[layer]
        function = ACTIVATIONS.get(block.activation)
        if not block.gated or function is None:
            return []
        held, tokens = self.gates.mapped(layer, function), self.gates.arrays["tokens"][layer]
        return [_row(layer, "threshold_cats", p, tokens, held.quantile) for p in SHARES]

    def _tails(self, layer: int) -> list[dict[str, Any]]:
        sums, tokens = self.tails.arrays["sums"][layer], self.tails.arrays["tokens"][layer]

        def density(keep: np.ndarray, c: float) -> float:
            return self.tails.at(sums[keep].sum(axis=0), tokens[keep].sum(), c)

        return [_row(layer, "density_cett", c, tokens, density) for c in TAILS]


def _row(
    layer: int, measure: str, setting: float, tokens: np.ndarray, of: Callable[[np.ndarray, float], float]
) -> dict[str, Any]:
    """The value of all folds with its 95% interval."""
    value, low, high = jackknife(tokens, lambda folds: of(folds, setting))
    found = {"layer": layer, "measure": measure, "setting": setting, "value": value, "low": low, "high": high}
    return found | {"n_tokens": int(tokens.sum())}
