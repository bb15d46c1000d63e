"""Fit every cell of a phase diagram by gradient descent on the exact loss, best of several starts."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from pandas import DataFrame
from torch import Tensor

from data.progress import Progress, silent, within
from toymodels.phase._candidates import PHASES, candidate_losses, candidate_solutions, theoretical_phase
from toymodels.phase._quadrature import loss_and_gradients

_TOGETHER = 8192  # fits in one stack: arrays of a few hundred kB hide the cost of a call
_RATE = 0.05
_MEMORY = 0.95  # of squared gradients: they shrink by 1 / density once the features part, and Adam must notice


def grid(
    resolution: int = 32,
    *,
    densities: tuple[float, float] = (0.01, 1.0),
    importances: tuple[float, float] = (0.1, 10.0),
) -> tuple[np.ndarray, np.ndarray]:
    """Densities and relative importances of the cells, both evenly spaced in their logarithm."""
    if not (isinstance(resolution, int) and 2 <= resolution <= 4_096):
        raise ValueError(f"resolution={resolution} has no two cells to compare; choose 2 to 4096")
    for name, (low, high), top in (("densities", densities, 1.0), ("importances", importances, math.inf)):
        if not 0 < low < high <= top or not math.isfinite(high):
            raise ValueError(f"{name}=({low}, {high}) must rise and lie in (0, {top}]")
    return np.geomspace(*densities, resolution), np.geomspace(*importances, resolution)


def diagram(
    resolution: int = 32,
    *,
    n_features: int = 2,
    seeds: int = 10,
    steps: int | None = None,
    seed: int = 0,
    densities: tuple[float, float] = (0.01, 1.0),
    importances: tuple[float, float] = (0.1, 10.0),
    progress: Progress = silent,
) -> DataFrame:
    """Measured and theoretical phase of each cell: n = 2 features in m = 1 dimension, or 3 in 2.

    Each cell is fitted from `seeds` random starts (Xavier-normal W, b = 0) with `steps` steps of Adam on the exact
    loss (200, or 400 for three features), and the best is kept: one start alone finds the best solution in about three
    cells of four.  The measured phase is the candidate whose W^T W is nearest to the fitted one (Frobenius).

    Columns, one row a cell: `density, relative_importance, row, column, measured, theory, agrees, off_boundary` (all
    eight neighbours have the same theoretical phase), `loss` (best of seeds; sum over features), `loss_theory`,
    `margin` (relative loss of the second-best candidate above the best), `single_fits_agreeing` (share of the starts
    that ended in the theoretical phase), `seeds`, and `loss: <candidate>` for each candidate.
    Raises ValueError for settings that make no diagram; `progress` may raise `Cancelled`.
    Source: Elhage et al. 2022, "Superposition as a phase change".
    """
    if n_features not in PHASES:
        raise ValueError(f"n_features={n_features}: phase diagrams exist for 2 features (m = 1) and 3 (m = 2)")
    steps = {2: 200, 3: 400}[n_features] if steps is None else steps
    if not (isinstance(seeds, int) and isinstance(steps, int) and 1 <= seeds <= 10_000 and steps >= 1):
        raise ValueError(f"seeds={seeds} and steps={steps} must both be 1 or more, and seeds at most 10,000")
    s, r = grid(resolution, densities=densities, importances=importances)
    rows, columns = (axis.ravel() for axis in np.meshgrid(np.arange(resolution), np.arange(resolution), indexing="ij"))
    density, relative = s[rows], r[columns]
    W, loss = _fit(density, relative, n_features, seeds, steps, seed, progress)
    best = loss.argmin(dim=1)
    measured = measured_phase(W[torch.arange(len(best)), best], n_features)
    every = measured_phase(W.flatten(0, 1), n_features).reshape(len(best), seeds)
    theory = theoretical_phase(density, relative, n_features)
    candidates = candidate_losses(density, relative, n_features)
    ranked = np.sort(np.stack(list(candidates.values())), axis=0)
    return DataFrame(
        {
            "density": density,
            "relative_importance": relative,
            "row": rows,
            "column": columns,
            "measured": measured,
            "theory": theory,
            "agrees": measured == theory,
            "off_boundary": _off_boundary(theory.reshape(resolution, resolution)).ravel(),
            "loss": loss.min(dim=1).values.numpy(),
            "loss_theory": ranked[0],
            "margin": ranked[1] / ranked[0] - 1,
            "single_fits_agreeing": (every == theory[:, None]).mean(axis=1),
            "seeds": seeds,
            **{f"loss: {name}": values for name, values in candidates.items()},
        }
    )


def agreement(table: DataFrame) -> DataFrame:
    """How well a diagram agrees with theory: one row with cells, shares of agreement and seeds."""
    off = table[table["off_boundary"]]
    return DataFrame(
        {
            "cells": [len(table)],
            "agreeing": [table["agrees"].mean()],
            "cells_off_boundary": [len(off)],
            "agreeing_off_boundary": [off["agrees"].mean()],
            "single_fits_agreeing": [table["single_fits_agreeing"].mean()],
            "seeds": [int(table["seeds"].iloc[0])],
        }
    )


def measured_phase(W: Float[Tensor, "stack d_hidden n_features"], n_features: int) -> np.ndarray:
    """Name of the candidate whose W^T W is nearest in the Frobenius norm, for each matrix of a stack."""
    G = W.transpose(-1, -2) @ W
    names, distances = [], []
    for name, variants in candidate_solutions(0.0, n_features).items():
        names.append(name)
        each = [(G - (ideal.T @ ideal).to(G)).square().sum((-1, -2)) for ideal, _ in variants]
        distances.append(torch.stack(each).min(dim=0).values)
    return np.array(names, dtype=object)[torch.stack(distances).argmin(dim=0).numpy()]


def _fit(
    density: np.ndarray, relative: np.ndarray, n: int, seeds: int, steps: int, seed: int, progress: Progress
) -> tuple[Tensor, Tensor]:
    """Weights (cells, seeds, m, n) and exact losses (cells, seeds) after training every start."""
    cells = len(density)
    generator = torch.Generator().manual_seed(seed)
    scale = math.sqrt(2 / (2 * n - 1))
    W = scale * torch.randn(cells, seeds, n - 1, n, generator=generator, dtype=torch.float64)
    p = torch.as_tensor(density).reshape(-1, 1, 1).expand(cells, seeds, n)
    importance = torch.ones(cells, seeds, n, dtype=torch.float64)
    importance[..., -1] = torch.as_tensor(relative).unsqueeze(1)
    chunks = [
        torch.arange(cells)[i : i + max(_TOGETHER // seeds, 1)] for i in range(0, cells, max(_TOGETHER // seeds, 1))
    ]
    losses = torch.empty(cells, seeds, dtype=torch.float64)
    for i, chunk in enumerate(chunks):
        told = within(progress, i, len(chunks))
        W[chunk], losses[chunk] = _descend(W[chunk], p[chunk], importance[chunk], steps, told)
    return W, losses


def _descend(W: Tensor, p: Tensor, importance: Tensor, steps: int, progress: Progress) -> tuple[Tensor, Tensor]:
    """Adam on the exact loss with a rate that falls to zero along a cosine."""
    parameters = [W.clone(), torch.zeros_like(p)]
    first: Sequence[Tensor] = [torch.zeros_like(x) for x in parameters]
    second: Sequence[Tensor] = [torch.zeros_like(x) for x in parameters]
    for step in range(steps):
        rate = _RATE * (1 + math.cos(math.pi * step / steps)) / 2
        _, *gradients = loss_and_gradients(parameters[0], parameters[1], p, importance)
        for x, g, m, v in zip(parameters, gradients, first, second, strict=True):
            m.lerp_(g, 0.1)
            v.lerp_(g * g, 1 - _MEMORY)
            unbiased = (v / (1 - _MEMORY ** (step + 1))).sqrt_().add_(1e-12)
            x.addcdiv_(m, unbiased, value=-rate / (1 - 0.9 ** (step + 1)))
        if step % 10 == 0:
            progress(step, steps, f"step {step} of {steps}")
    progress(steps, steps, "measured")
    return parameters[0], loss_and_gradients(parameters[0], parameters[1], p, importance)[0]


def _off_boundary(theory: np.ndarray) -> np.ndarray:
    """Cells of the grid whose neighbours, diagonals included, are all in the same theoretical phase."""
    padded = np.pad(theory, 1, mode="edge")
    size, width = theory.shape
    same = [padded[i : i + size, j : j + width] == theory for i in range(3) for j in range(3)]
    return np.logical_and.reduce(same)
