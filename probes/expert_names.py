"""One line for each expert, or none: the label that says most about its tokens, with the evidence.

Of all labels an expert is tied to beyond both nulls, the one with the largest share * ln(share / base) is taken: its
contribution to the divergence of the expert's labels from the text's, so that neither a label that covers few of the
tokens nor one that is common everywhere wins.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from probes.associations import false_discovery, wilson
from probes.choices import Choices
from probes.nulls import ByType

MAX_Q = 0.01
"""False discovery rate, over all experts and labels, at which a name is given."""
MIN_LIFT = 1.5
"""A name's label is at least so much more common among the expert's tokens than in the text."""
NONE = "none"
WORD_CLASSES = {
    "ADJ": "adjectives", "ADP": "prepositions", "ADV": "adverbs", "AUX": "auxiliaries", "CCONJ": "and/or/but",
    "DET": "determiners", "INTJ": "interjections", "NOUN": "nouns", "NUM": "numbers", "PART": "particles",
    "PRON": "pronouns", "PROPN": "proper nouns", "PUNCT": "punctuation", "SCONJ": "subordinators", "SYM": "symbols",
    "VERB": "verbs", "SPACE": "line breaks", "X": "other words",
}  # fmt: skip
"""Universal word classes (de Marneffe et al. 2021) in words."""


def expert_names(
    cells: Mapping[str, DataFrame], top: DataFrame | None = None, *, max_q: float = MAX_Q, min_lift: float = MIN_LIFT
) -> DataFrame:
    """One row an expert: expert, name, evidence, kind, label, share, low, high, base, null, null_high, recall, q, ...

    cells     the cells of associations by what their labels are: {"word class": a.cells, "after": b.cells}
    top       `top_tokens`, put beside the name as `tokens`

    False discovery is counted over the cells of all kinds together.  A name needs q <= max_q, lift >= min_lift, and the
    lower end of the share's interval above the 97.5% point of the type null; otherwise it is "none" and the evidence
    empty.
    """
    if not cells:
        raise ValueError("cells is empty; give the cells of at least one association")
    every = pd.concat([frame.assign(kind=kind) for kind, frame in cells.items()], ignore_index=True)
    tested = every["p"].notna().to_numpy()
    every["q"] = np.nan
    every.loc[tested, "q"] = false_discovery(every.loc[tested, "p"].to_numpy())
    sure = every[(every["q"] <= max_q) & (every["lift"] >= min_lift) & (every["low"] > every["null_high"])]
    sure = sure.assign(weight=sure["share"] * sure["pmi"]).sort_values("weight", ascending=False, kind="stable")
    chosen = sure.drop_duplicates("expert").set_index("expert")
    rows = []
    for expert, n_expert in every.groupby("expert")["n_expert"].first().to_dict().items():
        row = {str(k): v for k, v in chosen.xs(expert).items()} if expert in chosen.index else {}
        name, evidence = (in_words(row["label"]), evidence_of(row)) if row else (NONE, "")
        rows.append({"expert": expert, "name": name, "evidence": evidence, "n_expert": n_expert} | row)
    columns = ["expert", "name", "evidence", "kind", "label", "share", "low", "high", "base", "lift"]
    named = DataFrame(rows).reindex(columns=[*columns, "null", "null_high", "recall", "q", "n", "n_expert"])
    if top is not None:
        words = top.sort_values("rank").groupby("expert")["type"].agg(lambda types: " ".join(map(shown, types)))
        named["tokens"] = named["expert"].map(words).fillna("")
    return named


def in_words(label: Any) -> str:
    """A word class in words, alone or before what follows it in the label; other labels as they are."""
    first, space, rest = str(label).partition(" ")
    return WORD_CLASSES.get(first, first) + space + rest


def evidence_of(row: Mapping[str, Any]) -> str:
    """E.g. "73% of its tokens (71-75%); base 12%; type null up to 21%"."""
    low, high = 100 * row["low"], 100 * row["high"]
    share = f"{row['share']:.0%} of its tokens ({low:.0f}-{high:.0f}%)"
    return f"{share}; base {row['base']:.1%}; type null up to {row['null_high']:.1%}"


def shown(token: Any) -> str:
    """A token between marks where its spaces would not be seen."""
    text = str(token)
    return text if text.strip() == text and text else repr(text)


def after(
    labels: Any, types: Any, documents: Any, n_words: int = 50, document_start: str = "the document's start"
) -> np.ndarray:
    """Labels joined with the token before: "VERB after to"; tokens in reading order.

    Only the `n_words` commonest tokens are told apart, others are "VERB after another word".
    """
    kinds, documents = pd.Series(np.asarray(types)).astype(str), np.asarray(documents)
    if not len(np.asarray(labels)) == len(kinds) == len(documents):
        raise ValueError(
            f"{len(np.asarray(labels))} labels, {len(kinds)} types and {len(documents)} documents; give as many"
        )
    before = kinds.shift(1, fill_value="")
    common = kinds.value_counts().index[:n_words]
    named = np.where(before.isin(common), before.str.strip(), "another word")
    first = np.append(True, documents[1:] != documents[:-1])
    named = np.where(first, document_start, named)
    return np.array([f"{label} after {word}" for label, word in zip(labels, named, strict=True)], dtype=object)


def top_tokens(made: Choices, seen: ByType, top: int = 10, min_count: int = 5) -> DataFrame:
    """The types that say most about each expert: expert, rank, type, n, n_type, share, rate, low, high, base, lift.

    share = n / slots of the expert; rate = n / tokens of the type, with its Wilson interval low, high; base the rate of
    all tokens; lift = rate / base.  Ordered by share * ln lift, among types seen `min_count` times at the expert.
    """
    slots = seen.routed.sum(axis=0)
    occurrences = seen.text.occurrences
    parts = []
    for expert in np.flatnonzero(slots):
        n = seen.routed[:, expert].astype(np.int64)
        base, share = slots[expert] / made.n_tokens, n / slots[expert]
        rate = n / np.maximum(occurrences, 1)
        weight = np.where(n >= min_count, share * np.log(np.maximum(rate, 1e-12) / base), 0)
        order = np.argsort(-weight, kind="stable")[:top]
        order = order[weight[order] > 0]
        low, high = wilson(n[order], occurrences[order])
        counted = {"type": made.type_names[order], "n": n[order], "n_type": occurrences[order], "share": share[order]}
        rates = {"rate": rate[order], "low": low, "high": high, "base": base, "lift": rate[order] / base}
        parts.append(DataFrame({"expert": expert, "rank": np.arange(len(order))} | counted | rates))
    return pd.concat(parts, ignore_index=True)
