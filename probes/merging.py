"""Fewer experts: the loss as experts are pruned or merged, in every layer at once, and as fewer are used for a token.

    by load        the least used go first
    by damage      those whose absence costs least go first
    by similarity  the pair with the most alike outputs loses its less used one, again and again
    at random      the control

Pruned experts weigh 0; the tokens of a merged expert go to the one it is most like among those that stay.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pandas import DataFrame
from torch import Tensor

from data.progress import Progress, silent
from probes.ablation import Replacement, replaced
from probes.expert_text import Damage, Scored
from probes.firing import interval
from probes.models.moe import RoutedModel

SHARES = (0.125, 0.25, 0.5, 0.75)
"""Shares of each layer's experts that go."""
Order = Int[np.ndarray, " n_experts"]


def orders(pairs: DataFrame, load: Float[np.ndarray, " n_experts"], damage: np.ndarray, seed: int) -> dict[str, Order]:
    """Who goes first, by criterion; `pairs` are those of one layer."""
    alike = similarity(pairs, len(load))
    np.fill_diagonal(alike, -np.inf)
    left, by_similarity = alike.copy(), []
    for _ in range(len(load) - 1):
        i, j = np.unravel_index(np.argmax(left), left.shape)
        gone = int(i if load[i] <= load[j] else j)
        by_similarity.append(gone)
        left[gone], left[:, gone] = -np.inf, -np.inf
    rest = [e for e in range(len(load)) if e not in by_similarity]
    return {
        "load": np.argsort(load, kind="stable"),
        "damage": np.argsort(damage, kind="stable"),
        "similarity": np.array(by_similarity + rest),
        "random": np.random.default_rng(seed).permutation(len(load)),
    }


def similarity(pairs: DataFrame, n_experts: int) -> Float[np.ndarray, "n_experts n_experts"]:
    """Cosine of outputs for the same token, as a matrix."""
    alike = np.eye(n_experts)
    i, j = pairs.expert.to_numpy(), pairs.other.to_numpy()
    alike[i, j] = alike[j, i] = pairs.output_cosine.to_numpy()
    return alike


def curves(
    model: RoutedModel,
    text: Scored,
    who_goes: Mapping[int, Mapping[str, Order]],
    alike: Mapping[int, np.ndarray],
    *,
    progress: Progress = silent,
) -> DataFrame:
    """One row a cell: `how (prune, merge), by, removed (share), n_removed, value (change of loss), low, high, n`."""
    plain = [model.losses(batch.ids).cpu() for batch in text.batches]
    rows: list[Any] = []
    cells = [(how, by, share) for how in ("prune", "merge") for by in next(iter(who_goes.values())) for share in SHARES]
    for step, (how, by, share) in enumerate(cells):
        progress(step, len(cells), f"{how} {share:.0%} by {by}")
        edits: dict[int, dict[int, Replacement | int]] = {}
        for layer, criteria in who_goes.items():
            order = criteria[by]
            gone = order[: min(int(share * len(order)), len(order) - model.blocks[layer].k)].tolist()
            edits[layer] = {e: _stand_in(e, gone, alike[layer]) if how == "merge" else "zero" for e in gone}
        damage = changed(model, text, plain, edits)
        sums, counts = damage.sums[:, 0], damage.counts[:, 0]
        n_removed = sum(len(edit) for edit in edits.values())
        rows.append((how, by, share, n_removed, sums.sum() / counts.sum(), *interval(sums, counts), int(counts.sum())))
    return DataFrame(rows, columns=["how", "by", "removed", "n_removed", "value", "low", "high", "n"])


def fewer_slots(model: RoutedModel, text: Scored) -> DataFrame:
    """Loss change when only the heaviest k' < k experts of a token are used, after the fact.

    Rows `kept, renormalised, value, low, high, n`: `renormalised` gives the ones that stay the whole weight.
    """
    plain = [model.losses(batch.ids).cpu() for batch in text.batches]
    rows: list[Any] = []
    for kept in range(1, model.k + 1):
        for renormalised in (False, True):
            hooks = [
                (layer, "expert_weight", lambda w, k=kept, r=renormalised: _heaviest(w, k, r))
                for layer, block in enumerate(model.blocks)
                if block.n_experts
            ]
            damage = Damage(len(text.classes))
            with model.hooked(hooks):
                _score(model, text, plain, damage)
            sums, counts = damage.sums[:, 0], damage.counts[:, 0]
            rows.append((kept, renormalised, sums.sum() / counts.sum(), *interval(sums, counts), int(counts.sum())))
    return DataFrame(rows, columns=["kept", "renormalised", "value", "low", "high", "n"])


def changed(
    model: RoutedModel, text: Scored, plain: list[Tensor], edits: Mapping[int, Mapping[int, Replacement | int]]
) -> Damage:
    """Loss changes with experts of several layers replaced at once."""
    damage = Damage(len(text.classes))
    with _all_replaced(model, edits):
        _score(model, text, plain, damage)
    return damage


@contextmanager
def _all_replaced(model: RoutedModel, edits: Mapping[int, Mapping[int, Replacement | int]]) -> Iterator[None]:
    with ExitStack() as stack:
        for layer, edit in edits.items():
            stack.enter_context(replaced(model, layer, edit, None))
        yield


def _score(model: RoutedModel, text: Scored, plain: list[Tensor], damage: Damage) -> None:
    for number, batch in enumerate(text.batches):
        change = model.losses(batch.ids).cpu() - plain[number]
        damage.add(change, text.label(number, "read"), text.real(number), text.block(number))


def _stand_in(expert: int, gone: list[int], alike: np.ndarray) -> int:
    row = alike[expert].copy()
    row[gone] = -np.inf
    return int(np.argmax(row))


def _heaviest(weight: Float[Tensor, "tokens k"], kept: int, renormalised: bool) -> Tensor:
    if kept >= weight.shape[1]:
        return weight
    at = weight.topk(kept, dim=-1).indices
    new = torch.zeros_like(weight).scatter(1, at, weight.gather(1, at))
    return new * (weight.sum(-1, keepdim=True) / new.sum(-1, keepdim=True)) if renormalised else new
