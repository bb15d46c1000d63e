"""Which expert of one layer, run or snapshot is which of another, by what they are used for."""

import numpy as np
from pandas import DataFrame

from probes.matching import match, profile_similarity


def matched(first: DataFrame, second: DataFrame) -> tuple[DataFrame, str]:
    """Which expert of one layer is which of another, by how alike their labels are: pairs, and a sentence.

    `first` and `second` are rows of `cells` of one layer and condition each, or of two runs; columns of the pairs:
    `expert, partner, similarity` (1 - Jensen-Shannon divergence / ln 2 of their shares of labels), `rival` (the next
    best), `label` (the commonest at both).
    """
    wide = [rows.pivot_table(index="expert", columns="label", values="n", fill_value=0) for rows in (first, second)]
    labels = sorted({*map(str, wide[0].columns), *map(str, wide[1].columns)})
    wide = [frame.rename(columns=str).reindex(columns=labels, fill_value=0) for frame in wide]
    wide = [frame[frame.sum(axis=1) > 0] for frame in wide]
    found = match(profile_similarity(*(frame.to_numpy() for frame in wide)))
    pairs = found.pairs
    expert, partner = (
        frame.index.to_numpy()[pairs[side]] for frame, side in zip(wide, ("first", "second"), strict=True)
    )
    both = np.minimum(*(_shares(frame)[pairs[side]] for frame, side in zip(wide, ("first", "second"), strict=True)))
    columns = {"expert": expert, "partner": partner, "similarity": pairs["similarity"], "rival": pairs["rival"]}
    rows = DataFrame(columns | {"label": np.array(labels, dtype=object)[both.argmax(axis=1)]})
    said = (
        f"Mean similarity of {len(pairs)} pairs {found.random.value:.3f}; random pairs {found.random.mean:.3f} (z "
        f"{found.random.z:.1f}), the best pairs of scattered similarities {found.scattered.mean:.3f} (z "
        f"{found.scattered.z:.1f})."
    )
    return rows.sort_values("similarity", ascending=False, ignore_index=True), said


def _shares(counts: DataFrame) -> np.ndarray:
    values = counts.to_numpy(dtype=float)
    return values / values.sum(axis=1, keepdims=True)
