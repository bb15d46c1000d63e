"""Who is routed where in a mixture of experts: loads, pairs, routes through depth, specialization; beside its controls.

    text -> the model, once -> counts (mergeable) and routed tokens on disk -> everything else, read off the disk

Controls: `random_init` (the same architecture as initialised, on the same text), `random_directions` (k of random
directions choose on the trained router's input, at the same load: what the geometry of the input gives), `hash` (every
token type has fixed random experts, at the same load: what any router by token identity shows).
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pandas import DataFrame

from data import routed
from data.corpus import Corpus
from data.progress import Progress, silent, within
from data.runs import Run
from data.tables import Tables
from data.wordclass import Tagger, default_tagger
from probes import controls as controlled
from probes import routed_associations, routed_counts, stream
from probes.models import LanguageModel
from probes.routed_labels import DOCUMENTS, Labeller, RoutedText, documents_read, own_labels
from probes.routed_tokens import RandomDirections, Recorder, hash_router
from probes.routing_counts import RoutingCounts
from probes.stream import Accumulator, StreamConfig, tokens_each

Control = Literal["random_init", "random_directions", "hash"]
CONTROLS: tuple[Control, ...] = ("random_init", "random_directions", "hash")
DRAWS = 5
"""Routers of random directions: one draw of so few directions may fall well or badly."""
OWN = "routed_labels"
"""Table of the user's own labels, one row a token."""


def measure(
    model: LanguageModel,
    corpus: Corpus,
    n_tokens: int = 100_000,
    *,
    controls: Sequence[Control] = CONTROLS,
    control_tokens: int | None = None,
    tagger: Tagger | Literal["default"] | None = "default",
    labels: Mapping[str, Labeller] | None = None,
    metadata: Sequence[str] = (),
    n_permutations: int = 100,
    association_tokens: int = 200_000,
    draws: int = DRAWS,
    config: StreamConfig | None = None,
    engine: stream.Where = "local",
    run: Run | None = None,
    progress: Progress = silent,
) -> Tables:
    """Route `n_tokens` of the text and say who went where, and what that has to do with what.

    `tagger` gives word classes (None: none); `labels` are the user's own (see `data.labels`), `metadata` columns of
    `corpus.documents`.  Attention sinks and the first positions of windows are recorded, but counted nowhere.

    Tables (condition: `real` and the controls)
        routing         condition, layer, measure (`probes.load.OF_LOAD`, each also `_by_weight`; repeat_rate,
                        drop_rate, balance_loss, router_entropy), value, low, high (95%, blocks of documents left out in
                        turn), chance, chance_low, chance_high (a uniform router; of repeats: these loads), ceiling, ..
        load            condition, layer, expert, slots, share, low, high, weight_share, .., even (1/E), n_tokens
        coactivation    condition, layer, expert, other, share (N_ij/N_i, rows sum to k-1), low, high, expected, n
        by_class        condition, labels, layer, expert, label, n, weight
        by_token        layer, expert, token_id, token, n
        transitions     see `routed_counts.transitions`        paths   see `routed_counts.paths`
        path_counts     condition, layers, measure, value: see `probes.paths.diversity`
        specialization  condition, layer, labels, mi, low, high, nmi; null, sd, z, p of `label`, `type` and `within`;
                        within, expected_label, untestable, n, n_tokens, n_types
                        (labels also `layer before`: its heaviest expert, and `token`, without nulls);
                        `random_directions` by word class, domain, .. is the mean over `n_draws` routers, `sd_draws` the
                        spread of their mi, and `z_draws` of `real` (mi - their mean) / sd_draws
        cells           condition, layer, labels and the columns of `probes.cells`
        names           condition, layer and the columns of `probes.expert_names`
        routed_documents, and on disk alone `routes`, `routes_CONTROL`, `routed_tokens` (see `data.routed`)

    With `run`, what is counted is saved after every shard and a stopped measurement resumes at its last whole shard.
    Other tables of random directions (loads, cells, names, ..) show the first draw.
    `engine="ray"` reads the text on a cluster, see `probes.stream.run`; what is read off the disk is done here.
    Raises ValueError for a model without experts or tokenizer, an unknown control, labels that fit nothing.
    """
    _check(model, controls, draws)
    config = (config or StreamConfig()).model_copy(update={"n_tokens": n_tokens})
    # the same cut of every document for a control that reads less, so that its tokens are the first of these
    config = config.model_copy(update={"tokens_per_document": tokens_each(corpus, config)})
    fewer = config.model_copy(update={"n_tokens": min(control_tokens or n_tokens, n_tokens)})
    words = default_tagger() if tagger == "default" else tagger
    with _folder(run) as folder:
        steps = 2 + ("random_init" in controls)
        routers = _routers(
            model, folder, config.seed, draws if "random_directions" in controls else 0, association_tokens
        )
        told = within(progress, 0, steps)
        found = {"real": _pass(model, corpus, config, folder, routers, words, run, engine, told)}
        if "random_init" in controls:
            other = controlled.random_init(model, config.seed)
            told = within(progress, 1, steps)
            found["random_init"] = _pass(other, corpus, fewer, folder, {}, None, run, engine, told, "random_init")
        tables = _together(found)
        documents = documents_read(corpus, config.seed)
        table = DataFrame({"document": routed.TokenTable(folder).column("document")})
        text = RoutedText(folder, documents, own_labels(labels or {}, model, corpus, config, table))
        if "hash" in controls:
            _hash(text, model, config.seed)
        tables[DOCUMENTS] = documents
        if text.beside:
            tables[OWN] = DataFrame(text.beside)
        conditions = ["real", *controls]
        tables |= _read_off(text, conditions, metadata)
        routed.save_by_layer(folder / "by_token.parquet", routed_counts.by_token(text.routes("real"), text))
        tables |= routed_associations.measure(
            text,
            conditions,
            text.kinds(metadata),
            n_tokens=association_tokens,
            n_permutations=n_permutations,
            draws=[name for name in routers if name != "random_directions"],
            seed=config.seed,
            progress=within(progress, steps - 1, steps),
        )
        if run is not None:
            run.save_tables(tables)
        routed.remove_parts(folder)
        return Tables(tables | {"by_token": pd.read_parquet(folder / "by_token.parquet")})


def _check(model: LanguageModel, controls: Sequence[str], draws: int) -> None:
    if draws < 2:
        raise ValueError(f"draws={draws} routers of random directions have no spread; draw at least 2")
    for control in controls:
        if control not in CONTROLS:
            raise ValueError(f"'{control}' is not a control; choose among {', '.join(CONTROLS)}")
    if not model.n_experts:
        raise ValueError(f"{model.title} has no experts, so nothing is routed; name a mixture-of-experts model")


@contextlib.contextmanager
def _folder(run: Run | None) -> Iterator[Path]:
    """Where routed tokens go: the run's folder, or one that lasts as long as the measurement."""
    if run is not None:
        yield run.path
        return
    with tempfile.TemporaryDirectory(prefix="routed-") as place:
        yield Path(place)


def _routers(
    model: LanguageModel, folder: Path, seed: int, draws: int, most: int
) -> dict[str, tuple[RandomDirections, Recorder]]:
    """Routers of random directions by condition, each with what writes down its choices; the first in full."""
    found = {}
    for draw in range(draws):
        router, name = (
            RandomDirections(model, seed + draw),
            f"random_directions_{draw}" if draw else "random_directions",
        )
        limit = most if draw else None
        found[name] = router, Recorder(model, folder, name, router=router, sites=router.sites, most=limit)
    return found


def _pass(
    model: LanguageModel,
    corpus: Corpus,
    config: StreamConfig,
    folder: Path,
    routers: Mapping[str, tuple[RandomDirections, Recorder]],
    tagger: Tagger | None,
    run: Run | None,
    engine: stream.Where,
    progress: Progress,
    condition: str = "real",
) -> Tables:
    """One pass over the text: counts, and the routed tokens of this condition (and of the routers)."""
    counts, recorder = RoutingCounts(model), Recorder(model, folder, condition)
    recorders, parts = [recorder], dict[str, Accumulator](counts=counts, recorder=recorder)
    for name, (router, directed) in routers.items():
        recorders.append(directed)
        parts |= {f"{name}_router": router, f"{name}_routes": directed}

    def keep(_: stream.Passed) -> None:
        if run is not None and condition == "real":
            run.save_tables(_together({"real": counts.tables()}))

    if engine != "local":
        stream.begin(model, corpus, {name: router for name, (router, _) in routers.items()}, config)
    stream.run(
        model,
        corpus,
        parts,
        config,
        tagger=tagger,
        saved_in=run,
        stage=f"routing_{condition}",
        engine=engine,
        progress=progress,
        after_shard=keep,
    )
    for one in recorders:
        one.finish()
    return counts.tables()


def _hash(text: RoutedText, model: LanguageModel, seed: int) -> None:
    """Write the routes of a router by token identity, at the load of the model's own."""
    real = text.routes("real")
    layers = []
    for layer in real.layers:
        experts = real.experts(layer)
        load = np.bincount(experts[experts >= 0], minlength=real.n_experts(layer))
        chosen = hash_router(text.token_id, load, model.blocks[layer].k, seed=seed + layer)
        wide = np.full(experts.shape, -1)
        wide[:, : chosen.shape[1]] = chosen
        weights = np.where(wide >= 0, 1 / chosen.shape[1], 0.0)
        layers.append({"kept": real.kept(layer), "experts": wide, "weights": weights})
    routed.save_routes_part(text.folder, "hash", 0, layers)
    routed.put_together(text.folder, "hash", [0], real.layers, [real.n_experts(i) for i in real.layers], real.k)


def _read_off(text: RoutedText, conditions: Sequence[str], metadata: Sequence[str]) -> dict[str, DataFrame]:
    """Counts by label, from layer to layer and through depth."""
    kinds = text.kinds(metadata)
    named = text.labels("word_class") if "word_class" in kinds else None
    frames: dict[str, list[DataFrame]] = {"by_class": [], "transitions": [], "paths": [], "path_counts": []}
    for condition in conditions:
        routes = text.routes(condition)
        frames["by_class"] += [routed_counts.by_label(routes, text.labels(kind), condition) for kind in kinds]
        frames["transitions"].append(routed_counts.transitions(routes, condition))
        frames["paths"].append(routed_counts.paths(routes, named, condition))
        frames["path_counts"].append(routed_counts.path_counts(routes, condition))
    return {name: pd.concat(parts, ignore_index=True) if parts else DataFrame() for name, parts in frames.items()}


def _together(found: Mapping[str, Tables]) -> Tables:
    names = dict.fromkeys(name for tables in found.values() for name in tables)
    return Tables(
        {n: pd.concat([t[n].assign(condition=c) for c, t in found.items()], ignore_index=True) for n in names}
    )
