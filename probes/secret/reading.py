"""The dictionary link: how much of a student's routing a sparse autoencoder's latents say, and a student made of them.

    routing     mutual information of a token's expert with its strongest latent, corrected for chance (0: none,
                1: one decides the other), beside that with the token itself and with latents of shuffled tokens
    student     one neuron a latent, outputs by least squares (`codes.fit_codes`), at as many active latents

Source: Boix-Adsera 2025 explains secret experts by dictionary structure of activations; correction for chance by
Vinh, Epps & Bailey 2010, through scikit-learn.
"""

import numpy as np
import torch
from jaxtyping import Int
from pandas import DataFrame

from probes.secret.codes import CodeMixture, Encode, fit_codes
from probes.secret.fitting import Fit
from probes.secret.pairs import Pairs
from probes.secret.score import missed


def routing_explained(
    found: Fit, pairs: Pairs, encode: Encode, token: Int[np.ndarray, " n"] | None = None, seed: int = 0
) -> DataFrame:
    """Adjusted mutual information with the student's first expert on held-out rows: by, information, n_tokens.

    `by`: `latent` (the strongest), `token`, `shuffled latent` (the null: 0 but for noise).
    """
    from sklearn.metrics import adjusted_mutual_info_score

    parts = [(found.route(x)[:, 0], encode(x).argmax(dim=1)) for _, x, _ in pairs.chunks(pairs.test)]
    expert = torch.cat([e for e, _ in parts]).numpy()
    latent = torch.cat([latent for _, latent in parts]).numpy()
    others = {"latent": latent, "shuffled latent": np.random.default_rng(seed).permutation(latent)}
    if token is not None:
        others["token"] = np.asarray(token)[pairs.test]
    rows = [(by, float(adjusted_mutual_info_score(expert, labels)), len(expert)) for by, labels in others.items()]
    return DataFrame(rows, columns=["by", "information", "n_tokens"])


def beside_latents(found: Fit, pairs: Pairs, encode: Encode, k: int) -> tuple[DataFrame, CodeMixture]:
    """The student beside one whose experts are the latents, k active: student, fvu, low, high, active, stored, ..."""
    latents = fit_codes(pairs, encode, k)
    rows = []
    for name, student, held in (
        (found.config.method, found.student, found.held_out),
        ("latents", latents, missed(latents, pairs, pairs.test)),
    ):
        low, high = held.interval
        cost = student.cost
        rows.append((name, held.fvu, low, high, cost.active, cost.active_with_router, cost.stored, held.n))
    columns = ["student", "fvu", "low", "high", "active", "active_with_router", "stored", "n_tokens"]
    return DataFrame(rows, columns=columns), latents


def distinct_sets(found: Fit, pairs: Pairs) -> tuple[int, int]:
    """Different sets of experts used on held-out rows, and the rows."""
    routed = [found.route(x).sort(dim=1).values for _, x, _ in pairs.chunks(pairs.test)]
    sets = torch.cat(routed)
    return len(sets.unique(dim=0)), len(sets)
