"""The embedding limit: how much of a layer is a table, and whether more cells make it one.

    cells       FVU of cell constants against the number of cells E; the slope alpha of FVU ~ E^-alpha
    affine      the same with an affine map in each cell
    token       a table by the current token;  bigram: by the previous and the current one, falling back on the token
    map         one affine map of full rank

Boix-Adsera 2025 reads an MLP as an embedding layer and a mixture as a better one; tables by token say how literally.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from pandas import DataFrame
from torch import Tensor

from data.progress import Progress, silent
from probes.firing import N_RESAMPLES
from probes.secret.closed_form import Shape, fit_mixture, reduced_rank
from probes.secret.fitting import Layer
from probes.secret.pairs import Condition, Pairs
from probes.secret.score import Missed, missed

CELLS = (64, 256, 1_024, 4_096)
AFFINE_CELLS = (16, 64)


def curves(
    subject: Layer,
    conditions: Sequence[Condition] = ("real", "gaussian"),
    cells: Sequence[int] = CELLS,
    affine: Sequence[int] = AFFINE_CELLS,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[DataFrame, DataFrame]:
    """FVU of cell constants and cell affine maps by number of cells, and the slopes of the first.

    First frame: layer, condition, what (`constants`, `affine`), n_cells, used (cells that held-out tokens fall in),
    fvu, low, high, fvu_train, stored, n_train, n_tokens, n_documents.  Second: layer, condition, slope, low, high
    (documents resampled), first, last (numbers of cells).
    """
    rows, slopes = [], []
    jobs = [(c, "constants", n) for c in conditions for n in cells] + [
        (c, "affine", n) for c in conditions for n in affine
    ]
    held: dict[str, list[Missed]] = {}
    for number, (condition, what, n_cells) in enumerate(sorted(jobs, key=lambda job: job[0])):
        pairs = subject.under(condition, seed)
        full = min(pairs.d_in, pairs.d_out)
        shape = Shape(n_cells, 0, prior=False) if what == "constants" else Shape(n_cells, full)
        student = fit_mixture(pairs, shape, seed)
        found, train = missed(student, pairs, pairs.test), missed(student, pairs, pairs.train[::5])
        if what == "constants":
            held.setdefault(condition, []).append(found)
        used = torch.cat([student.route(x)[:, 0] for _, x, _ in pairs.chunks(pairs.test)]).unique()
        low, high = found.interval
        rows.append({
            "layer": subject.layer, "condition": condition, "what": what, "n_cells": n_cells, "used": len(used),
            "fvu": found.fvu, "low": low, "high": high, "fvu_train": train.fvu, "stored": student.cost.stored,
            "n_train": len(pairs.train), "n_tokens": found.n, "n_documents": len(found.error),
        })  # fmt: skip
        progress(number + 1, len(jobs), f"{condition}: {what} of {n_cells} cells")
    for name, several in held.items():
        value, low, high = slope(np.array(sorted(cells)), several)
        slopes.append({
            "layer": subject.layer, "condition": name, "slope": value, "low": low, "high": high,
            "first": min(cells), "last": max(cells), "n_documents": len(several[0].error),
        })  # fmt: skip
    return DataFrame(rows), DataFrame(slopes)


def slope(cells: Int[np.ndarray, " n"], found: Sequence[Missed]) -> tuple[float, float, float]:
    """alpha of FVU ~ E^-alpha by least squares of the logarithms, with its 95% interval over documents."""
    n = len(found[0].error)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)
    weights = np.vstack([np.ones(n), drawn])
    levels = np.log([(weights @ one.error) / (weights @ one.spread) for one in found])
    x = np.log(cells) - np.log(cells).mean()
    alphas = -(x @ levels) / (x @ x)
    low, high = np.percentile(alphas[1:], [2.5, 97.5]).tolist()
    return float(alphas[0]), low, high


def tables_by_token(
    subject: Layer, token: Int[np.ndarray, " n"], previous: Int[np.ndarray, " n"], least: int = 1
) -> DataFrame:
    """FVU of a table by token, by bigram, and of one affine map: layer, what, fvu, low, high, n_tokens, n_documents.

    An entry needs `least` training tokens; a bigram without falls back on the token, a token without on the mean.
    """
    pairs = subject.real
    # a token may be seen before others and never itself: its id may exceed all of `token`
    bigram = token * (int(max(token.max(), previous.max())) + 1) + previous
    predictions = {"token": [token], "bigram": [token, bigram]}
    rows = []
    for what, keys in predictions.items():
        rows.append((what, _of_table(pairs, keys, least)))
    rows.append(("affine map", missed(reduced_rank(pairs, min(pairs.d_in, pairs.d_out), 100.0), pairs, pairs.test)))
    return DataFrame([
        {"layer": subject.layer, "what": what, "fvu": one.fvu, "low": one.interval[0], "high": one.interval[1],
         "n_tokens": one.n, "n_documents": len(one.error)} for what, one in rows
    ])  # fmt: skip


def _of_table(pairs: Pairs, keys: list[np.ndarray], least: int) -> Missed:
    """Means of y by key over training rows, the later keys taking the place of the earlier where they are known."""
    y = torch.from_numpy(np.asarray(pairs.y[pairs.train])).double()
    answer = y.mean(dim=0).float().expand(len(pairs.y), -1).clone()
    for key in keys:
        known, inverse = np.unique(key[pairs.train], return_inverse=True)
        count = torch.from_numpy(np.bincount(inverse)).double()
        total = torch.zeros(len(known), y.shape[1], dtype=torch.float64).index_add_(0, torch.from_numpy(inverse), y)
        place = np.searchsorted(known, key[pairs.test]).clip(max=len(known) - 1)
        there = (known[place] == key[pairs.test]) & (count.numpy()[place] >= least)
        answer[pairs.test[there]] = (total / count[:, None]).float()[place[there]]
    taken = iter([answer[part] for part, _, _ in pairs.chunks(pairs.test)])

    def read(_: Tensor) -> Tensor:
        return next(taken)

    return missed(read, pairs, pairs.test)
