"""The expert that most keeps to one label, against that label's share of all tokens."""

import numpy as np
from pandas import DataFrame
from scipy.stats import norm

from probes.associations import wilson

LEAST_LOAD = 0.25
"""Experts with less than this share of the even load are not considered: almost nothing is said of them."""


def purest(by_class: DataFrame, n_experts: int) -> DataFrame:
    """For each condition, kind of labels, layer and label, the expert with the largest share of that label.

    `by_class` is the table of `probes.routing.measure`.  Considered are the experts with a load of at least
    1 / (4 n_experts); an expert's share of a label is that of its slots, and since a token uses an expert at most once,
    n counts tokens.  `base` is the label's share of all slots.  The interval is Wilson's at the level 1 - .05 / m over
    the m experts considered (Bonferroni), so that having looked for the largest is paid for.

    Columns: `condition, labels, layer, label, expert, share, low, high, base, n, considered`.
    """
    rows = []
    for (condition, labels, layer), cells in by_class.groupby(["condition", "labels", "layer"], sort=False):
        counts = cells.pivot_table(index="expert", columns="label", values="n", aggfunc="sum", fill_value=0)
        slots = counts.sum(axis=1)
        held = counts[slots >= LEAST_LOAD * slots.sum() / n_experts]
        z = float(norm.isf(0.025 / len(held)))
        tries = held.sum(axis=1).to_numpy()
        for label in counts.columns:
            hits = held[label].to_numpy()
            best = int(np.argmax(hits / tries))
            low, high = wilson(hits[best], tries[best], z)
            base = float(counts[label].sum() / slots.sum())
            about = (condition, labels, layer, label, int(held.index[best]), float(hits[best] / tries[best]))
            rows.append((*about, float(low), float(high), base, int(tries[best]), len(held)))
    columns = ["condition", "labels", "layer", "label", "expert", "share", "low", "high", "base", "n", "considered"]
    return DataFrame(rows, columns=columns)
