"""What is said of an expert from a run's tables: its cells, the cell to show first, its tokens, what it is worth."""

from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from app.explorer import visible
from app.figures.specialization import MAX_Q
from data.runs import Run, RunError, known_runs

NAME_Q = 0.01
"""False discovery rate at which an expert is named."""


def sharpest(cells: DataFrame) -> dict[str, Any]:
    """The cell to show first: of those beyond both nulls the largest share * ln lift, else the fullest.

    Cells that are sure enough to give their expert a name come before those that are only drawn in colour.
    """
    for rate in (NAME_Q, MAX_Q):
        sure = cells[(cells["q"] <= rate) & (cells["lift"] > 1)]
        if len(sure):
            return dict(sure.iloc[int((sure["share"] * np.log(sure["lift"])).to_numpy().argmax())])
    return dict(cells.iloc[int(cells["n"].to_numpy().argmax())])


def cells_of_step(counts: DataFrame, step: int) -> DataFrame:
    """The cells of one snapshot from its table `by_class` (condition, labels, layer, expert, label, n, step)."""
    return cells_of_counts(counts[counts["step"] == step])


def cells_of_tokens(by_token: DataFrame, most: int = 40) -> DataFrame:
    """The cells of the commonest tokens of the trained model (layer, expert, token, n), labels `token`."""
    counts = by_token.assign(condition="real", labels="token", label=by_token["token"].map(visible))
    common = counts.groupby("label")["n"].sum().nlargest(most).index
    return cells_of_counts(counts, list(common))


def cells_of_counts(counts: DataFrame, kept: list[str] | None = None) -> DataFrame:
    """Cells, as the table `cells` has them, of counts (condition, labels, layer, expert, label, n); of `kept` labels.

    share = n / n_expert with its 95% Wilson interval; base: the label's share of all slots of the layer; lift = share /
    base; q: false discovery rate, over the cells of a layer, of a two-sided binomial test of n among n_expert slots
    against base.  No type null is drawn: `null` and `null_high` are NaN.
    """
    from scipy.stats import binom

    from probes.associations import false_discovery, wilson

    made = []
    for (condition, labels, layer), part in counts.groupby(["condition", "labels", "layer"], sort=False):
        table = part.pivot_table(index="expert", columns="label", values="n", aggfunc="sum", fill_value=0)
        of_label, slots = table.sum(axis=0), table.sum(axis=1)
        table = table if kept is None else table[[label for label in kept if label in table]]
        across, down = table.shape[1], len(table)
        rows = DataFrame({"expert": np.repeat(table.index, across), "label": np.tile(table.columns, down)})
        rows = rows.assign(n=table.to_numpy().ravel())
        rows = rows.assign(n_expert=rows["expert"].map(slots), base=rows["label"].map(of_label / of_label.sum()))
        n, m, base = (rows[c].to_numpy() for c in ("n", "n_expert", "base"))
        low, high = wilson(n, m)
        p = np.minimum(2 * np.minimum(binom.cdf(n, m, base), binom.sf(n - 1, m, base)), 1.0)
        share = n / m.clip(1)
        rows = rows.assign(condition=str(condition), labels=str(labels), layer=int(str(layer)))
        made.append(rows.assign(share=share, low=low, high=high, lift=share / base, q=false_discovery(p)))
    return pd.concat(made, ignore_index=True).assign(null=np.nan, null_high=np.nan)


def worth_of(run: Run) -> Run | None:
    """The run that says what the experts of this model are worth: this one, else the newest on the same weights."""
    if "damage" in run.table_names():
        return run
    mine = _models(run)
    fitting = (other for other in known_runs() if "damage" in other.table_names())
    return next((other for other in fitting if mine & _models(other)), None)


def _models(run: Run) -> set[str]:
    """Hashes of the models that a run read."""
    if "inputs" not in run.table_names():
        return set()
    inputs = run.table("inputs")
    return set(inputs.loc[inputs["role"] != "corpus", "hash"])


def by_token(run: Run, layer: int, expert: int, n: int = 25) -> DataFrame:
    """The tokens an expert is used for most in a layer: `token, n, n_token, share, rate`; only that layer is read."""
    path = run.path / "by_token.parquet"
    if not path.exists():
        raise RunError("the tokens of each expert are counted when the text has been read")
    rows = pd.read_parquet(path, filters=[("layer", "==", layer)])
    of_token = rows.groupby("token_id")["n"].sum()
    mine = rows[rows["expert"] == expert].nlargest(n, "n")
    all_slots = int(rows.loc[rows["expert"] == expert, "n"].sum())
    total = of_token.loc[mine["token_id"]].to_numpy()
    return mine.assign(n_token=total, share=mine["n"] / max(all_slots, 1), rate=mine["n"] / total)
