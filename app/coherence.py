"""Coherence and recovery of dictionaries as one piece of work that fills a run folder."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pandas import DataFrame, concat
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from app.measurements import FromHub
from data.progress import Progress
from data.runs import Run

if TYPE_CHECKING:
    from probes.models import LanguageModel

Method = Literal["thresholding", "omp", "lasso"]
Label = Callable[[int], str]
"""What a feature is called."""


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
        "coherence": DataFrame([_summary(name, r, named.feature, label) for name, r in reports.items()]),
        "coherence_nearest": concat([_nearest(name, r, label) for name, r in reports.items()], ignore_index=True),
        "coherence_babel": concat([_babel(name, r) for name, r in reports.items()], ignore_index=True),
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


def _summary(condition: str, report: Any, feature: str, label: Label) -> dict[str, Any]:
    """A row of `coherence`."""
    first, second = (label(i) for i in report.pair) if report.pair else ("", "")
    return {
        "condition": condition, "feature": feature, "d_model": report.d_model, "n_features": report.n_features,
        "mu": report.mu, "first": first, "second": second, "welch": report.welch, "mu_random": report.mu_random,
        "average_coherence": report.average_coherence, "k_guaranteed": report.k_guaranteed, "k_babel": report.k_babel,
        "k_erc": report.k_erc, "k_erc_exact": report.k_erc_exact, "spark": report.spark,
        "bottleneck": report.bottleneck, "near_duplicates": len(report.clusters),
        "median_nearest": float(np.median(report.nearest)),
        "erc": float("nan") if report.erc is None else report.erc,
    }  # fmt: skip


def _nearest(condition: str, report: Any, label: Label) -> DataFrame:
    """Rows of `coherence_nearest`: each feature's nearest other."""
    best = report.neighbours[report.neighbours["rank"] == 1] if report.n_features > 1 else report.neighbours
    columns = {
        "label": [label(i) for i in best["feature"]],
        "neighbour": [label(i) for i in best["neighbour"]],
        "cosine": best["cosine"].to_numpy(),
    }
    return DataFrame({"condition": condition, **columns})


def _babel(condition: str, report: Any) -> DataFrame:
    """Rows of `coherence_babel`."""
    return DataFrame({"condition": condition, "k": np.arange(1, 33), "babel": report.babel})


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
