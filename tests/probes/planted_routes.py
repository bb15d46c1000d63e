"""Texts with Zipf's law, classes by type and documents, and routers whose meaning is known."""

from typing import NamedTuple

import numpy as np

from probes import specialization


class Text(NamedTuple):
    labels: np.ndarray
    types: np.ndarray
    documents: np.ndarray


def planted_text(n: int, seed: int, n_types: int = 2000, ambiguous: float = 0.2) -> Text:
    """Types by Zipf-Mandelbrot, one of five classes each; the ambiguous ones have a second class half of the time."""
    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(n_types) + 20.0)
    types = rng.choice(n_types, n, p=share / share.sum())
    first, second = rng.choice(5, (2, n_types), p=[0.35, 0.25, 0.2, 0.12, 0.08])
    other = (rng.random(n_types) < ambiguous)[types] & (rng.random(n) < 0.5)
    names = np.array(["NOUN", "VERB", "ADJ", "ADP", "PUNCT"])
    return Text(names[np.where(other, second[types], first[types])], types, np.arange(n) // 100)


def uniform(text: Text, n_experts: int, k: int, seed: int) -> np.ndarray:
    """A router that ignores the text: (tokens, k) different experts."""
    return np.argsort(np.random.default_rng(seed).random((len(text.types), n_experts)), axis=1)[:, :k]


def hashed(text: Text, n_experts: int, k: int, seed: int) -> np.ndarray:
    """A router that knows nothing but the type: each has k experts for good."""
    of_type = np.argsort(np.random.default_rng(seed).random((text.types.max() + 1, n_experts)), axis=1)[:, :k]
    return of_type[text.types]


def against(text: Text, experts: np.ndarray, seed: int = 0, **options: object) -> specialization.Association:
    """What the probe says of these experts and the labels of the text."""
    return specialization.association(experts, text.labels, text.types, text.documents, seed, **options)
