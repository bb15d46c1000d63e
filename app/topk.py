"""Top-k after the fact against top-k trained so, at the same share of a block's neurons.

    dense               E h neurons in each block, all of them used
    dense, top-k        the same trained with only the share k/E of largest |z| of each token: k as in the first mixture
    mixture, k of E     E experts of h neurons, k of them used for a token, for k = E/8, E/4, E/2

All have the same neurons, text, batches and steps.  Of the trained dense model the same shares of neurons are kept
after the fact (see `probes.keeping`): the largest of each token, always the same, always the same at random.  Losses
are of documents that no training read, less that of the dense model with all its neurons on the same documents.
Sources: Li et al. 2023 (top-k after and during training); Shazeer et al. 2017 (mixtures).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pandas import DataFrame

from app.experiments import over_seeds
from app.series_models import DENSE, SeriesRun, about_training, variants
from data.progress import Progress, silent, within
from data.tables import Tables

AFTER: tuple[Literal["oracle", "static", "random"], ...] = ("oracle", "static", "random")
"""Ways to keep neurons after the fact."""
COLUMNS = ["seed", "trained", "choice", "share", "loss", "change", "low", "high", "active", "n_tokens", "n_documents"]


def measure(config: SeriesRun, folder: Path, *, corpus: Any = None, progress: Progress = silent) -> Tables:
    """Train every model from every seed, and measure losses on documents it never read.

    Tables
        series_topk    seed, trained (`after the fact`, `dense, top-k`, `mixture, ..`), choice (`oracle`, `static`,
                       `random`; `experts`), share (of a block's neurons used for a token), loss, change (nats a token,
                       against the dense model with all neurons), low, high (95%, documents resampled in pairs), active
                       (parameters that write for a token), n_tokens, n_documents
        series_models  as in `app.series.measure`
    """
    import pandas as pd

    from data import open_corpus
    from toymodels import language

    text = open_corpus(config.model.corpus) if corpus is None else corpus
    trainings = over_seeds(variants(config), config.seeds)
    places: dict[int, dict[str, Path]] = {}
    models = []
    for number, (name, settings) in enumerate(trainings):
        step = within(progress, number, len(trainings) + config.seeds)
        place = folder / f"seed-{settings.seed}" / name.replace(" ", "-")
        last = language.train(settings, place, corpus=text, progress=step).iloc[-1]
        places.setdefault(settings.seed, {})[name] = place / last["folder"]
        models.append(about_training(name, settings, place / last["folder"], last))
    active = DataFrame(models).set_index(["variant", "seed"])["active"]
    parts = []
    for number, (seed, held) in enumerate(places.items()):
        step = within(progress, len(trainings) + number, len(trainings) + config.seeds)
        unseen = language.held_out_documents(text, seed)
        parts.append(_losses(held, active.xs(seed, level="seed"), unseen, config, step).assign(seed=seed))
    return Tables(series_topk=pd.concat(parts, ignore_index=True)[COLUMNS], series_models=DataFrame(models))


def _losses(held: Mapping[str, Path], active: Any, corpus: Any, config: SeriesRun, progress: Progress) -> DataFrame:
    """The rows of one seed."""
    import pandas as pd

    from probes import keeping, open_model
    from probes.choosing import keep_top
    from probes.firing import interval
    from probes.stream import StreamConfig

    base = config.model
    shares = (1 / 8, 1 / 4, 1 / 2)
    read = StreamConfig(window=base.window, n_tokens=config.n_tokens, batch_tokens=1_024)
    dense = open_model(held[DENSE])
    told = within(progress, 0, len(held))
    found = keeping.measure(
        dense, corpus, config.n_tokens, shares=shares, choices=AFTER, control=False, config=read, progress=told
    )
    spared = 3 * base.n_layers * base.d_model * base.n_experts * base.d_mlp  # weights of all neurons
    after = found.keeping.query("choice != 'none'").assign(trained="after the fact")
    after["active"] = active[DENSE] - ((1 - after["share"]) * spared).astype(int)
    documents = found.keeping_documents
    plain = documents[documents["choice"] == "none"].set_index("document")
    evaluated, _ = keeping.halves(corpus, read.seed)
    rows = []
    for number, (name, folder) in enumerate(held.items()):
        if name == DENSE:
            continue
        model = open_model(folder)
        share = (model.k if model.n_experts else base.k) / base.n_experts
        top = {} if model.n_experts else {(i, "neurons"): _top(keep_top, share) for i in range(model.n_layers)}
        told = within(progress, number, len(held))
        text = keeping.cut(model, evaluated, read)
        lost = keeping.document_losses(model, text, top, told).set_index("document").loc[plain.index]
        n = plain["n_tokens"].to_numpy()
        difference = (lost["loss"] - plain["loss"]).to_numpy()
        low, high = interval(difference, n)
        row = {"trained": name, "choice": "experts" if model.n_experts else "oracle", "share": share}
        row |= {"loss": lost["loss"].sum() / n.sum(), "change": difference.sum() / n.sum(), "low": low, "high": high}
        used = int(active[name]) - (0 if model.n_experts else int((1 - share) * spared))
        rows.append(row | {"active": used, "n_tokens": int(n.sum()), "n_documents": len(n)})
    return pd.concat([after, DataFrame(rows)], ignore_index=True)


def _top(keep_top: Any, share: float) -> Any:
    return lambda z: keep_top(z, share)
