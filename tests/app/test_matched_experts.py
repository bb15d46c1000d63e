"""Experts of two layers or runs, matched by what they are used for."""

import numpy as np
from pandas import DataFrame

from app.matched_experts import matched


def cells(profiles: np.ndarray, labels: str) -> DataFrame:
    expert, label = np.nonzero(profiles)
    return DataFrame({"expert": expert, "label": np.array(list(labels))[label], "n": profiles[expert, label]})


def test_experts_in_another_order_and_with_labels_of_their_own_are_found_again() -> None:
    rng = np.random.default_rng(0)
    profiles = np.round(rng.dirichlet(np.full(10, 0.3), 12) * 1_000).astype(int)
    profiles[3] = 0  # never used
    order = rng.permutation(12)
    noisy = np.array([rng.multinomial(n.sum(), n / n.sum()) if n.any() else n for n in profiles[order]])
    pairs, said = matched(cells(profiles, "abcdefghij"), cells(noisy[:, ::-1], "jihgfedcba"))
    assert len(pairs) == 11 and 3 not in set(pairs["expert"])
    assert (order[pairs["partner"]] == pairs["expert"]).all()
    assert (pairs["similarity"] > pairs["rival"]).all()
    top = profiles[pairs["expert"]].argmax(axis=1)
    assert (pairs["label"] == np.array(list("abcdefghij"))[top]).mean() > 0.7
    assert "11 pairs" in said and "random pairs" in said
