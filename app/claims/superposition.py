"""Claims about superposition: toy models, coherence and recovery, supports, experts and context in toys."""

from collections.abc import Mapping
from typing import Any

from app.claims.claim import Claim, Finding, Frames, Lacking, count, over_seeds, rows, share_of, verdict


def more_features(tables: Frames) -> Finding:
    """Features per dimension of the densest and of the sparsest toys of a sweep."""
    held = tables["toy_room"]
    if "feature_probability" not in held.columns or held["feature_probability"].nunique() < 2:
        raise Lacking("one sparsity only: the dense toy, which is the control, is missing")
    packed = 1 / held["dimensions_per_feature"]
    low, high = held["feature_probability"].min(), held["feature_probability"].max()
    sparse, dense = (over_seeds(packed[held["feature_probability"] == p]) for p in (low, high))
    sizes = f"{int(held['n_features'].max())} features, {int(held['d_hidden'].min())} dimensions"
    return Finding(
        verdict(holds=sparse.low >= 1.5 and dense.high <= 1.1, partly=sparse.low > max(1.1, dense.high)),
        f"{sparse.text()} features represented per dimension where a feature is active with probability {low:g} "
        "(range over seeds)",
        f"dense features (probability {high:g}): {dense.text()}",
        f"{int(held.groupby('feature_probability').size().min())} seeds, {sizes}",
    )


def about_relu(settings: Mapping[str, Any]) -> bool:
    """Whether a run's toys are the nonlinear ones: a linear toy is the control, and never superposes."""
    base = settings.get("base")
    return not isinstance(base, Mapping) or base.get("model", "relu") != "linear"


def phases(tables: Frames) -> Finding:
    """Cells of the phase diagram in which training finds what the closed forms predict."""
    held = tables["toy_phase"]
    off = rows(held, "cells off the boundary", off_boundary=True)
    agree, single = float(off["agrees"].mean()), float(off["single_fits_agreeing"].mean())
    return Finding(
        verdict(holds=agree >= 0.99, partly=agree >= 0.9),
        f"the best of {int(held['seeds'].max())} fits is the predicted phase in {agree:.1%} of cells off the boundary",
        f"single fits {single:.1%}",
        f"{len(off):,} cells of {len(held):,}",
    )


def fewer_with_experts(tables: Frames) -> Finding:
    """Features per dimension of an expert against the number of experts, beside a router that tosses a coin."""
    held = tables["toy_moe_runs"]
    own = held[held["router"] != "random"]
    coin = rows(held, "the random router, which is the control", router="random")
    few, many = own["n_experts"].min(), own["n_experts"].max()
    if few == many:
        raise Lacking("one number of experts only")
    packed = "features_per_dimension"
    first, last = (over_seeds(own.loc[own["n_experts"] == e, packed]) for e in (few, many))
    by_coin = over_seeds(coin.loc[coin["n_experts"] == coin["n_experts"].max(), packed])
    return Finding(
        verdict(holds=last.high < first.low and last.high < by_coin.low, partly=last.value < first.value),
        f"features per dimension fall from {first.text()} with {few} to {last.text()} with {many} experts (range over "
        "seeds)",
        f"random router, {coin['n_experts'].max()} experts: {by_coin.text()}",
        f"{int(own.groupby('n_experts').size().min())} seeds",
    )


def separates(tables: Frames) -> Finding:
    """The k that mu certifies, beside the k up to which codes are in fact recovered."""
    found, bars = tables["coherence"], tables["recovery_bars"]
    real = rows(found, "a dictionary as it is", condition="real")
    random = rows(found, "the random dictionary", condition="random")
    measured = rows(bars, "measured recovery", kind="measured")
    told, useful, sound = [], [], []
    for row in real.to_dict("records"):
        own = rows(measured, f"measured recovery of {row['dictionary']}", dictionary=row["dictionary"])
        k = own[own["condition"] == "real"].set_index("bar")["k"]
        parts = ", ".join(f"{bar} {int(value)}" for bar, value in k.items())
        told.append(
            f"{row['dictionary']}: mu {row['mu']:.3f} guarantees k = {int(row['k_guaranteed'])}; measured {parts}"
        )
        useful.append(row["k_guaranteed"] >= 2)
        # the bound is about equal magnitudes, which thresholding and OMP are measured with
        sound.append(bool((k >= row["k_guaranteed"]).all()))
    beside = f"random directions: mu {random['mu'].mean():.3f} guarantees k = {int(random['k_guaranteed'].max())}"
    return Finding(
        verdict(holds=all(sound) and all(useful), partly=all(sound)),
        "; ".join(told) + " (exact support in 95% of trials)",
        beside,
        f"{int(measured['trials'].min())} trials for each k",
    )


def supports(tables: Frames) -> Finding:
    """Sets of features that can be told apart, counted, against the printed count of neuron patterns."""
    held = tables["supports"]
    more = held[held["n_features"] > held["d_model"]]
    told = [
        f"F={r['n_features']}, d={r['d_model']}, k={r['k']}: {r['counted']:,} counted, sum of C(F, j) "
        f"{r['of_features']:,}, sum of C(d, j) {r['of_dimensions']:,}"
        for r in more.to_dict("records")
    ]
    same = held[held["n_features"] == held["d_model"]]
    return Finding(
        share_of(more["counted"] == more["of_dimensions"]),
        "; ".join(told),
        "; ".join(f"F = d = {r['d_model']}: {r['counted']:,} counted" for r in same.to_dict("records")),
        "every set enumerated",
    )


def context(tables: Frames) -> Finding:
    """A process that sees its context against experts that do not, at equal multiply-adds a query."""
    held = tables["toy_process_runs"]
    told, better, worst = [], [], []
    for size, part in held.groupby("n_context"):
        seen, routed, dense, both = (
            over_seeds(rows(part, architecture=name)["fvu"]) for name in ("cnp", "moe", "dense", "cnp_moe")
        )
        other = over_seeds(rows(part, architecture="cnp")["fvu_other_context"])
        told.append(
            f"{size} context points: process {seen.text('.3f')}, experts {routed.text('.3f')}, both {both.text('.3f')}"
        )
        better.append(seen.high < routed.low)
        worst.append(f"{size} points: dense {dense.text('.3f')}, another task's context {other.text('.3f')}")
    cost = rows(held, architecture="cnp")["macs"].mean()
    return Finding(
        share_of(better),
        f"FVU with {'; '.join(told)} (range over seeds)",
        "; ".join(worst),
        f"{held['seed'].nunique()} seeds, {count(held, 'n_tasks', 'tasks')}, {cost:,.0f} multiply-adds a query",
    )


CLAIMS = (
    Claim(
        "more-features-than-dimensions",
        "Sparse features fit into fewer dimensions than there are features.",
        "Elhage et al. 2022",
        "holds: at least 1.5 features per dimension when sparsest and at most 1.1 when densest, every seed; partly: "
        "more than 1.1 and more than when dense",
        "sparsescope toy run uniform",
        ("toy_room",),
        more_features,
        "toy-staircase",
        "toy_lab",
        ("elhage2022toy",),
        fits=about_relu,
    ),
    Claim(
        "phases-follow-theory",
        "Whether a feature is ignored, kept or superposed follows closed forms in sparsity and importance.",
        "Elhage et al. 2022",
        "holds: 99% of the cells off the boundary agree; partly: 90%",
        "sparsescope toy run phase",
        ("toy_phase",),
        phases,
        "toy-phase",
        "toy_lab",
        ("elhage2022toy",),
    ),
    Claim(
        "experts-need-less-superposition",
        "The more experts a toy mixture has, the fewer features share a dimension.",
        "Chaudhari, Nuer and Thorstenson 2025",
        "holds: fewer with most experts than with fewest and than under a random router, every seed; partly: fewer on "
        "average",
        "sparsescope toy run experts",
        ("toy_moe_runs",),
        fewer_with_experts,
        "toy-experts",
        "toy_lab",
        ("chaudhari2025sparsity",),
    ),
    Claim(
        "coherence-separates-supports",
        "1 > mu (2k - 1) separates the supports of k active features.",
        "Tropp 2004; Donoho and Elad 2003",
        "holds: true where measured and certifying k >= 2 for every dictionary; partly: true, but it certifies k <= 1; "
        "fails: a certified k is not recovered",
        "sparsescope coherence measure smollm2-135m#layer-15-down",
        ("coherence", "recovery_bars"),
        separates,
        "coherence-bars",
        "coherence",
        ("tropp2004greed", "donoho2003optimally"),
    ),
    Claim(
        "number-of-supports",
        "d dimensions tell sum_{j <= k} C(d, j) supports of at most k active features apart.",
        "a printed formula, its source not recorded here",
        "holds: the count is the formula's wherever there are more features than dimensions; partly: in some cases",
        "sparsescope probe ladder",
        ("supports",),
        supports,
        "",
        "coherence",
    ),
    Claim(
        "context-beats-routing",
        "A context-conditioned process beats routing at equal compute.",
        "after Garnelo et al. 2018 (conditional neural processes)",
        "holds: lower FVU than a mixture of experts at every number of context points, every seed; partly: at some",
        "sparsescope toy run process",
        ("toy_process_runs",),
        context,
        "toy-process",
        "toy_lab",
        ("garnelo2018conditional",),
    ),
)
