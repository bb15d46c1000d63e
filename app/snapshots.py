"""Every snapshot of a training, measured on text it never read: when routing settles, and when it means something."""

from pathlib import Path
from typing import Any

import pandas as pd
from pandas import DataFrame
from pydantic import PositiveInt

from data.config import Config
from data.progress import Progress, silent, within
from data.runs import Run
from data.tables import Tables


class SnapshotsRun(Config):
    """Settings of `probe.snapshots`."""

    folder: str
    """Folder of a training (`sparsescope train FOLDER`) of a mixture of experts."""
    n_tokens: PositiveInt = 20_000
    """Held-out tokens on which each snapshot is measured."""
    permutations: PositiveInt = 50
    """Draws of each null."""


def work(run: Run, progress: Progress) -> None:
    """The tables of `measure` into the run."""
    asked = SnapshotsRun.model_validate(run.asked)
    run.save_tables(measure(asked, progress=progress))


def measure(config: SnapshotsRun, *, corpus: Any = None, progress: Progress = silent) -> Tables:
    """Routing and specialization of each snapshot; the first, random weights, is the control of all others.

    Tables, each with `step` and `tokens` (trained on by then): `routing`, `specialization` and `by_class` of
    `probes.routing.measure` on the same held-out tokens; `saturation` (layer, value, low, high, chance, n_tokens: share
    of a token's last experts that it has already); `purest` of `probes.purity`; and `snapshots`, the training's index.
    Raises ValueError if the folder holds no training of a mixture.
    """
    from data import open_corpus
    from probes import open_model, routing
    from probes.purity import purest
    from probes.saturation import routes, saturation
    from probes.stream import StreamConfig
    from toymodels import language

    place = Path(config.folder)
    index, trained = language.snapshots(place), language.settings(place)
    text = open_corpus(trained.corpus) if corpus is None else corpus
    unseen = language.held_out_documents(text, trained.seed)
    read = StreamConfig(n_tokens=config.n_tokens, window=trained.window)
    end = routes(open_model(place / index["folder"].iloc[-1]), unseen, read)
    parts: dict[str, list[DataFrame]] = {}
    for number, row in enumerate(index.to_dict("records")):
        step = within(progress, number, len(index))
        model = open_model(place / row["folder"])
        found = routing.measure(
            model, unseen, config.n_tokens, controls=(), n_permutations=config.permutations, config=read, progress=step
        )
        kept = {name: found[name] for name in ("routing", "specialization", "by_class")}
        kept["saturation"] = saturation(routes(model, unseen, read), end)
        kept["purest"] = purest(found.by_class, model.n_experts)
        for name, frame in kept.items():
            parts.setdefault(name, []).append(frame.assign(step=row["step"], tokens=row["tokens"]))
    return Tables({name: pd.concat(found, ignore_index=True) for name, found in parts.items()} | {"snapshots": index})
