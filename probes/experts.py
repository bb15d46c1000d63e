"""What an expert is worth: the loss without it, what could stand in for it, and how like the others it is.

    from probes import experts, open_corpus, open_model
    worth = experts.measure(open_model("tinymoe"), open_corpus(), n_tokens=8_000)
    worth.damage        # loss change of each expert, replacement and word class, with intervals

Association is not cause: a router may send verbs to an expert whose absence costs verbs nothing.  So each expert is
replaced (`ablation`), what simple maps make of it is scored on other documents (`expert_fits`), and its share of a word
class is held against its damage on that class.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas import DataFrame
from scipy import stats

from data.corpus import Corpus
from data.progress import Progress, silent, within
from data.runs import Run
from data.tables import Tables
from data.wordclass import Tagger, default_tagger
from probes import controls, expert_fits, expert_similarity, expert_vectors, merging
from probes.ablation import REPLACEMENTS, Held, Replacement
from probes.expert_text import Damage, Scored, halves
from probes.firing import interval
from probes.models import LanguageModel
from probes.models.moe import RoutedModel
from probes.stream import StreamConfig

LAYER_TABLES = ("damage", "fits", "pairs", "agreement", "vectors")
MIN_COUNT = 30
"""Predictions that a word class needs to enter the correlation of share and damage."""


def measure(
    model: LanguageModel,
    corpus: Corpus,
    *,
    layers: Iterable[int] | None = None,
    replace: Sequence[Replacement] = REPLACEMENTS,
    n_tokens: int = 8_000,
    fit_tokens: int | None = None,
    curves: bool = True,
    tagger: Tagger | Literal["default"] | None = "default",
    seed: int = 0,
    config: StreamConfig | None = None,
    run: Run | None = None,
    progress: Progress = silent,
) -> Tables:
    """Replace every expert of `layers` (default: all with experts) in turn; half of the text fits, half scores.

    `fit_tokens`: what stands in for an expert is fitted on so many tokens; None: on half of `n_tokens`.

    Tables
        damage      layer, expert, replacement, of (`read`, `predicted`: whose word class), word_class, value (mean loss
                    change in nats over the predictions of the class, used or not), low, high (95%, blocks of documents
                    resampled, paired), per_use (over tokens that use the expert; rows of class `all`), share (of the
                    tokens scored that use it), n, n_documents
        fits        constant and affine FVU, input participation ratio (see `expert_fits`)
        pairs       likeness of every two experts (see `expert_similarity`); condition `real`, `random_init`
        agreement   layer, replacement, of, correlation, low, high: over (expert, class) cells, an expert's share of the
                    class against its damage there; within: the same after each expert's mean is taken off both, which
                    load alone cannot make
        curves      pruning and merging (see `merging`);  fewer: fewer experts a token, after the fact
        vectors     mean outputs read in the vocabulary (see `expert_vectors`)

    With `run`, tables are saved after every layer and a stopped measurement goes on with the next.
    Raises ValueError for a model without experts, for layers without, for an unknown replacement.
    """
    routed, chosen = _check(model, layers, replace)
    config = (config or StreamConfig()).model_copy(update={"n_tokens": n_tokens, "seed": seed})
    if config.tokens_per_document is None:  # few tokens each of many documents: they are the unit of the intervals
        text = config.window - 1
        each = text * max(1, -(-n_tokens // (len(corpus) * text)))
        config = config.model_copy(update={"tokens_per_document": each})
    words = default_tagger() if tagger == "default" else tagger
    fit, score = halves(model, corpus, config, words, fit_tokens)
    tables = _saved(run)
    untrained = controls.random_init(model, seed)
    assert isinstance(untrained, RoutedModel)
    done = set(tables["fits"].layer) if tables else set()
    for step, layer in enumerate(chosen):
        if layer in done:
            continue
        told = within(progress, step, len(chosen) + 1)
        found = _layer(routed, untrained, layer, fit, score, replace, seed, told)
        for name, frame in found.items():
            tables[name] = pd.concat([tables[name], frame], ignore_index=True) if name in tables else frame
        if run is not None:
            run.save_tables(tables)
    if curves:
        told = within(progress, len(chosen), len(chosen) + 1)
        tables |= _curves(routed, chosen, score, tables, seed, told)
        tables["fewer"] = merging.fewer_slots(routed, score)
    if run is not None:
        run.save_tables(tables)
    progress(1, 1, "experts measured")
    return tables


def _layer(
    model: RoutedModel,
    untrained: RoutedModel,
    layer: int,
    fit: Scored,
    score: Scored,
    replace: Sequence[Replacement],
    seed: int,
    progress: Progress,
) -> Tables:
    fitted, scored = (expert_fits.Moments.of(model, layer, text) for text in (fit, score))
    fits = expert_fits.Fits.to(fitted)
    held = Held(model, layer, score)
    n_experts = model.blocks[layer].n_experts
    # never the expert itself
    other = (np.arange(n_experts) + np.random.default_rng([seed, layer]).integers(1, n_experts, n_experts)) % n_experts
    shares = {of: _shares(held, of) for of in ("read", "predicted")}
    rows: list[dict[str, Any]] = []
    agreement: list[dict[str, Any]] = []
    for at, how in enumerate(replace):
        found: dict[str, list[Damage]] = {"read": [], "predicted": []}
        for expert in range(n_experts):
            progress(at * n_experts + expert, len(replace) * n_experts, f"layer {layer}: {how} for expert {expert}")
            for of, damage in zip(found, held.damage(expert, how, fits, int(other[expert])), strict=True):
                found[of].append(damage)
                key = {"layer": layer, "expert": expert, "replacement": how, "of": of}
                rows += _rows(key, damage, held.used(expert), score)
        agreement += [
            {"layer": layer, "replacement": how, "of": of, **_agreement(shares[of], found[of])} for of in found
        ]
    pairs = [
        expert_similarity.pairs(which, layer, score).assign(condition=condition)
        for condition, which in (("real", model), ("random_init", untrained))
    ]
    return Tables(
        damage=DataFrame(rows),
        fits=expert_fits.table(layer, fits, fitted, scored),
        pairs=pd.concat(pairs, ignore_index=True),
        agreement=DataFrame(agreement),
        vectors=expert_vectors.table(model, {layer: fits.mean}),
    )


def _rows(key: dict[str, Any], damage: Damage, used: int, text: Scored) -> list[dict[str, Any]]:
    """One row a word class that occurs."""
    rows = []
    for column, name in enumerate(text.classes):
        sums, counts = damage.sums[:, column], damage.counts[:, column]
        n = int(counts.sum())
        if not n or (name == "all" and key["of"] == "predicted"):  # the same numbers as for `read`
            continue
        low, high = interval(sums, counts)
        per_use = float(sums.sum() / used) if used and name == "all" else float("nan")
        row = {"word_class": name, "value": float(sums.sum() / n), "low": low, "high": high, "per_use": per_use}
        share = used / max(text.n_tokens, 1) if name == "all" else float("nan")
        rows.append(key | row | {"share": share, "n": n, "n_documents": int((counts > 0).sum())})
    return rows


def _shares(held: Held, of: str) -> np.ndarray:
    """Share of each word class' predictions made where the expert is used: (n_experts, n_classes)."""
    n_experts, n_classes = held.model.blocks[held.layer].n_experts, len(held.text.classes)
    uses, n = np.zeros((n_experts, n_classes)), np.zeros(n_classes)
    for number, index in enumerate(held.index):
        real = held.text.real(number)
        label = held.text.label(number, of)[real].numpy()
        n += np.bincount(label, minlength=n_classes)
        for slot in index[:, :-1][real].T.numpy():
            kept = slot >= 0
            np.add.at(uses, (slot[kept], label[kept]), 1)
    return uses / np.maximum(n, 1)


def _agreement(shares: np.ndarray, damages: list[Damage]) -> dict[str, float]:
    """Correlation over (expert, class) of share and damage; 95% intervals: blocks of documents left out in turn."""
    sums, counts = np.stack([d.sums for d in damages]), damages[0].counts
    enough = counts.sum(0) >= MIN_COUNT
    enough[0] = False
    nan = float("nan")
    if enough.sum() < 3:
        return dict.fromkeys(("correlation", "low", "high", "within", "within_low", "within_high"), nan) | {
            "n_cells": 0
        }
    share, sums, counts = shares[:, enough], sums[:, :, enough], counts[:, enough]
    used = counts.sum(1) > 0
    n = int(used.sum())
    weights = np.vstack([np.ones(n), 1 - np.eye(n)])  # all blocks, then all but one
    draws = np.einsum("rb,ebc->rec", weights, sums[:, used]) / np.maximum(weights @ counts[used], 1)[:, None]
    plain = np.array([_correlation(share, draw) for draw in draws])
    centred = share - share.mean(1, keepdims=True)
    own = np.array([_correlation(centred, draw - draw.mean(1, keepdims=True)) for draw in draws])
    found: dict[str, float] = {"n_cells": share.size}
    for name, values in (("", plain), ("within_", own)):
        # resampling would add noise to the noise in the damages and so pull the correlation down; leaving out does not
        spread = np.sqrt((n - 1) / n * np.square(values[1:] - values[1:].mean()).sum()) if n > 1 else nan
        reach = float(spread * stats.t.ppf(0.975, max(n - 1, 1)))
        low, high = max(values[0] - reach, -1.0), min(values[0] + reach, 1.0)
        found |= {"within" if name else "correlation": float(values[0]), f"{name}low": low, f"{name}high": high}
    return found


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def _curves(
    model: RoutedModel, layers: list[int], score: Scored, tables: Tables, seed: int, progress: Progress
) -> dict[str, DataFrame]:
    damage = tables["damage"]
    first = damage.replacement.iloc[0]
    whole = damage[(damage.word_class == "all") & (damage.replacement == first)]
    who_goes, alike = {}, {}
    for layer in layers:
        pairs = tables["pairs"].query("layer == @layer and condition == 'real'")
        of_layer = whole[whole.layer == layer].sort_values("expert")
        load, cost = of_layer.share.to_numpy(), of_layer.value.to_numpy()
        who_goes[layer] = merging.orders(pairs, load, cost, seed + layer)
        alike[layer] = merging.similarity(pairs, len(load))
    return {"curves": merging.curves(model, score, who_goes, alike, progress=progress)}


def _check(
    model: LanguageModel, layers: Iterable[int] | None, replace: Sequence[Replacement]
) -> tuple[RoutedModel, list[int]]:
    if not isinstance(model, RoutedModel):
        raise ValueError(f"{model.title} has no experts, so none can be judged; name a mixture-of-experts model")
    unknown = [how for how in replace if how not in REPLACEMENTS]
    if unknown or not replace:
        raise ValueError(f"replace={list(replace)} must name some of {', '.join(REPLACEMENTS)}")
    having = [layer for layer, block in enumerate(model.blocks) if block.n_experts]
    chosen = having if layers is None else sorted(set(layers))
    without = [layer for layer in chosen if layer not in having]
    if without or not chosen:
        raise ValueError(f"layers {without or chosen} of {model.title} have no experts; those that do: {having}")
    return model, chosen


def _saved(run: Run | None) -> Tables:
    if run is None:
        return Tables()
    if not set(LAYER_TABLES) <= set(run.table_names()):
        return Tables()
    tables = {name: run.table(name) for name in LAYER_TABLES}
    # a layer counts as done when the last of its tables was written
    whole = set.intersection(*(set(frame.layer) for frame in tables.values()))
    return Tables({name: frame[frame.layer.isin(whole)] for name, frame in tables.items()})
