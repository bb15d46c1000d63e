"""Claims about how many experts there should be, and about when routers learn what."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pandas import Series

from app.claims.claim import Claim, Finding, Frames, Lacking, count, over_seeds, rows, verdict

SERIES = {"beyond_type": "information on word class beyond the type null, nats", "purest_PUNCT": "purest punctuation"}


def _ends(tables: Frames, fixed: str) -> tuple[Series, Series]:
    """The model with the fewest and the one with the most experts, of those alike in what `fixed` says."""
    models = tables["series_models"]
    # experts that every token uses are another design, which a series has beside the split ones
    own = models[models["shared"] == models["shared"].iloc[0]].sort_values("n_experts")
    first, last = own.iloc[0], own.iloc[-1]
    if first["n_experts"] == last["n_experts"]:
        raise Lacking("the models of this series have the same number of experts")
    whole = {"width": ("n_experts", "d_mlp"), "k": ("k",)}[fixed]
    if np.prod([first[c] for c in whole]) != np.prod([last[c] for c in whole]):
        raise Lacking(f"the models of this series differ in more than their number of experts ({fixed})")
    if not np.isclose(first["active"], last["active"], rtol=0.1):
        raise Lacking(
            f"active parameters differ: {first['active']:,} with {first['n_experts']} experts and {last['active']:,} "
            f"with {last['n_experts']}"
        )
    return first, last


def _by_seed(tables: Frames, variant: str, measure: str) -> Series:
    held = rows(tables["series"], f"'{measure}' in the series", variant=variant, measure=measure)
    return held.groupby("seed")["value"].mean()


def finer(tables: Frames) -> Finding:
    """Word-class information and the purest punctuation expert, coarsest against finest model of equal compute."""
    coarse, fine = _ends(tables, "width")
    told, beside, better = [], [], []
    for measure, words in SERIES.items():
        before, after = (_by_seed(tables, model["variant"], measure) for model in (coarse, fine))
        told.append(f"{words} {over_seeds(before).text('.3f')} -> {over_seeds(after).text('.3f')}")
        better.append(float((after - before).min()) > 0)
        chance = rows(tables["series"], variant=fine["variant"], measure=measure)["chance"].mean()
        beside.append(f"{words} by chance {chance:.3f}")
    loss = [
        over_seeds(rows(tables["series_models"], variant=model["variant"])["loss"]).text() for model in (coarse, fine)
    ]
    return Finding(
        verdict(holds=all(better), partly=any(better)),
        f"{coarse['variant']} -> {fine['variant']}: {'; '.join(told)}; loss {' -> '.join(loss)} (mean over layers, "
        "range over seeds)",
        "; ".join(beside),
        f"{tables['series']['seed'].nunique()} seeds, {count(rows(tables['series'], measure='beyond_type'))} each, "
        f"{int(coarse['active']):,} and {int(fine['active']):,} active parameters",
    )


def constants(tables: Frames) -> Finding:
    """What the mean output of an expert leaves unexplained, few experts against many."""
    few, many = _ends(tables, "k")
    before, after = (_by_seed(tables, model["variant"], "constant_fvu") for model in (few, many))
    affine = [over_seeds(_by_seed(tables, model["variant"], "affine_fvu")).text() for model in (few, many)]
    untrained = [
        rows(tables["series"], variant=model["variant"], measure="constant_fvu")["chance"].mean()
        for model in (few, many)
    ]
    first, last = over_seeds(before), over_seeds(after)
    return Finding(
        verdict(holds=last.high <= 0.2 and last.high < first.low, partly=last.high < first.low),
        f"a constant leaves {first.text()} of an expert's energy with {few['n_experts']} experts and {last.text()} "
        f"with {many['n_experts']} (mean over layers, range over seeds)",
        f"random weights {untrained[0]:.2f} and {untrained[1]:.2f}; an affine map leaves {' and '.join(affine)} of its "
        "variance",
        f"{tables['series']['seed'].nunique()} seeds, {count(rows(tables['series'], measure='constant_fvu'))} each",
    )


def half_way(course: Series) -> float:
    """The step at which a course has gone half of the way from its start to its end, interpolated."""
    steps = course.index.to_numpy(float)
    done = (course.to_numpy(float) - course.iloc[0]) / (course.iloc[-1] - course.iloc[0])
    at = int(np.argmax(done >= 0.5))
    if at == 0:
        return float(steps[0])
    share = (0.5 - done[at - 1]) / (done[at] - done[at - 1])
    return float(steps[at - 1] + share * (steps[at] - steps[at - 1]))


def routers_first(tables: Frames) -> Finding:
    """When routing has half of its final meaning, and when it has half of its final certainty."""
    if "step" not in tables["routing"].columns:
        raise Lacking("one snapshot only; measure a training: sparsescope probe snapshots FOLDER")
    meaning = rows(tables["specialization"], labels="word_class", condition="real")
    meaning = meaning.assign(value=meaning["mi"] - meaning["null_type"])
    certain = rows(tables["routing"], "router entropy", measure="router_entropy")
    learned, sparse = [], []
    for layer in sorted(certain["layer"].unique()):
        one, other = (
            part[part["layer"] == layer].set_index("step")["value"].sort_index() for part in (meaning, certain)
        )
        if len(one) < 3 or one.iloc[-1] <= one.iloc[0]:
            raise Lacking("fewer than three snapshots, or no specialization at the end")
        learned.append(half_way(one))
        # a router whose entropy never falls by a twentieth has not become sparse by the end
        fell = other.iloc[-1] < 0.95 * other.iloc[0]
        sparse.append(half_way(other) if fell else float(other.index[-1]))
    first, then = over_seeds(learned), over_seeds(sparse)
    start, end = (
        certain.loc[certain["step"] == s, "value"].mean() for s in (certain["step"].min(), certain["step"].max())
    )
    pairs = [a < b for a, b in zip(learned, sparse, strict=True)]
    return Finding(
        verdict(holds=all(pairs), partly=first.value < then.value),
        f"half of the information on word class is there at step {first.text(',.0f')}, half of the fall of the "
        f"router's entropy at step {then.text(',.0f')} (mean and range over layers)",
        f"random weights, step 0: router entropy {start:.2f} nats, at the end {end:.2f}",
        f"{count(meaning)} a snapshot, {certain['step'].nunique()} snapshots, one training",
    )


def varies(what: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a run is a series that varies this; runs of other kinds do not say and are left to their tables."""

    def fits(settings: Mapping[str, Any]) -> bool:
        return settings.get("vary", what) == what

    return fits


CLAIMS = (
    Claim(
        "finer-experts-specialise-more",
        "Finer experts specialise more at equal compute.",
        "Dai et al. 2024 (DeepSeekMoE)",
        "holds: more word-class information beyond the type null and a purer punctuation expert in the finest model, "
        "every seed; partly: one of the two",
        "sparsescope series granularity",
        ("series", "series_models"),
        finer,
        "series-specialization",
        "training",
        ("dai2024deepseekmoe",),
        fits=varies("granularity"),
    ),
    Claim(
        "more-experts-tend-to-constants",
        "The more experts, the nearer each is to a constant: a mixture tends to an embedding.",
        "an argument about the limit of many experts, its source not recorded here",
        "holds: with most experts a constant leaves at most .2 of an expert's energy, and less than with fewest in "
        "every seed; partly: less in every seed",
        "sparsescope series experts",
        ("series", "series_models"),
        constants,
        "series-constants",
        "training",
        fits=varies("experts"),
    ),
    Claim(
        "routers-learn-before-sparsity",
        "Routers learn before sparsity sets in.",
        "after Muennighoff et al. 2024 (OLMoE: routing settles early)",
        "learned: half of the final information on word class beyond the type null; sparse: half of the fall of the "
        "router's entropy. Holds: learned first in every layer; partly: on average",
        "sparsescope probe snapshots FOLDER",
        ("specialization", "routing"),
        routers_first,
        "snapshots-routing",
        "training",
        ("muennighoff2024olmoe",),
    ),
)
