"""Levels of students set against each other: ratio to the dense one, real beside a condition, the router counted.

All are of sums over the same held-out documents, so intervals resample documents in pairs.
"""

from typing import Any

import pandas as pd
from pandas import DataFrame

from probes.secret.score import Missed, gap, ratio

KEY = ["layer", "condition", "method", "n_experts_asked", "n_active", "k_asked", "steps", "seed"]
"""What tells one student from another."""
PLAIN = "dense"
"""The student that the others are compared with."""
Held = dict[tuple[Any, ...], Missed]


def by_student(documents: DataFrame) -> Held:
    """Errors by document of each student, from the table `secret_documents`."""
    return {
        tuple(key): Missed(part["error"].to_numpy(), part["spread"].to_numpy(), int(part["n_tokens"].iloc[0]))
        for key, part in documents.groupby(KEY, sort=False)
    }


def ratios(secret: DataFrame, held: Held) -> DataFrame:
    """Table `secret_ratios`: FVU of the dense student over that of each other of equal n_active."""
    plain = {(k[0], k[1], k[4], k[7]): one for k, one in held.items() if k[2] == PLAIN}
    stored = secret.set_index(KEY)["stored"]
    rows = []
    for key, one in held.items():
        layer, condition, method, n_experts, n_active, k, steps, seed = key
        worse = plain.get((layer, condition, n_active, seed))
        if worse is None or method == PLAIN:
            continue
        value, low, high = ratio(worse, one)
        rows.append({
            "layer": layer, "condition": condition, "method": method, "n_experts": n_experts, "n_active": n_active,
            "k": k, "steps": steps, "seed": seed, "ratio": value, "low": low, "high": high, "fvu": one.fvu,
            "fvu_dense": worse.fvu, "stored": int(stored.loc[key]), "n_tokens": one.n, "n_documents": len(one.error),
        })  # fmt: skip
    return DataFrame(rows)


def counted(secret: DataFrame, held: Held) -> DataFrame:
    """Table `secret_counted`: the smallest dense student of no fewer active parameters than the mixture and its router.

    Mixtures for which no dense student is large enough are left out.
    """
    rows = []
    students = secret.to_dict("records")
    dense = sorted((s for s in students if s["method"] == PLAIN), key=lambda s: s["active"])
    for one in students:
        alike = (one["layer"], one["condition"], one["seed"])
        larger = (
            s for s in dense
            if (s["layer"], s["condition"], s["seed"]) == alike and s["active"] >= one["active_with_router"]
        )  # fmt: skip
        beside = next(larger, None)
        if one["method"] == PLAIN or not one["router"] or beside is None:
            continue
        mixture, plain = held[tuple(one[name] for name in KEY)], held[tuple(beside[name] for name in KEY)]
        value, low, high = ratio(plain, mixture)
        rows.append({
            "layer": one["layer"], "condition": one["condition"], "method": one["method"],
            "n_experts": one["n_experts_asked"], "n_active": one["n_active"], "k": one["k_asked"],
            "steps": one["steps"], "seed": one["seed"], "active_with_router": one["active_with_router"],
            "n_active_dense": beside["n_active"], "active_dense": beside["active"], "ratio": value, "low": low,
            "high": high, "fvu": mixture.fvu, "fvu_dense": plain.fvu,
            "verdict": "wins" if low > 1 else "loses" if high < 1 else "undecided", "stored": one["stored"],
            "n_tokens": mixture.n, "n_documents": len(mixture.error),
        })  # fmt: skip
    return DataFrame(rows)


def gaps(table: DataFrame, held: Held) -> DataFrame:
    """Table `secret_gaps`: mean ratio on real activations less that under each condition, over the seeds both have."""
    names = ["layer", "method", "n_experts", "n_active", "k", "steps"]
    rows: list[dict[str, Any]] = []

    def pairs_of(student: tuple[Any, ...], condition: str, seeds: list[int]) -> list[tuple[Missed, Missed]]:
        layer, method, n_experts, n_active, k, steps = student
        plain = {(key[-1]): one for key, one in held.items() if key[:3] == (layer, condition, PLAIN)
                 and key[4] == n_active}  # fmt: skip
        return [(plain[s], held[layer, condition, method, n_experts, n_active, k, steps, s]) for s in seeds]

    # in the order of the students, so that the point asked for first stays first
    for student, frame in table.groupby(names, sort=False) if len(table) else ():
        seeds = {str(c): sorted(part["seed"]) for c, part in frame.groupby("condition")}
        for condition in seeds:
            both = [s for s in seeds[condition] if s in seeds.get("real", [])]
            if condition == "real" or not both:
                continue
            key = tuple(student)
            value, low, high = gap(pairs_of(key, "real", both), pairs_of(key, condition, both))
            n = int(frame["n_documents"].iloc[0])
            rows.append(dict(zip(names, key, strict=True)) | {
                "condition": condition, "gap": value, "low": low, "high": high, "n_seeds": len(both), "n_documents": n,
            })  # fmt: skip
    return DataFrame(rows)


def curves(secret: DataFrame) -> DataFrame:
    """Rows of `secret` along one setting, the others as in the first student fitted: axis, value, and its columns.

    Axes are `n_experts`, `n_active` and `k`, each only where it took several values; of the seeds only the first.  The
    dense student is on the axis of n_active alone: it has no experts.
    """
    columns = {"n_experts": "n_experts_asked", "n_active": "n_active", "k": "k_asked"}
    first = secret.iloc[0]
    held = secret[(secret["seed"] == first["seed"]) & secret["method"].isin([PLAIN, "closed_form"])]
    found: list[DataFrame] = []
    for axis, column in columns.items():
        others = [name for name in columns.values() if name != column]
        along = held[(held[others] == first[others]).all(axis=1)]
        along = along if axis == "n_active" else along[along["method"] != PLAIN]
        if along[column].nunique() > 1:
            found.append(along.assign(axis=axis, value=along[column]))
    return pd.concat(found, ignore_index=True) if found else DataFrame()
