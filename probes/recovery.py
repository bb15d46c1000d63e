"""Which sparse codes are found in fact: planted, sent through the dictionary, recovered, counted.

    from probes import recovery
    table = recovery.empirical(V, k=[1, 2, 4, 8])
    recovery.largest(V, "omp")                # largest k recovered in 95% of trials
    recovery.bars(V, report)                  # guaranteed, predicted and measured k beside each other

A trial plants k active features, x = sum_s c_s v_s + noise, and succeeds if the method, told k, names exactly them.
"""

import math
import operator
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float
from pandas import DataFrame, concat
from torch import Tensor

from data.config import LARGEST
from data.progress import Progress, silent
from probes import bounds, solvers
from probes.coherence import Dictionary, Report
from probes.columns import Columns
from probes.planted import Signs, Supports, SupportSource, adversarial_signs, coefficients, magnitude_range

CONFIDENCE = 0.95
"""Level of every interval."""

METHODS = tuple(solvers.METHODS)
"""`thresholding` (one linear layer and top-k), `omp`, `lasso` (basis pursuit where there is no noise)."""


def wilson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a rate: (p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    whole = isinstance(successes, Integral) and isinstance(trials, Integral) and trials <= LARGEST
    if not whole or not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"successes={successes} of trials={trials} is not a rate")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} is not between 0 and 1")
    z = math.sqrt(2) * float(torch.special.erfinv(torch.tensor(confidence, dtype=torch.float64)))
    p, share = successes / trials, z * z / trials
    middle, half = p + share / 2, z * math.sqrt(p * (1 - p) / trials + share / (4 * trials))
    low = 0.0 if successes == 0 else (middle - half) / (1 + share)
    high = 1.0 if successes == trials else (middle + half) / (1 + share)
    return low, high


def empirical(
    V: Dictionary,
    *,
    k: int | Iterable[int] = (1, 2, 4, 8),
    amplitudes: float | tuple[float, float] | str | None = "equal",
    noise: float = 0.0,
    supports: Supports = None,
    signs: Signs = "random",
    methods: str | Sequence[str] = METHODS,
    trials: int = 200,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress = silent,
) -> DataFrame:
    """Recovery rate of planted codes: columns `method, k, amplitude_range, trials, successes, rate, low, high, ...`.

    `V` (d_model, n_features), columns scaled to unit length.  `amplitudes`: "equal", a dynamic range r (magnitudes
    uniform in [1, r]) or a pair; `amplitude_range` reports greatest over least.  `noise`: expected length of a Gaussian
    noise vector, in units of the least magnitude.  `supports`: None for uniform ones, else co-occurring ones (see
    `planted.SupportSource`: lists of indices or codes).  `signs`: "adversarial" turns them all against one rival
    feature.  `low`, `high`: 95% Wilson interval.  The same seed plants the same codes for every method.

    Raises ValueError for k that is no whole number or outside 1 .. F, unknown methods, empty or complex dictionaries
    and bad columns.
    """
    columns = Columns(V, device=device)
    if columns.is_complex:
        raise ValueError("recovery is measured on real dictionaries; this one is complex")
    wanted = [methods] if isinstance(methods, str) else list(methods)
    for name in wanted:
        if name not in solvers.METHODS:
            raise ValueError(f"method '{name}' is not one of {', '.join(METHODS)}")
    sizes = _whole(k)
    for size in sizes:
        if not 1 <= size <= columns.n_features:
            raise ValueError(f"k={size} active features of n_features={columns.n_features}; choose 1 <= k <= F")
    if trials < 1 or noise < 0 or not math.isfinite(noise):
        raise ValueError(f"trials={trials} must be at least 1 and noise={noise} a number >= 0")
    magnitudes = magnitude_range(amplitudes)
    source = SupportSource(supports, columns.n_features)
    unit = _unit(columns)
    rows = []
    for step, size in enumerate(sizes):
        progress(step, len(sizes), f"k = {size}")
        successes = _count(unit, size, wanted, magnitudes, noise * magnitudes[0], source, signs, trials, seed)
        for name in wanted:
            low, high = wilson(successes[name], trials)
            rows.append((name, size, magnitudes[1] / magnitudes[0], trials, successes[name], low, high))
    progress(len(sizes), len(sizes), "recovery")
    table = DataFrame(rows, columns=["method", "k", "amplitude_range", "trials", "successes", "low", "high"])
    table.insert(5, "rate", table["successes"] / table["trials"])
    return table.assign(noise=noise, signs=signs, supports=source.name)


def largest(
    V: Dictionary,
    method: str,
    *,
    target: float = 0.95,
    trials: int = 100,
    k_max: int | None = None,
    **settings: Any,
) -> tuple[int, DataFrame]:
    """Largest k recovered in at least `target` of the trials, by doubling and bisection, and the rates met on the way.

    0 if even k = 1 fails.  `settings` go to `empirical`.  The rate is taken to fall with k.
    """
    if not 0 < target <= 1:
        raise ValueError(f"target={target} is a share of the trials; choose one above 0 and at most 1")
    (most,) = _whole(V.shape[1] if k_max is None else k_max)
    if most < 1:
        raise ValueError(f"k_max={k_max} leaves no k to try; choose at least 1")
    cap = min(int(V.shape[1]), int(V.shape[0]), most)
    met: dict[int, DataFrame] = {}

    def good(k: int) -> bool:
        if k not in met:
            met[k] = empirical(V, k=k, methods=method, trials=trials, **settings)
        return float(met[k]["rate"].iloc[0]) >= target

    k = 1
    while k < cap and good(k):
        k = min(2 * k, cap)
    if good(k):
        return k, concat([met[size] for size in sorted(met)], ignore_index=True)
    low, high = k // 2, k
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low, concat([met[size] for size in sorted(met)], ignore_index=True)


def bars(
    V: Dictionary,
    report: Report,
    *,
    methods: Sequence[str] = METHODS,
    target: float = 0.95,
    trials: int = 100,
    progress: Progress = silent,
    **settings: Any,
) -> tuple[DataFrame, DataFrame]:
    """The k of every bound, prediction and method beside each other, and the rates behind the measured ones.

    First frame: `bar, kind (guaranteed / predicted / measured), k, low, high`.  For measured bars k is the largest with
    a rate of at least `target`; `low` is the largest k whose whole Wilson interval lies above it, `high` the largest
    whose interval still reaches it.  Second frame: as from `empirical`.
    """
    d, n = report.d_model, report.n_features
    rows: list[tuple[str, str, float, float, float]] = []
    for name, kind, value in (
        ("mu", "guaranteed", report.k_guaranteed),
        ("babel", "guaranteed", report.k_babel),
        ("thresholding predictor", "predicted", bounds.k_predicted_thresholding(d, n)),
        ("omp predictor", "predicted", math.floor(bounds.k_predicted_omp(d, n))),
    ):
        rows.append((name, kind, value, value, value))
    tables = []
    for step, method in enumerate(methods):
        progress(step, len(methods), method)
        k, table = largest(V, method, target=target, trials=trials, **settings)
        sure = table.loc[table["low"] >= target, "k"].max()
        possible = table.loc[table["high"] >= target, "k"].max()
        low, high = (0 if value != value else value for value in (sure, possible))
        rows.append((method, "measured", k, min(low, k), max(high, k)))
        tables.append(table)
    progress(len(methods), len(methods), "recovery")
    frame = DataFrame(rows, columns=["bar", "kind", "k", "low", "high"])
    return frame.astype({"k": int, "low": int, "high": int}), concat(tables, ignore_index=True)


def _whole(k: Any) -> list[int]:
    """The numbers of active features asked for; a fraction is refused, not cut off."""
    given = k if isinstance(k, Iterable) else [k]
    try:
        return [operator.index(one) for one in given]
    except TypeError:
        raise ValueError(f"k={k} is a number of active features or several; give whole numbers") from None


def _unit(columns: Columns) -> Float[Tensor, "d_model n_features"]:
    small = columns.d_model * columns.n_features <= 500_000
    return columns.block(0, columns.n_features, torch.float64 if small else torch.float32).contiguous()


def _count(
    V: Float[Tensor, "d_model n_features"],
    k: int,
    methods: Sequence[str],
    magnitudes: tuple[float, float],
    noise: float,
    source: SupportSource,
    signs: Signs,
    trials: int,
    seed: int,
) -> dict[str, int]:
    """Successes by method over `trials` codes, in batches that keep memory near 100 MB."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + k)
    successes = dict.fromkeys(methods, 0)
    batch = max(1, min(trials, 2**23 // V.shape[1], 2**24 // (k * len(V))))
    for first in range(0, trials, batch):
        count = min(batch, trials - first)
        active = source.draw(k, count, generator)
        values = coefficients(k, count, magnitudes, generator)
        shake = torch.randn(len(V), count, generator=generator, dtype=torch.float64) * (noise / math.sqrt(len(V)))
        active, values = active.to(V.device), values.to(V.device, V.dtype)
        if signs == "adversarial":
            values = values.abs() * adversarial_signs(V, active).to(V.dtype)
        elif signs == "positive":
            values = values.abs()
        elif signs != "random":
            raise ValueError(f"signs '{signs}' is not one of random, positive, adversarial")
        signal = torch.einsum("bk,bkd->db", values, V.t()[active]) + shake.to(V.device, V.dtype)
        planted = active.sort(1).values
        for name in methods:
            options = {"penalty": _penalty(noise, V, magnitudes)} if name == "lasso" else {}
            found = solvers.METHODS[name](V, signal, k, **options).sort(1).values
            successes[name] += int((found == planted).all(1).sum())
    return successes


def _penalty(noise: float, V: Tensor, magnitudes: tuple[float, float]) -> float:
    """Universal penalty sigma sqrt(2 ln F) relative to the greatest magnitude; 0 without noise."""
    sigma = noise / math.sqrt(len(V))
    return min(0.5, sigma * math.sqrt(2 * math.log(max(2, V.shape[1]))) / magnitudes[1])
