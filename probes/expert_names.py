"""One line for each expert, or none: the label that says most about its tokens, with the evidence.

Of all labels an expert is tied to beyond both nulls, the one with the largest share * ln(share / base) is taken: its
contribution to the divergence of the expert's labels from the text's, so that neither a label that covers few of the
tokens nor one that is common everywhere wins.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int
from pandas import DataFrame

from probes.associations import false_discovery, wilson
from probes.choices import Choices
from probes.nulls import ByType

MAX_Q = 0.01
"""False discovery rate, over all experts and labels, at which a name is given."""
MIN_LIFT = 1.5
"""A name's label is at least so much more common among the expert's tokens than in the text."""
MIN_SHARE = 0.1
"""A name says what at least this share of the expert's tokens is."""
NONE = "none"
OTHER = "another word"
"""The token before, where it is not among the commonest; no expert is named for it."""
WORD_CLASSES = {
    "ADJ": "adjectives", "ADP": "prepositions", "ADV": "adverbs", "AUX": "auxiliaries", "CCONJ": "and/or/but",
    "DET": "determiners", "INTJ": "interjections", "NOUN": "nouns", "NUM": "numbers", "PART": "particles",
    "PRON": "pronouns", "PROPN": "proper nouns", "PUNCT": "punctuation", "SCONJ": "subordinators", "SYM": "symbols",
    "VERB": "verbs", "SPACE": "line breaks", "X": "other words",
}  # fmt: skip
"""Universal word classes (de Marneffe et al. 2021) in words."""


def expert_names(cells: Mapping[str, DataFrame], top: DataFrame | None = None, *, max_q: float = MAX_Q) -> DataFrame:
    """One row an expert: expert, name, evidence, kind, label, share, low, high, base, null, null_high, recall, q, ...

    cells     the cells of associations by what their labels are: {"word class": a.cells, "after": b.cells}
    top       `top_tokens`, put beside the name as `tokens`

    False discovery is counted over the cells of all kinds together.  A name needs q <= max_q, lift >= MIN_LIFT, share
    >= MIN_SHARE and the lower end of the share's interval above the 97.5% point of the type null; otherwise it is
    "none" and the evidence empty.
    """
    if not cells:
        raise ValueError("cells is empty; give the cells of at least one association")
    every = pd.concat([frame.assign(kind=kind) for kind, frame in cells.items()], ignore_index=True)
    tested = every["p"].notna().to_numpy()
    every["q"] = np.nan
    every.loc[tested, "q"] = false_discovery(every.loc[tested, "p"].to_numpy())
    sure = every[(every["q"] <= max_q) & (every["low"] > every["null_high"])]
    sure = sure[(sure["lift"] >= MIN_LIFT) & (sure["share"] >= MIN_SHARE) & ~sure["label"].map(is_rest)]
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


def is_rest(label: Any) -> bool:
    """Whether the label only says that something is not among the commonest."""
    return str(label).endswith(OTHER)


def in_words(label: Any) -> str:
    """A word class in words, alone or before what follows it in the label; other labels as they are."""
    first, space, rest = str(label).partition(" ")
    return WORD_CLASSES.get(first, first) + space + rest


def evidence_of(row: Mapping[str, Any]) -> str:
    """E.g. "73% of its tokens (71-75%); base 12%; type null up to 21%"."""
    low, high = 100 * row["low"], 100 * row["high"]
    share = f"{row['share']:.0%} of its tokens ({low:.0f}-{high:.0f}%)"
    return f"{share}; base {row['base']:.1%}; type null up to {row['null_high']:.1%}"


def named_token(token: str) -> str:
    """A token as a name has it: without its spaces, or marked if it is nothing else."""
    return token.strip() or repr(token)


def shown(token: Any) -> str:
    """A token between marks where its spaces would not be seen."""
    text = str(token)
    return text if text.strip() == text and text else repr(text)


def after(labels: Any, types: Any, documents: Any, n_words: int = 50) -> np.ndarray:
    """Labels joined with the token before: "VERB after to"; tokens in reading order.

    Only the `n_words` commonest tokens are told apart, others are "VERB after another word".  Cells of these labels are
    tested over `pairs`, not types: attention hands the token before to an untrained router, too.
    """
    if len(labels) != len(types):
        raise ValueError(f"{len(labels)} labels and {len(types)} types; give as many")
    return np.array([f"{a} after {b}" for a, b in zip(labels, _before(types, documents, n_words), strict=True)], object)


def pairs(types: Any, documents: Any, n_words: int = 50) -> Int[np.ndarray, " n_tokens"]:
    """Code of each token joined with the one before, the types over which `after` is tested."""
    joined = pd.Series(_before(types, documents, n_words)) + "\0" + pd.Series(np.asarray(types)).astype(str)
    return pd.factorize(joined)[0]


def _before(types: Any, documents: Any, n_words: int) -> np.ndarray:
    """Name of the token before each, in its document."""
    kinds, documents = pd.Series(np.asarray(types)).astype(str), np.asarray(documents)
    if len(kinds) != len(documents):
        raise ValueError(f"{len(kinds)} types and {len(documents)} documents; give as many")
    before = kinds.shift(1, fill_value="")
    common = kinds.value_counts().index[:n_words]
    named = np.where(before.isin(common), before.map(named_token), OTHER)
    return np.where(np.append(True, documents[1:] != documents[:-1]), "the document's start", named)


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
