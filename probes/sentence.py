"""The routes of one sentence, and what changes in them when it is edited."""

from difflib import SequenceMatcher
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas import DataFrame
from torch import Tensor

from data.corpus import Corpus
from data.sources import Document
from data.wordclass import Tagger
from probes.models import LanguageModel

LONGEST = 400
"""Tokens of a typed text that are routed."""


def route(model: LanguageModel, text: str, tagger: Tagger | None = None) -> DataFrame:
    """Experts of each token in each layer: `place, token, word_class, layer, slot, expert, weight`.

    The text stands alone in one window that begins with the model's document token; slots are in falling order of
    weight, and a slot nobody got has expert -1.  At most `LONGEST` tokens are read.
    Raises ValueError for a text without a letter, or a model without experts or tokenizer.
    """
    if not model.n_experts:
        raise ValueError(f"{model.title} has no experts, so nothing is routed")
    if model.tokenizer is None:
        raise ValueError(f"{model.title} came without a tokenizer, so text cannot be fed to it")
    if not text.strip():
        raise ValueError("there is no text to route; type a sentence")
    typed = Corpus.of("typed", [Document("typed", text, "typed", {})])
    document = next(typed.tokenize(model.tokenizer, n_tokens=LONGEST, tagger=tagger))
    begin = model.document_token
    ids = torch.tensor([*([] if begin is None else [begin]), *document.token_ids.tolist()])[None]
    frames: list[DataFrame] = []

    def visit(layer: int, seen: dict[str, Tensor]) -> None:
        if "expert_index" not in seen:
            return
        index, weight = (seen[site][0, begin is not None :].cpu().float().numpy() for site in SITES)
        order = np.argsort(-weight, axis=1, kind="stable")
        index, weight = (np.take_along_axis(values, order, axis=1) for values in (index, weight))
        n, k = index.shape
        place = np.repeat(np.arange(n), k)
        columns: dict[str, Any] = {"place": place, "token": document.text[place]}
        columns |= {"word_class": document.word_class[place], "layer": layer, "slot": np.tile(np.arange(k), n)}
        frames.append(DataFrame(columns | {"expert": index.ravel().astype(int), "weight": weight.ravel()}))

    model.observe(ids, SITES, visit)
    return pd.concat(frames, ignore_index=True)


SITES = ("expert_index", "expert_weight")


def changes(before: DataFrame, after: DataFrame) -> DataFrame:
    """What an edit moved: one row a token of `after` and layer: `place, token, layer, was` (place before, -1 if new),
    `kept` (share of its experts that it had before; NaN if new), `gained`, `lost` (experts, joined by spaces).

    Tokens are matched by the longest runs they have in common.
    """
    first, second = (frame.drop_duplicates("place").sort_values("place")["token"].tolist() for frame in (before, after))
    was = np.full(len(second), -1)
    for block in SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks():
        was[block.b : block.b + block.size] = np.arange(block.a, block.a + block.size)
    old_sets, new_sets = _sets(before), _sets(after)
    rows = []
    for (place, layer), now in new_sets.items():
        old = old_sets.get((int(was[place]), layer), set())
        kept = len(now & old) / len(now) if was[place] >= 0 else float("nan")
        moved = (" ".join(map(str, sorted(part))) for part in (now - old, old - now))
        rows.append((place, second[place], layer, int(was[place]), kept, *moved))
    return DataFrame(rows, columns=["place", "token", "layer", "was", "kept", "gained", "lost"])


def _sets(routed: DataFrame) -> dict[tuple[int, int], set[int]]:
    """Experts by (place, layer)."""
    found: dict[tuple[int, int], set[int]] = {}
    for row in routed[routed["expert"] >= 0].to_dict("records"):
        found.setdefault((row["place"], row["layer"]), set()).add(row["expert"])
    return found
