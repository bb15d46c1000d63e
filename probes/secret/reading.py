"""The dictionary link: how much of a student's routing a sparse autoencoder's latents say, and students made of them.

    routing     mutual information of a token's expert with its strongest latent, corrected for chance (0: none,
                1: one decides the other), beside that with the token itself and with latents of shuffled tokens
    told        the expert read off the codes by least squares: share of held-out tokens whose expert is named right
    latents     one neuron a latent, outputs by least squares (`codes.fit_codes`), at as many active latents
    regions     the closed form over groups of latents in the place of clusters of inputs (`codes.fit_latent_cells`)

A dictionary of random directions with as many active is the control of all of them.

Source: Boix-Adsera 2025 explains secret experts by dictionary structure of activations; correction for chance by
Vinh, Epps & Bailey 2010, through scikit-learn.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from pandas import DataFrame
from torch import Tensor

from probes.firing import interval
from probes.secret.codes import CodeMixture, Encode, fit_codes, fit_latent_cells
from probes.secret.fitting import Fit, shape_of
from probes.secret.pairs import Pairs
from probes.secret.score import missed
from probes.secret.students import Student


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


def routing_told(found: Fit, pairs: Pairs, encode: Encode, k: int) -> dict[str, float]:
    """The student's first expert read off the k largest codes: `told`, share of held-out tokens named right, with
    `low` and `high` (95%, documents resampled), and `largest`, the share of the most used expert: what no code gives.
    """
    expert = np.empty(len(pairs.x), dtype=np.int64)
    for index in (pairs.train, pairs.test):
        for part, x, _ in pairs.chunks(index):
            expert[part] = found.route(x)[:, 0].numpy()
    one_hot = np.zeros((len(expert), found.student.n_experts), dtype=np.float32)
    measured = np.concatenate([pairs.train, pairs.test])
    one_hot[measured, expert[measured]] = 1
    reader = fit_codes(Pairs(pairs.x, one_hot, pairs.document, pairs.measured, pairs.sink), encode, k)
    named = torch.cat([reader(x).argmax(dim=1) for _, x, _ in pairs.chunks(pairs.test)]).numpy()
    documents, place = np.unique(pairs.document[pairs.test], return_inverse=True)
    right = np.bincount(place, named == expert[pairs.test], minlength=len(documents))
    tokens = np.bincount(place, minlength=len(documents))
    low, high = interval(right, tokens)
    commonest = np.bincount(expert[pairs.train]).argmax()
    return {
        "told": float(right.sum() / tokens.sum()),
        "low": low,
        "high": high,
        "largest": float((expert[pairs.test] == commonest).mean()),
        "n_tokens": int(tokens.sum()),
        "n_documents": len(documents),
    }


def beside_latents(
    found: Fit, pairs: Pairs, encode: Encode, k: int, decoder: Float[Tensor, "d_in n_codes"] | None = None
) -> tuple[DataFrame, CodeMixture]:
    """The student beside one whose experts are the latents, k active, and with `decoder` one whose regions they are.

    Columns: student, fvu, low, high, active, active_with_router, stored, n_tokens.  Second comes the student `latents`.
    """
    latents = fit_codes(pairs, encode, k)
    others: dict[str, Student] = {"latents": latents}
    if decoder is not None:
        others["regions"] = fit_latent_cells(pairs, encode, decoder, shape_of(found.config), found.config.seed)
    rows = []
    for name, student, held in (
        (found.config.method, found.student, found.held_out),
        *((name, one, missed(one, pairs, pairs.test)) for name, one in others.items()),
    ):
        low, high = held.interval
        cost = student.cost
        rows.append((name, held.fvu, low, high, cost.active, cost.active_with_router, cost.stored, held.n))
    columns = ["student", "fvu", "low", "high", "active", "active_with_router", "stored", "n_tokens"]
    return DataFrame(rows, columns=columns), latents
