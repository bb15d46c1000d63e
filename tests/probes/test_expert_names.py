"""Names of experts: planted ones are found with their evidence, shuffled labels name nobody."""

import numpy as np
import pandas as pd
import pytest

from probes import nulls, specialization
from probes.choices import choices
from probes.expert_names import NONE, after, expert_names, in_words, pairs, shown, top_tokens
from tests.probes.planted_routes import planted_text, uniform


def _planted(seed: int = 0) -> tuple:
    """Expert 2 gets most verbs, expert 5 nouns that follow the commonest type; others get what is left."""
    text = planted_text(12_000, seed)
    rng = np.random.default_rng(seed)
    experts = rng.choice([0, 1, 3, 4, 6, 7], len(text.types))
    follows = np.append(False, (text.types[:-1] == 0) & (text.documents[1:] == text.documents[:-1]))
    verbs, nouns = text.labels == "VERB", (text.labels == "NOUN") & follows
    experts[verbs & (rng.random(len(verbs)) < 0.9)] = 2
    experts[nouns & (rng.random(len(nouns)) < 0.9)] = 5
    return text, experts


def test_planted_names_and_evidence() -> None:
    text, experts = _planted()
    following = after(text.labels, text.types, text.documents, n_words=3)
    joined = pairs(text.types, text.documents, n_words=3)
    tried = {"word class": (text.labels, text.types), "after": (following, joined)}
    cells = {
        kind: specialization.association(experts, labels, types, text.documents, n_permutations=2).cells
        for kind, (labels, types) in tried.items()
    }
    named = expert_names(cells).set_index("expert")
    assert named.loc[2, "name"] == "verbs" and named.loc[2, "kind"] == "word class"
    assert named.loc[5, "name"] == "nouns after 0"
    assert set(named.loc[[0, 1, 3, 4, 6, 7], "name"]) == {NONE}
    verbs = text.labels == "VERB"
    assert named.loc[2, "share"] == verbs[experts == 2].mean() == 1
    assert named.loc[2, "evidence"].startswith("100% of its tokens (100-100%); base ")
    assert f"base {verbs.mean():.1%}" in named.loc[2, "evidence"]
    assert (named.loc[[0, 1], "evidence"] == "").all()


def test_shuffled_labels_name_nobody() -> None:
    """Labels exchanged over tokens, and over types, under the router with planted names: no name in 30 texts."""
    names = []
    for seed in range(15):
        text, experts = _planted(seed)
        rng = np.random.default_rng(seed)
        of_type = rng.permutation(np.unique(text.types))
        by_type = text.labels[np.unique(text.types, return_index=True)[1]][np.argsort(of_type)]
        moved = by_type[np.searchsorted(np.unique(text.types), text.types)]
        for labels in (rng.permutation(text.labels), moved):
            found = specialization.association(experts, labels, text.types, text.documents, n_permutations=2)
            names += expert_names({"word class": found.cells})["name"].tolist()
    assert set(names) == {NONE}


def test_false_discovery_is_counted_over_all_kinds() -> None:
    row = {
        "expert": 0,
        "label": "VERB",
        "n": 50,
        "n_expert": 100,
        "n_label": 100,
        "share": 0.5,
        "low": 0.4,
        "high": 0.6,
    }
    row |= {"base": 0.1, "lift": 5.0, "pmi": np.log(5), "recall": 0.5, "null": 0.1, "null_high": 0.2, "p": 0.009}
    one = pd.DataFrame([row])
    assert expert_names({"a": one})["name"].item() == "verbs"
    noise = pd.DataFrame([row | {"expert": e, "p": 0.9, "lift": 1.0} for e in range(1, 5)])
    assert set(expert_names({"a": one, "b": noise})["name"]) == {NONE}
    with pytest.raises(ValueError, match="at least one"):
        expert_names({})


def test_after_knows_documents() -> None:
    named = after(["DET", "NOUN", "VERB", "DET"], ["the", "cat", "sat", "the"], [0, 0, 0, 1], n_words=1)
    start = "the document's start"
    assert named.tolist() == [f"DET after {start}", "NOUN after the", "VERB after another word", f"DET after {start}"]
    assert in_words("VERB after to") == "verbs after to" and in_words("speech") == "speech"
    assert shown(" to") == "' to'" and shown("to") == "to"
    assert len(np.unique(pairs(["a", "b", "a", "b", "a"], [0, 0, 0, 1, 1]))) == 4
    with pytest.raises(ValueError, match="give as many"):
        after(["DET"], ["a", "b"], [0, 0])


def test_top_tokens_against_counting() -> None:
    text = planted_text(5000, 3)
    experts = uniform(text, n_experts=4, k=2, seed=0)
    experts[text.types == 7] = [1, 3]
    made = choices(experts, text.labels, text.types)
    top = top_tokens(made, nulls.by_type(made), top=5)
    best = top.query("expert == 1 and rank == 0").iloc[0]
    assert best.type == 7 and best.rate == 1 and best.n == best.n_type == (text.types == 7).sum()
    at_one = (experts == 1).any(axis=1)
    assert best.base == pytest.approx(at_one.mean()) and best.lift == pytest.approx(1 / at_one.mean())
    assert best.share == pytest.approx(best.n / at_one.sum())
    assert top.groupby("expert")["rank"].apply(lambda ranks: ranks.is_monotonic_increasing).all()
