"""The association of routing with every way to label, in every layer, under every condition."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from data.progress import Progress, silent
from data.tables import Tables
from probes import expert_names, specialization
from probes.cells import cells as cell_tests
from probes.choices import choices
from probes.information import mutual_information
from probes.nulls import by_type, count
from probes.routed_counts import strongest
from probes.routed_labels import RoutedText, used
from probes.specialization import Association

BEFORE = "layer before"
"""Labels that are the heaviest expert of the layer before."""


def measure(
    text: RoutedText,
    conditions: Sequence[str],
    kinds: Sequence[str],
    *,
    n_tokens: int,
    n_permutations: int = 100,
    draws: Sequence[str] = (),
    seed: int = 0,
    progress: Progress = silent,
) -> Tables:
    """`specialization` and `cells` (see `probes.routing`) on the first `n_tokens` labelled tokens of each layer.

    `draws` are further conditions drawn as `random_directions` was, with nulls of a fifth of the permutations.
    """
    rows: list[dict[str, Any]] = []
    cells: list[DataFrame] = []
    steps = [(condition, kind) for condition in (*conditions, *draws) for kind in kinds]
    for step, (condition, kind) in enumerate(steps):
        routes, labelled = text.routes(condition), text.labels(kind)
        permutations = max(n_permutations // 5, 2) if condition in draws else n_permutations
        for place, layer in enumerate(routes.layers):
            progress(step + place / len(routes.layers), len(steps), f"{kind} ({condition}), layer {layer}")
            held = used(routes, layer, labelled.code, n_tokens)
            of_tokens = np.array(labelled.words, dtype=object)[labelled.code[held.rows]]
            found = specialization.association(
                held.experts,
                of_tokens,
                text.token_id[held.rows],
                text.document[held.rows],
                seed,
                tokens=held.tokens,
                n_permutations=permutations,
                n_experts=routes.n_experts(layer),
            )
            about: dict[str, Any] = {"condition": condition, "layer": layer, "labels": kind}
            rows.append(about | row(found))
            if condition not in draws:
                cells.append(found.cells.assign(**about))
    linked = [link for condition in conditions for link in links(text, condition, n_tokens, n_permutations, seed)]
    tokens = [identity(text, condition, n_tokens) for condition in conditions]
    progress(1, 1, "specialization")
    measured = over_draws(DataFrame(rows), draws) if rows else DataFrame()
    together = pd.concat([measured, DataFrame(linked), *tokens], ignore_index=True)
    every = pd.concat(cells, ignore_index=True) if cells else DataFrame()
    return Tables(specialization=together, cells=every, names=names(text, every, conditions, kinds, n_tokens))


def over_draws(rows: DataFrame, draws: Sequence[str]) -> DataFrame:
    """Rows of `random_directions` and `draws` made one: means, `n_draws`, and `sd_draws`, the spread of their mi.

    Those of `real` get `z_draws`, (mi - mean of the draws) / sd_draws: what was learned beyond the input's geometry.
    """
    if not draws:
        return rows
    drawn = rows["condition"].isin(["random_directions", *draws])
    by_place = rows[drawn].drop(columns="condition").groupby(["layer", "labels"], sort=False)
    means = by_place.mean().assign(n_draws=by_place.size(), sd_draws=by_place["mi"].std())
    rest = rows[~drawn].set_index(["layer", "labels"])
    beside = means.reindex(rest.index)
    z = (rest["mi"] - beside["mi"]) / beside["sd_draws"]
    rest["z_draws"] = z.where(rest["condition"] == "real")
    means = means.assign(condition="random_directions")
    return pd.concat([rest.reset_index(), means.reset_index()], ignore_index=True)


def links(text: RoutedText, condition: str, n_tokens: int, n_permutations: int, seed: int) -> list[dict[str, Any]]:
    """Association of each layer's experts with the heaviest expert of the layer before, labels `layer before`."""
    routes, rows = text.routes(condition), []
    for before, layer in zip(routes.layers, routes.layers[1:], strict=False):
        code = strongest(routes, before)
        held = used(routes, layer, code, n_tokens)
        if len(np.unique(code[held.rows])) < 2:
            continue
        found = specialization.association(
            held.experts,
            code[held.rows],
            text.token_id[held.rows],
            text.document[held.rows],
            seed,
            tokens=held.tokens,
            n_permutations=n_permutations,
            n_experts=routes.n_experts(layer),
        )
        rows.append({"condition": condition, "layer": layer, "labels": BEFORE} | row(found))
    return rows


def names(
    text: RoutedText, cells: DataFrame, conditions: Sequence[str], kinds: Sequence[str], n_tokens: int
) -> DataFrame:
    """One row an expert and condition: `probes.expert_names.expert_names`, by word class and by the token before."""
    if "word_class" not in kinds:
        return DataFrame()
    labelled, surface = text.labels("word_class"), text.table.column("text")
    spoken = np.array([*labelled.words, ""], dtype=object)[labelled.code]
    following = expert_names.after(spoken, surface, text.document)
    pairs = expert_names.pairs(surface, text.document)
    frames = []
    for condition in conditions:
        routes = text.routes(condition)
        for layer in routes.layers:
            held = used(routes, layer, labelled.code, n_tokens)
            at, known = held.rows, (held.tokens, routes.n_experts(layer))
            alone = choices(held.experts, spoken[at], surface[at], text.document[at], *known)
            after = choices(held.experts, following[at], pairs[at], text.document[at], *known)
            of_layer = cells.query("condition == @condition and layer == @layer and labels == 'word_class'")
            kinds_of = {"word_class": of_layer, "after": cell_tests(after, by_type(after), count(after))}
            named = expert_names.expert_names(kinds_of, expert_names.top_tokens(alone, by_type(alone)))
            frames.append(named.assign(condition=condition, layer=layer))
    return pd.concat(frames, ignore_index=True)


def row(found: Association) -> dict[str, Any]:
    """One association as one row."""
    columns: dict[str, Any] = {"mi": found.mi, "low": found.low, "high": found.high, "nmi": found.nmi}
    for name, null in (("label", found.null_label), ("type", found.null_type), ("within", found.within_type)):
        columns |= {f"null_{name}": null.mean, f"sd_{name}": null.sd, f"z_{name}": null.z, f"p_{name}": null.p}
    columns |= {"within": found.within_type.value, "expected_label": found.expected_label}
    return columns | {
        "untestable": found.untestable,
        "n": found.n,
        "n_tokens": found.n_tokens,
        "n_types": found.n_types,
    }


def identity(text: RoutedText, condition: str, n_tokens: int) -> DataFrame:
    """I(expert; token) in each layer: what there is to know of the experts from the token alone, labels `token`.

    Only the closed form of the label null stands beside it: sum_e (1 - r_e) (V - 1) / 2N for V token types.
    """
    routes = text.routes(condition)
    types, code = np.unique(text.token_id, return_inverse=True)
    rows = []
    for layer in routes.layers:
        held = used(routes, layer, code, n_tokens)
        experts = held.experts if held.tokens is None else held.experts[:, None]
        width = routes.n_experts(layer)
        cell = experts.astype(np.int64) * len(types) + code[held.rows][:, None]
        counts = np.bincount(cell.ravel(), minlength=width * len(types)).reshape(width, -1)
        counts = counts[:, counts.any(axis=0)]
        n, n_held = int(counts.sum()), len(np.unique(held.rows))
        rate = counts.sum(axis=1) / n_held
        expected = float((1 - rate[rate > 0]).sum() * (counts.shape[1] - 1) / (2 * n))
        rows.append(
            (condition, layer, "token", float(mutual_information(counts)), expected, n, n_held, counts.shape[1])
        )
    return DataFrame(rows, columns=["condition", "layer", "labels", "mi", "expected_label", "n", "n_tokens", "n_types"])
