"""Series of small mixtures of experts that differ in one thing and are trained and measured alike.

`granularity` splits experts: (E, k, h), (2E, 2k, h/2), (4E, 4k, h/4), and the middle one with one of its choices made a
shared expert.  `experts` adds experts of the same size, E to 16E, with k as it is.  Both keep the parameters that a
token uses.  `balancing` trains one model under each way of keeping loads even.  `topk` sets experts beside a
dense model of which only as many neurons are kept (see `app.topk`).
Sources: Dai et al. 2024 (DeepSeekMoE: fine-grained and shared experts); Krajewski et al. 2024 (granularity).
"""

from collections.abc import Mapping
from math import comb, prod
from pathlib import Path
from typing import Any, Literal, get_args

from pandas import DataFrame
from pydantic import PositiveInt

from app.experiments import over_seeds
from data.config import Config
from data.progress import Progress, silent, within
from data.runs import Run
from data.tables import Tables
from toymodels.balancing import Balancing
from toymodels.language import LanguageConfig
from toymodels.language_models import ROUTED

Vary = Literal["granularity", "experts", "balancing", "topk"]
MEASURED = ["layer", "measure", "value", "low", "high", "chance", "n_tokens"]
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
    """Settings of `series.run`."""

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


def work(run: Run, progress: Progress) -> None:
    """The series into the run; models stay in its folder `models`, and a stopped run goes on at its last snapshot."""
    asked = SeriesRun.model_validate(run.asked)
    from app import topk

    measured = topk.measure if asked.vary == "topk" else measure
    run.save_tables(measured(asked, run.path / "models", progress=progress))


def measure(config: SeriesRun, folder: Path, *, corpus: Any = None, progress: Progress = silent) -> Tables:
    """Train every model of the series from every seed, and measure each on documents it never read.

    Tables
        series        variant, seed, layer, measure, value, low, high, chance, n_tokens.  Measures: `information` (nats
                      between expert and word class; chance: the type null), `beyond_type` (their difference) and its
                      `z_type`; `purest_PUNCT`, `purest_VERB` (share of the purest expert; chance: base rate);
                      `load_entropy` and `busiest_share` (chance: a uniform router); constancy (`constant_fvu`,
                      `affine_fvu`, `mean_cost`) and redundancy (`output_cosine`, `neuron_cosine`) of the experts as in
                      `probes.constancy` (chance: random weights; of `mean_cost`: experts left out; the cosine of
                      neurons has no n_tokens, its interval leaves experts out)
        series_models variant, seed, n_experts, k, d_mlp, shared, balancing, parameters, active (parameters that a token
                      uses), combinations (sets of k experts), loss, unigram, kneser_ney, dropped, tokens
    """
    import pandas as pd

    from data import open_corpus
    from toymodels import language

    text = open_corpus(config.model.corpus) if corpus is None else corpus
    trainings = over_seeds(variants(config), config.seeds)
    measured, models = [], []
    for number, (name, settings) in enumerate(trainings):
        step = within(progress, number, len(trainings))
        place = folder / f"seed-{settings.seed}" / name.replace(" ", "-")
        last = language.train(settings, place, corpus=text, progress=within(step, 0, 2)).iloc[-1]
        unseen = language.held_out_documents(text, settings.seed)
        found = experts_of(place / last["folder"], unseen, config, within(step, 1, 2))
        measured.append(found.assign(variant=name, seed=settings.seed))
        models.append(about_training(name, settings, place / last["folder"], last))
    return Tables(series=pd.concat(measured, ignore_index=True), series_models=DataFrame(models))


def about_training(name: str, settings: LanguageConfig, folder: Path, last: Any) -> dict[str, Any]:
    """A row of `series_models`: the training's name and seed, the model's size, its losses at the last snapshot."""
    kept = ["loss", "unigram", "kneser_ney", "dropped", "tokens"]
    return {"variant": name, "seed": settings.seed} | shape(settings, folder) | last[kept].to_dict()


def variants(config: SeriesRun) -> Mapping[str, LanguageConfig]:
    """The models of the series by name; ValueError if the first one cannot be varied so."""
    base = config.model
    if base.family not in ROUTED:
        raise ValueError(f"{base.family} has no experts to vary; choose one of {', '.join(ROUTED)}")
    n, k, h = base.n_experts, base.k, base.d_mlp
    if config.vary == "topk":
        from app import topk

        return topk.variants(base)
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


def experts_of(folder: Path, corpus: Any, config: SeriesRun, progress: Progress) -> DataFrame:
    """One trained model's rows of `series`, without `variant` and `seed`."""
    import pandas as pd

    from probes import constancy, open_model
    from probes.stream import StreamConfig

    model, read = open_model(folder), StreamConfig(window=config.model.window)
    routed = _routing(model, corpus, config.n_tokens, read, within(progress, 0, 2))
    fitted = constancy.measure(model, corpus, config.expert_tokens, config=read, progress=within(progress, 1, 2))
    return pd.concat([*routed, fitted[MEASURED]], ignore_index=True)


def _routing(model: Any, corpus: Any, n_tokens: int, read: Any, progress: Progress) -> list[DataFrame]:
    from probes import routing
    from probes.purity import purest

    found = routing.measure(model, corpus, n_tokens, controls=(), config=read, progress=progress)
    loads = found.routing[found.routing["measure"].isin(["load_entropy", "busiest_share"])]
    pure = purest(found.by_class, model.n_experts)
    pure = pure[(pure["labels"] == "word_class") & pure["label"].isin(["PUNCT", "VERB"])]
    pure = pure.assign(measure="purest_" + pure["label"]).rename(
        columns={"share": "value", "base": "chance", "n": "n_tokens"}
    )
    return [*_associations(found.specialization), pure[MEASURED], loads[MEASURED]]


def _associations(found: DataFrame) -> list[DataFrame]:
    words = found[found["labels"] == "word_class"]
    null, sd = words["null_type"], words["sd_type"]
    about = words[["layer", "n_tokens"]]
    beyond = about.assign(measure="beyond_type", value=words["mi"] - null, chance=0.0)
    return [
        about.assign(measure="information", value=words["mi"], low=words["low"], high=words["high"], chance=null),
        beyond.assign(low=words["low"] - null - 1.96 * sd, high=words["high"] - null + 1.96 * sd),
        about.assign(measure="z_type", value=words["z_type"], chance=0.0),
    ]


def _changed(base: LanguageConfig, **changes: Any) -> LanguageConfig:
    given = base.model_dump(exclude={"balancing"} if "family" in changes else set())
    return LanguageConfig.model_validate(given | changes)
