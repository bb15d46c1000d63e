"""Students side by side: levels, ratios to the dense student, and real activations against their controls.

The claim under test is a ratio: at equal active parameters, FVU(dense) / FVU(mixture) is larger on real activations
than on a Gaussian of the same mean and covariance.  A level alone says little: a Gaussian can be easier.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from data.config import digest
from data.corpus import Corpus
from data.progress import Progress, silent, within
from data.runs import Run
from data.tables import Tables
from probes.models import LanguageModel
from probes.secret.fitting import Fit, SecretConfig, fit_layer, opened
from probes.secret.pairs import moments, participation
from probes.secret.ratios import KEY, by_student, counted, gaps, ratios

Row = dict[str, Any]
UNNAMED = ("rank", "ridge", "prior", "batch", "rates")
"""Settings of a student that no table names."""


def compare(
    model: LanguageModel,
    *,
    students: Sequence[SecretConfig],
    corpus: Corpus | None = None,
    inputs: Run | None = None,
    run: Run | None = None,
    seen: Callable[[Fit], object] = lambda found: None,
    progress: Progress = silent,
) -> Tables:
    """Fit every student and set them side by side; layers, conditions and seeds are those of the settings.

    Inputs are `inputs` that `capture` kept, or each layer's are captured from `corpus`.  A `dense` student of equal
    layer, condition, n_active and seed is what ratios are taken against.

    Tables
        secret             one student a row: layer, condition, method, seed, n_experts, k, active_sets (different
                           sets of experts on held-out tokens), n_active, fvu, low, high (95% over documents),
                           fvu_train, fvu_with_sinks, n_sinks, n_train, n_tokens, n_documents, active parameters
                           (shared, expert, bias, router, active, active_with_router), stored, cpu_seconds, last_gain
                           (share of the training error that the last fifth of the steps removed: small in any cosine
                           schedule, so more steps may still gain), rate, settings_digest (of what no other column says)
        secret_inputs      layer, condition, seed, participation (ratio of the training inputs), n_train
        secret_ratios      layer, condition, method, n_experts, n_active, seed, ratio (FVU dense / FVU), low, high, fvu,
                           fvu_dense, stored, n_tokens, n_documents
        secret_counted     the same with the router counted: against the smallest dense student of no fewer active
                           parameters than the mixture with its router; the columns of secret_ratios, and
                           active_with_router, n_active_dense, active_dense, verdict (`wins`, `loses`, `undecided`:
                           where the interval lies from 1)
        secret_gaps        layer, method, n_experts, n_active, condition, gap (mean ratio on real less that on the
                           condition), low, high, n_seeds, n_documents
        secret_documents   what the last two are made of: one row a student and held-out document

    With `run`, every finished student is saved and a stopped comparison goes on at the next; `seen` is shown each.
    ValueError for students that the tables could not tell apart, or of which the run holds another.
    """
    asked = _told_apart(students)
    done = _load(run)
    for config in asked:
        done.check(config)
    layers = sorted({s.layer for s in asked})
    left = [s for s in asked if _key(s) not in done.keys]
    fitted = 0
    for layer in layers:
        mine = sorted((s for s in left if s.layer == layer), key=lambda s: (s.condition, s.seed))
        if not mine:
            continue
        with opened(model, layer, corpus, inputs, mine[0], progress) as subject:
            for config in mine:
                pairs = subject.under(config.condition, config.seed)
                if not done.has_inputs(config):
                    known = participation(moments(pairs.x, pairs.train)[1])
                    done.inputs.append(
                        {"layer": layer, "condition": config.condition, "seed": config.seed, "participation": known,
                         "n_train": len(pairs.train)}
                    )  # fmt: skip
                told = within(progress, fitted, len(left))
                found = fit_layer(subject, config, told)
                seen(found)
                done.add(config, found)
                fitted += 1
                progress(fitted, len(left), f"layer {layer}, {config.condition}, {config.method}")
                if run is not None:
                    run.save_tables(done.tables())
    return done.tables()


def grid(
    layers: Iterable[int],
    *,
    methods: Sequence[str] = ("dense", "closed_form"),
    conditions: Sequence[str] = ("real", "gaussian"),
    seeds: Iterable[int] = (0,),
    **settings: object,
) -> list[SecretConfig]:
    """Settings of every method under every condition, layer and seed."""
    return [
        SecretConfig.model_validate({"layer": at, "condition": c, "method": m, "seed": s, **settings})
        for at in layers
        for s in seeds
        for c in conditions
        for m in methods
    ]


class _Done:
    """Students fitted so far, as rows."""

    def __init__(self, rows: list[Row], documents: list[DataFrame], inputs: list[Row]):
        self.rows, self.documents, self.inputs = rows, documents, inputs
        self.keys = {tuple(row[name] for name in KEY) for row in rows}
        self._digests = {tuple(row[name] for name in KEY): row.get("settings_digest") for row in rows}

    def check(self, config: SecretConfig) -> None:
        """ValueError if the student fitted in its place has other settings."""
        held = self._digests.get(_key(config))
        if isinstance(held, str) and held != _digest(config):
            raise ValueError(
                f"the run holds a student '{config.method}' of layer {config.layer} with another one of "
                f"{', '.join(UNNAMED)}; give this one a run of its own"
            )

    def has_inputs(self, config: SecretConfig) -> bool:
        asked = (config.layer, config.condition, config.seed)
        return any((row["layer"], row["condition"], row["seed"]) == asked for row in self.inputs)

    def add(self, config: SecretConfig, found: Fit) -> None:
        known = dict(zip(KEY, _key(config), strict=True))
        self.keys.add(_key(config))
        self.rows.append(found.row() | known | {"settings_digest": _digest(config)})
        held = found.held_out
        frame = DataFrame({"document": np.arange(len(held.error)), "error": held.error, "spread": held.spread})
        self.documents.append(frame.assign(**known, n_tokens=held.n))

    def tables(self) -> Tables:
        secret, documents = DataFrame(self.rows), pd.concat(self.documents, ignore_index=True)
        found = Tables(secret_documents=documents, secret_inputs=DataFrame(self.inputs))
        held = by_student(documents)
        found["secret_ratios"] = ratios(secret, held)
        found["secret_gaps"] = gaps(found["secret_ratios"], held)
        found["secret_counted"] = counted(secret, held)
        found["secret"] = secret  # written last: a student counts as fitted when all tables know it
        return Tables({name: table for name, table in found.items() if len(table)})


def _told_apart(students: Sequence[SecretConfig]) -> list[SecretConfig]:
    """Each student once; ValueError where two differ in a setting that no table names."""
    found: dict[tuple[Any, ...], SecretConfig] = {}
    for one in students:
        other = found.setdefault(_key(one), one)
        if other != one:
            names = [name for name, value in one.model_dump().items() if value != getattr(other, name)]
            raise ValueError(
                f"two students '{one.method}' of layer {one.layer} differ in {', '.join(names)} alone, which the "
                "tables do not name; compare them in two calls"
            )
    return list(found.values())


def _digest(config: SecretConfig) -> str:
    return digest(config.model_dump(mode="json", include=set(UNNAMED)))


def _key(config: SecretConfig) -> tuple[Any, ...]:
    return (
        config.layer, config.condition, config.method, config.n_experts, config.n_active, config.k, config.steps,
        config.seed,
    )  # fmt: skip


def _load(run: Run | None) -> _Done:
    if run is None or "secret" not in run.table_names():
        return _Done([], [], [])
    rows, inputs = (
        [{str(k): v for k, v in row.items()} for row in run.table(name).to_dict("records")]
        for name in ("secret", "secret_inputs")
    )
    documents = run.table("secret_documents")
    fitted = {tuple(row[name] for name in KEY) for row in rows}
    known = [key in fitted for key in documents[KEY].itertuples(index=False, name=None)]
    return _Done(rows, [documents[known]], inputs)
