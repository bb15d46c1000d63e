"""How near a layer's experts are to constants, to affine maps, and to each other: one number a layer and measure.

    constant_fvu   sum |o - m_e|^2 / sum |o|^2                      over the layer's (token, expert) pairs
    affine_fvu     sum |o - (A_e x + b_e)|^2 / sum |o - mean_e o|^2
    mean_cost      loss (nats a token) with every expert of the layer replaced by m_e, less the loss as it is
    output_cosine  mean over pairs of experts of the cosine of their outputs for the same token, used or not
    neuron_cosine  mean over pairs of experts of the largest |cosine| that a neuron's column has with one of the other

m_e, A_e, b_e are fitted on every other document and scored on those between (see `expert_fits`).  Chance is the same of
the architecture as initialised, which routes by cells of its input as well; for `mean_cost` it is the cost of leaving
all experts of the layer out.  Attention sinks and the first positions of windows are counted nowhere but in the costs.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pandas import DataFrame
from torch import Tensor

from data.corpus import Corpus
from data.progress import Progress, silent, within
from probes import stream
from probes.ablation import Replacement, replaced
from probes.controls import random_init
from probes.expert_fits import SITES, Fits, Moments
from probes.expert_similarity import downs, neuron_cosines, same_token_cosine
from probes.firing import interval, jackknife
from probes.keeping import cut, document_losses, halves
from probes.models import LanguageModel
from probes.models.moe import RoutedModel
from probes.sinks import KEPT
from probes.stream import N_BLOCKS, Observation, StreamConfig

COLUMNS = ["layer", "measure", "value", "low", "high", "chance", "n_tokens"]
SHOWN = 512
"""Tokens that every expert of a layer is shown, evenly from the text."""
COMPARED = 32
"""Experts of a layer whose matrices are compared, drawn at random where there are more."""
COST_TOKENS = 5_000
"""Tokens on which costs are measured."""


def measure(
    model: LanguageModel,
    corpus: Corpus,
    n_tokens: int = 20_000,
    *,
    config: StreamConfig | None = None,
    progress: Progress = silent,
) -> DataFrame:
    """One row a layer and measure: `layer, measure, value, low, high, chance, n_tokens`.

    Half of the tokens fit, half score.  Intervals (95%): documents resampled; of weights, experts left out in turn.
    Memory: n_experts d_model^2 numbers a layer.  Raises ValueError for a model without experts, or one document.
    """
    if not isinstance(model, RoutedModel):
        raise ValueError(f"{model.title} has no experts, so none can be a constant; name a mixture of experts")
    config = (config or StreamConfig()).model_copy(update={"n_tokens": n_tokens // 2})
    fitted, scored = halves(corpus, config.seed)
    untrained = random_init(model, config.seed)
    assert isinstance(untrained, RoutedModel)
    real, fits = _rows(model, fitted, scored, config, within(progress, 0, 3))
    chance, _ = _rows(untrained, fitted, scored, config, within(progress, 1, 3))
    together = real.assign(chance=chance["value"])
    costs = _costs(model, fits, scored, config, within(progress, 2, 3))
    found = [*together.to_dict("records"), *costs]
    return DataFrame(found, columns=COLUMNS).sort_values(["measure", "layer"], ignore_index=True)


def _rows(
    model: RoutedModel, fitted: Corpus, scored: Corpus, config: StreamConfig, progress: Progress
) -> tuple[DataFrame, dict[int, Fits]]:
    seen = _Fitting(model)
    stream.run(model, fitted, {"moments": seen}, config, stage="fitting", progress=within(progress, 0, 2))
    fits = {layer: Fits.to(moments) for layer, moments in seen.moments.items()}
    score = _Scoring(model, fits, max(config.n_tokens // SHOWN, 1))
    stream.run(model, scored, {"scores": score}, config, stage="scoring", progress=within(progress, 1, 2))
    rows = [row for layer in fits for row in (*score.left(layer), *_alike(model, layer, *score.shown(layer), config))]
    return DataFrame(rows, columns=[*COLUMNS[:-2], "n_tokens"]), fits


class _Pass:
    """An accumulator of one uninterrupted pass."""

    sites = SITES

    def merge(self, other: Any) -> None:
        raise NotImplementedError("experts are fitted in one pass")

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def restore(self, state: Any) -> None:
        return

    def tables(self) -> Any:
        return {}


class _Fitting(_Pass):
    """Moments of inputs and outputs of every expert."""

    def __init__(self, model: RoutedModel):
        self.moments: dict[int, Moments] = {}
        d = model.d_model
        for layer, block in enumerate(model.blocks):
            shapes = ((), (d,), (d,), (d, d), (d, d), ())
            empty = (torch.zeros(block.n_experts, *shape, dtype=torch.float64) for shape in shapes)
            if block.n_experts:
                self.moments[layer] = Moments(*empty)

    def update(self, seen: Observation) -> None:
        if seen.layer in self.moments:
            self.moments[seen.layer].add(*(seen.sites[site][seen.group == KEPT].cpu() for site in SITES))


class _Scoring(_Pass):
    """What constants and affine maps leave of the outputs, by block of documents; and some inputs."""

    def __init__(self, model: RoutedModel, fits: dict[int, Fits], stride: int):
        self.fits, self.stride = fits, stride
        self.sums = {layer: _Sums(len(of.mean), model.d_model) for layer, of in fits.items()}
        self.inputs: dict[int, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in fits}

    def update(self, seen: Observation) -> None:
        if seen.layer not in self.fits:
            return
        kept = seen.group == KEPT
        x, index, outputs = (seen.sites[site][kept].cpu() for site in SITES)
        block = seen.tokens.block[kept.cpu()]
        self.inputs[seen.layer].append((x[:: self.stride], block[:: self.stride]))
        self.sums[seen.layer].add(x, index, outputs, block, self.fits[seen.layer])

    def left(self, layer: int) -> list[tuple[Any, ...]]:
        """Rows of `constant_fvu` and `affine_fvu`."""
        sums, mean = self.sums[layer], self.fits[layer].mean.double()
        own = sums.o.sum(0) / sums.n.sum(0).clamp(min=1)[:, None]
        energy, n = sums.oo.sum(1).numpy(), int(sums.tokens.sum())
        of_affine = sums.around(own).numpy()
        pairs = {"constant_fvu": (sums.around(mean).numpy(), energy), "affine_fvu": (sums.affine.numpy(), of_affine)}
        return [(layer, name, a.sum() / b.sum(), *interval(a, b), n) for name, (a, b) in pairs.items()]

    def shown(self, layer: int) -> tuple[Tensor, Tensor]:
        """Inputs that all experts are shown, and their blocks."""
        x, block = (torch.cat(parts) for parts in zip(*self.inputs[layer], strict=True))
        return x, block


class _Sums:
    """Sums of the outputs and of what the affine maps leave, by block of documents and expert."""

    def __init__(self, n_experts: int, d_model: int):
        self.tokens = torch.zeros(N_BLOCKS, dtype=torch.float64)
        self.n = torch.zeros(N_BLOCKS, n_experts, dtype=torch.float64)
        self.oo = torch.zeros(N_BLOCKS, n_experts, dtype=torch.float64)
        self.o = torch.zeros(N_BLOCKS, n_experts, d_model, dtype=torch.float64)
        self.affine = torch.zeros(N_BLOCKS, dtype=torch.float64)

    def add(self, x: Tensor, index: Tensor, outputs: Tensor, block: Tensor, fits: Fits) -> None:
        """Take in tokens."""
        self.tokens.index_add_(0, block, torch.ones(len(block), dtype=torch.float64))
        for expert in index.unique().tolist():
            if expert < 0:
                continue
            token, slot = (index == expert).nonzero(as_tuple=True)
            made, at = outputs[token, slot].double(), block[token]
            guessed = x[token].double() @ fits.matrix[expert].double() + fits.offset[expert].double()
            self.n[:, expert].index_add_(0, at, torch.ones(len(at), dtype=torch.float64))
            self.oo[:, expert].index_add_(0, at, made.square().sum(1))
            self.o[:, expert].index_add_(0, at, made)
            self.affine.index_add_(0, at, (made - guessed).square().sum(1))

    def around(self, centre: Float[Tensor, "n_experts d_model"]) -> Float[Tensor, " blocks"]:
        """sum |o - centre_e|^2 of each block."""
        crossed = (self.o * centre).sum(-1)
        return (self.oo - 2 * crossed + self.n * centre.square().sum(-1)).sum(1)


def _alike(model: RoutedModel, layer: int, x: Tensor, block: Tensor, config: StreamConfig) -> Iterator[tuple[Any, ...]]:
    """Rows of `output_cosine` and `neuron_cosine`."""
    n_experts = model.blocks[layer].n_experts
    cosine = same_token_cosine(model, layer, x).double().numpy()
    at, cosine = block.numpy()[np.isfinite(cosine)], cosine[np.isfinite(cosine)]
    sums, counts = np.bincount(at, cosine, N_BLOCKS), np.bincount(at, minlength=N_BLOCKS)
    yield layer, "output_cosine", cosine.mean(), *interval(sums, counts), len(cosine)
    drawn = np.sort(np.random.default_rng([config.seed, layer]).permutation(n_experts)[:COMPARED])
    columns = downs(model, layer, drawn.tolist())
    if columns is not None and len(drawn) > 2:
        alike = neuron_cosines(columns).double().numpy()

        def over(experts: np.ndarray) -> float:
            part = alike[np.ix_(experts, experts)]
            return float((part.sum() - np.trace(part)) / (len(experts) * (len(experts) - 1)))

        yield layer, "neuron_cosine", *jackknife(np.ones(len(drawn)), over), float("nan")


def _costs(
    model: RoutedModel, fits: dict[int, Fits], scored: Corpus, config: StreamConfig, progress: Progress
) -> Iterator[dict[str, Any]]:
    """Rows of `mean_cost`."""
    config = config.model_copy(update={"n_tokens": min(COST_TOKENS, config.n_tokens)})
    text = cut(model, scored, config)
    plain = document_losses(model, text, {})
    n = plain["n_tokens"].to_numpy()
    for step, (layer, of) in enumerate(fits.items()):
        lost = {}
        ways: tuple[Replacement, ...] = ("mean", "zero")
        for way in ways:
            with replaced(model, layer, dict.fromkeys(range(len(of.mean)), way), of):
                lost[way] = (document_losses(model, text, {})["loss"] - plain["loss"]).to_numpy()
        low, high = interval(lost["mean"], n)
        value, chance = (float(lost[way].sum() / n.sum()) for way in ways)
        row = {"layer": layer, "measure": "mean_cost", "value": value, "low": low, "high": high, "chance": chance}
        yield row | {"n_tokens": int(n.sum())}
        progress(step + 1, len(fits), f"costs of layer {layer}")
