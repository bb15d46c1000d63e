"""A router read as a dictionary: are its expert rows far enough apart for the number of experts it picks?

    from probes import router_reading
    router_reading.measure(router, selected)          # router (n_experts, d_model), selected (n_tokens, k)
    router_reading.separability(...)                  # planted codes: does a linear router tell their clusters apart?

A linear router with top-k is one-step thresholding.  If tokens were sparse sums of expert rows, mu (2k - 1) < 1 would
guarantee that it finds them; real tokens are not, so the bound is read beside the recovery measured on the router's own
supports and beside a random router of the same size.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from pandas import DataFrame, concat
from torch import Tensor

from data.progress import Progress, silent
from data.tables import Tables
from probes import coherence, recovery
from probes.frames import random_directions


def measure(
    router: Float[Tensor, "n_experts d_model"],
    selected: Int[Tensor, "n_tokens k"],
    *,
    trials: int = 200,
    seed: int = 0,
) -> Tables:
    """Coherence of the expert rows against the model's own k, recovery on routed supports, and overlap of supports.

    Tables: `router` (one row for the router, one for its centred rows, one for a random router: `router, mu, welch, k,
    k_guaranteed, k_babel, certified` where certified says whether mu (2k - 1) < 1), `recovery` (as
    `recovery.empirical`, for uniform and for routed supports), `overlap` (`pairs, mean, chance, low, high, ratio`: the
    share of experts that two tokens have in common, against k/E for independent uniform choices).
    Raises ValueError if `selected` names experts the router does not have.
    """
    if selected.ndim != 2 or not len(selected):
        raise ValueError(f"selected is a matrix (n_tokens, k) of experts; got shape {tuple(selected.shape)}")
    n_experts, d_model = router.shape
    k = selected.shape[1]
    rows = router.t()
    control = random_directions(d_model, n_experts, seed=seed)
    reports = [
        ("router", coherence.measure(rows)),
        ("router, centred", coherence.measure(rows, centred=True)),
        ("random router", coherence.measure(control)),
    ]
    frame = DataFrame(
        [(name, r.mu, r.welch, k, r.k_guaranteed, r.k_babel, r.k_guaranteed >= k) for name, r in reports],
        columns=["router", "mu", "welch", "k", "k_guaranteed", "k_babel", "certified"],
    )
    found = [
        recovery.empirical(
            V, k=k, supports=supports, methods="thresholding", signs="positive", trials=trials, seed=seed
        ).assign(router=name)
        for name, V in (("router", rows), ("random router", control))
        for supports in (None, selected)
    ]  # fmt: skip
    return Tables(
        router=frame, recovery=concat(found, ignore_index=True), overlap=overlap(selected, n_experts, seed=seed)
    )


def overlap(selected: Int[Tensor, "n_tokens k"], n_experts: int, *, seed: int = 0) -> DataFrame:
    """Mean share of experts that two different tokens have in common, with its 95% interval and its chance k/E.

    Tokens, not pairs, are the independent unit, so the interval is a bootstrap over
    tokens (200 resamples of the expert loads, from which the mean overlap follows).
    """
    tokens, k = selected.shape
    generator = torch.Generator().manual_seed(seed)
    if tokens < 2:
        raise ValueError("the overlap of supports needs at least two tokens")
    hot = torch.zeros(tokens, n_experts, dtype=torch.float64).scatter_(1, selected.cpu(), 1.0)

    def mean(weight: Tensor) -> float:
        """Average of |S_a and S_b| / k over ordered pairs a != b of the resampled tokens."""
        load = (weight[:, None] * hot).sum(0)
        total = float(weight.sum())
        return float((load.square().sum() - (weight.square() * hot.sum(1)).sum()) / k) / (
            total * total - float(weight.square().sum())
        )

    draws = [
        mean(torch.bincount(torch.randint(0, tokens, (tokens,), generator=generator), minlength=tokens).double())
        for _ in range(200)
    ]
    low, high = torch.tensor(draws).quantile(torch.tensor([0.025, 0.975])).tolist()
    observed, chance = mean(torch.ones(tokens, dtype=torch.float64)), k / n_experts
    row = (tokens, k, n_experts, observed, low, high, chance, observed / chance)
    return DataFrame([row], columns=["n_tokens", "k", "n_experts", "mean", "low", "high", "chance", "ratio"])


def separability(
    *,
    d_model: int = 64,
    n_features: int = 256,
    n_clusters: int = 16,
    ks: tuple[int, ...] = (1, 2, 4, 8, 16),
    shared: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9),
    spread: int = 2,
    noise: float = 1.0,
    n_tokens: int = 2_000,
    seed: int = 0,
    progress: Progress = silent,
    finished: DataFrame | None = None,
    keep: Callable[[DataFrame], None] | None = None,
) -> DataFrame:
    """Do planted sparse supports form clusters that a linear router separates, as mu and k vary?

    A dictionary of random directions is made coherent by mixing one shared direction into every column (share `a` of
    the squared length: cosines grow to about a).  Each cluster owns a pool of `spread` * k features; a token of the
    cluster has k of them active, with magnitudes in [1, 2] and random signs or all positive,
    plus Gaussian noise of expected length `noise`.  A linear router (ridge
    regression on cluster labels) is fitted on half of the tokens and tested on the other half.

    One row a cell: `shared, mu, k, k_guaranteed, signs, noise, n_tokens, accuracy, low, high, null, chance, margin`;
    `null` is the accuracy of the same router fitted on permuted labels, `margin` the mean cosine of a token with its
    own cluster's mean minus that with the nearest other's.  `keep` is shown the rows after every cell; given back as
    `finished`, they are not measured again.
    """
    if spread * max(ks) > n_features:
        raise ValueError(f"k={max(ks)} with pools of {spread}k features needs n_features >= {spread * max(ks)}")
    names = [
        "shared",
        "mu",
        "k",
        "k_guaranteed",
        "signs",
        "noise",
        "n_tokens",
        "accuracy",
        "low",
        "high",
        "null",
        "chance",
        "margin",
    ]
    rows = [] if finished is None else list(finished[names].itertuples(index=False, name=None))
    cells = [(a, k, signs) for a in shared for k in ks for signs in ("positive", "random")]
    base = random_directions(d_model, n_features, seed=seed)
    common = random_directions(d_model, 1, seed=seed + 1)
    for step, (a, k, signs) in enumerate(cells):
        if step < len(rows):
            continue
        progress(step, len(cells), f"shared direction {a}, k = {k}")
        V = math.sqrt(1 - a) * base + math.sqrt(a) * common
        V = V / torch.linalg.vector_norm(V, dim=0)
        report = coherence.measure(V)
        generator = torch.Generator().manual_seed(seed * 7919 + step)
        tokens, labels = _planted(V, k, n_clusters, spread * k, n_tokens, signs, generator)
        shake = torch.randn(tokens.shape, generator=generator, dtype=tokens.dtype)
        tokens = tokens + noise / math.sqrt(d_model) * shake
        half = n_tokens // 2
        hits = _routed(tokens, labels, labels[:half], n_clusters)
        shuffled = labels[:half][torch.randperm(half, generator=generator)]
        null = _routed(tokens, labels, shuffled, n_clusters)
        low, high = recovery.wilson(hits, n_tokens - half)
        accuracy = hits / (n_tokens - half)
        margin = _margin(tokens, labels, n_clusters)
        cell = (a, report.mu, k, report.k_guaranteed, signs, noise, n_tokens - half)
        rows.append((*cell, accuracy, low, high, null / (n_tokens - half), 1 / n_clusters, margin))
        if keep is not None:
            keep(DataFrame(rows, columns=names))
    progress(len(cells), len(cells), "separability")
    return DataFrame(rows, columns=names)


def _planted(
    V: Tensor, k: int, n_clusters: int, pool: int, n_tokens: int, signs: str, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Tokens (n, d) that are sparse sums of columns, and the cluster whose pool each draws from."""
    n_features = V.shape[1]
    pools = torch.stack([torch.randperm(n_features, generator=generator)[:pool] for _ in range(n_clusters)])
    labels = torch.randint(0, n_clusters, (n_tokens,), generator=generator)
    place = torch.rand(n_tokens, pool, generator=generator).topk(k, dim=1).indices
    active = pools[labels].gather(1, place)
    values = 1 + torch.rand(n_tokens, k, generator=generator, dtype=torch.float64)
    if signs == "random":
        values = values * (torch.randint(0, 2, (n_tokens, k), generator=generator) * 2 - 1)
    return torch.einsum("nk,nkd->nd", values, V.t()[active]), labels


def _routed(tokens: Tensor, labels: Tensor, taught: Tensor, n_clusters: int) -> int:
    """Test tokens (the second half) a ridge router taught on the first half sends to their cluster."""
    half = len(taught)
    X = torch.cat([tokens, torch.ones(len(tokens), 1, dtype=tokens.dtype)], 1)
    target = torch.nn.functional.one_hot(taught, n_clusters).to(X.dtype)
    gram = X[:half].t() @ X[:half]
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=X.dtype)
    weight = torch.linalg.solve(gram + ridge, X[:half].t() @ target)
    return int(((X[half:] @ weight).argmax(1) == labels[half:]).sum())


def _margin(tokens: Tensor, labels: Tensor, n_clusters: int) -> float:
    hot = torch.nn.functional.one_hot(labels, n_clusters).to(tokens.dtype)
    means = torch.nn.functional.normalize(hot.t() @ tokens, dim=1)
    cosines = torch.nn.functional.normalize(tokens, dim=1) @ means.t()
    own = cosines.gather(1, labels[:, None])[:, 0]
    other = cosines.scatter(1, labels[:, None], -2.0).amax(1)
    return float((own - other).mean())
