"""Claims about mixtures of experts: what experts specialise in, what they are worth, how alike they are."""

import math

from pandas import DataFrame

from app.claims.claim import Claim, Finding, Frames, Lacking, Number, count, last_step, mean, rows, share_of, verdict

CLASSES = {"PUNCT": "punctuation", "VERB": "verbs", "NOUN": "nouns"}
CONTROLS = {
    "random_init": "random weights",
    "random_directions": "random directions at the same load",
    "hash": "token hash",
}
PROBE = "sparsescope probe experts --model tinymoe"
WORTH = "sparsescope probe worth --model tinymoe"


def _real_and_controls(held: DataFrame) -> tuple[DataFrame, DataFrame]:
    real, control = held[held["condition"] == "real"], held[held["condition"] != "real"]
    if real.empty or control.empty:
        raise Lacking("a control (random weights, random directions or a token hash) is wanted beside the model")
    return real, control


def word_classes(tables: Frames) -> Finding:
    """The purest expert for each word class, against base rate and against the purest one of every control."""
    from probes.purity import purest

    counts = rows(last_step(tables["by_class"]), "word classes", labels="word_class")
    real, control = _real_and_controls(purest(counts, int(tables["load"]["expert"].max()) + 1))
    told, beside, pure, ahead, n = [], [], [], [], 0
    for label, words in CLASSES.items():
        mine = rows(real, words, label=label)
        best = mine.iloc[int((mine["low"] - mine["base"]).to_numpy().argmax())]
        rival = rows(control, f"{words} in a control", label=label)["share"].max()
        found = Number(best["share"], best["low"], best["high"])
        told.append(
            f"{words} {found.text()} in expert {best['expert']} of layer {best['layer']} (base {best['base']:.2f})"
        )
        beside.append(f"{words} {rival:.2f}")
        ahead.append(found.low > rival)
        pure.append(found.low >= best["base"] + 0.3 and found.low > rival)
        n = max(n, int(best["n"]))
    return Finding(
        verdict(holds=all(pure), partly=any(pure) or all(ahead)),
        f"purest experts: {'; '.join(told)} (95%, corrected for having chosen the purest of a layer)",
        f"purest under any control: {', '.join(beside)}",
        f"up to {n:,} tokens an expert",
    )


def _beyond(held: DataFrame, labels: str) -> DataFrame:
    kept = rows(held, f"labels '{labels}'", labels=labels, condition="real").set_index("layer")
    return DataFrame({"value": kept["mi"] - kept["null_type"], "sd": kept["sd_type"]})


def syntax(tables: Frames) -> Finding:
    """Information on word class and on domain, each less its type null, layer by layer."""
    held = last_step(tables["specialization"])
    if "domain" not in set(held["labels"]):
        raise Lacking("the text has one domain only; route texts of several domains, joined by +")
    word, domain = _beyond(held, "word_class"), _beyond(held, "domain")
    difference = word["value"] - domain["value"]
    margin = 1.96 * (word["sd"] ** 2 + domain["sd"] ** 2) ** 0.5
    told = [f"layer {layer}: {word['value'][layer]:.3f} and {domain['value'][layer]:.3f}" for layer in difference.index]
    control = held[(held["condition"] != "real") & held["labels"].isin(["word_class", "domain"])]
    beside = [
        f"{CONTROLS.get(str(c), c)} {(part['mi'] - part['null_type'])[part['labels'] == 'word_class'].mean():.3f} and "
        f"{(part['mi'] - part['null_type'])[part['labels'] == 'domain'].mean():.3f}"
        for c, part in control.groupby("condition", sort=False)
    ]
    return Finding(
        share_of(difference > margin),
        f"nats beyond the type null, word class and domain: {'; '.join(told)}; smallest difference "
        f"{difference.min():.3f}, 1.96 sd of the nulls {margin.iloc[int(difference.to_numpy().argmin())]:.3f}",
        "; ".join(beside) or "the type null, taken off both",
        count(held),
    )


def token_identity(tables: Frames) -> Finding:
    """Share of the information on word class that exchanging whole token types keeps."""
    held = rows(last_step(tables["specialization"]), "word classes", labels="word_class")
    real, control = _real_and_controls(held)
    share = (real["null_type"] / real["mi"]).mean()
    found = Number(share, (real["null_type"] / real["high"]).mean(), (real["null_type"] / real["low"]).mean())
    beside = [
        f"{CONTROLS.get(str(c), c)} {(part['null_type'] / part['mi']).mean():.0%}"
        for c, part in control.groupby("condition", sort=False)
    ]
    untestable = real["untestable"].mean()
    if not math.isfinite(share):
        raise Lacking("no type null was drawn")
    return Finding(
        verdict(holds=found.low >= 0.9, partly=found.high >= 0.25),
        f"what any router by token identity would show is {found.text('.0%')} of the information on word class (mean "
        f"over layers, 95% over documents); {untestable:.0%} of tokens cannot be exchanged",
        "; ".join(beside),
        count(real),
    )


def busiest(tables: Frames) -> Finding:
    """Share of slots that the busiest tenth of the experts takes, beside the most it could take."""
    held = rows(last_step(tables["routing"]), "the busiest tenth", measure="busiest_share")
    held = held if "condition" in held.columns else held.assign(condition="real")
    real = rows(held, "the trained model", condition="real")
    found, ceiling = mean(real), float(real["ceiling"].mean())
    untrained = held[held["condition"] == "random_init"]
    beside = f"; random weights {mean(untrained).text('.1%')}" if len(untrained) else ""
    possible = f"the most that k distinct experts allow is {ceiling:.1%}"
    return Finding(
        verdict(holds=found.high >= 0.8, partly=found.high >= 0.5),
        f"the busiest 10% of experts take {found.text('.1%')} of slots (mean over layers, 95% over documents); "
        f"{possible}",
        f"even load {real['chance'].mean():.1%}{beside}",
        count(real),
    )


def damage(tables: Frames) -> Finding:
    """Correlation over (expert, word class) of an expert's share of the class and the loss without the expert there."""
    held = rows(tables["agreement"], "experts left out", replacement="zero", of="read")
    told = [
        f"layer {r['layer']}: {Number(r['correlation'], r['low'], r['high']).text()}" for r in held.to_dict("records")
    ]
    own = [
        f"layer {r['layer']}: {Number(r['within'], r['within_low'], r['within_high']).text()}"
        for r in held.to_dict("records")
    ]
    if not held["correlation"].notna().all():
        raise Lacking("too few word classes occur often enough")
    return Finding(
        verdict(holds=bool((held["low"] >= 0.5).all()), partly=bool((held["low"] > 0).any())),
        f"correlation of share and damage, {'; '.join(told)} (95% over documents)",
        f"each expert's mean taken off both, which load alone cannot make: {'; '.join(own)}",
        f"{int(held['n_cells'].min())} cells of expert and class a layer",
    )


def alike(tables: Frames) -> Finding:
    """Cosine of the outputs of two experts for the same token, first layer against the later ones."""
    held = tables["pairs"]
    real, control = _real_and_controls(held)
    layers = sorted(real["layer"].unique())
    if len(layers) < 2:
        raise Lacking("one layer only; several are compared")
    grouped = real.groupby("layer")["output_cosine"]
    middle, low, high = grouped.mean(), grouped.quantile(0.25), grouped.quantile(0.75)
    first, rest = float(middle.iloc[0]), middle.iloc[1:]
    untrained = control.groupby("layer")["output_cosine"].mean()
    told = [f"layer {layer}: {Number(middle[layer], low[layer], high[layer]).text()}" for layer in layers]
    return Finding(
        verdict(
            holds=first >= 0.3 and first >= 2 * rest.max() and first > untrained.iloc[0] + 0.1,
            partly=first > rest.max() and first > untrained.iloc[0],
        ),
        f"cosine of two experts' outputs for the same token, {'; '.join(told)} (mean, quartiles over pairs)",
        "random weights: " + "; ".join(f"layer {layer}: {value:.2f}" for layer, value in untrained.items()),
        f"{count(real)}, {int(grouped.size().min())} pairs a layer",
    )


def affine(tables: Frames) -> Finding:
    """What an affine map of its input leaves unexplained of each expert, on other documents."""
    held = tables["fits"]
    used = held[held["n_fit"] >= 4 * held["d_model"]].dropna(subset=["affine_fvu"])
    if used.empty:
        raise Lacking("no expert was used for four times as many tokens as it has input dimensions")
    parts = used["affine_fvu"].quantile([0.5, 0.25, 0.75])
    found = Number(parts[0.5], parts[0.25], parts[0.75])
    return Finding(
        verdict(holds=found.high <= 0.1, partly=found.value <= 0.3),
        f"affine maps leave {found.text()} of an expert's variance unexplained (median, quartiles over experts), on "
        "documents they were not fitted on",
        f"a constant leaves {used['constant_fvu'].median():.2f} of its energy; inputs spread over "
        f"{used['participation'].median():.1f} of {int(used['d_model'].max())} dimensions",
        f"{len(used)} experts of {len(held)}, {int(used['n'].min()):,} tokens or more each",
    )


CLAIMS = (
    Claim(
        "experts-take-word-classes",
        "Experts specialise in punctuation, verbs and nouns.",
        "Zoph et al. 2022 (ST-MoE), table of expert specialization",
        "holds: for each of the three an expert lies above its base rate by .3 (lower end of the interval) and above "
        "every control's purest; partly: for one, or all three above every control",
        PROBE,
        ("by_class", "load"),
        word_classes,
        "specialization-cells",
        "experts",
        ("zoph2022stmoe",),
    ),
    Claim(
        "syntax-over-domain",
        "Experts specialise by syntax more than by domain.",
        "Jiang et al. 2024 (Mixtral)",
        "holds: more information on word class than on domain, each beyond its type null, in every layer by 1.96 sd of "
        "the nulls; partly: in some",
        f"{PROBE} --text sotu-modern+python-reference",
        ("specialization",),
        syntax,
        "specialization-by-layer",
        "experts",
        ("jiang2024mixtral",),
    ),
    Claim(
        "token-identity-explains-it",
        "Token identity explains the specialization.",
        "Xue et al. 2024 (OpenMoE: context-independent specialization)",
        "holds: at least 90% of the information on word class is what exchanging whole token types keeps; partly: 25%",
        PROBE,
        ("specialization",),
        token_identity,
        "specialization-by-layer",
        "experts",
        ("xue2024openmoe",),
    ),
    Claim(
        "association-predicts-damage",
        "What an expert is associated with is what is damaged without it.",
        "implied wherever an expert is named after what it is routed",
        "holds: correlation of at least .5 over (expert, word class) in every layer, whole interval; partly: above 0 "
        "in some",
        WORTH,
        ("agreement",),
        damage,
        "worth-causes",
        "worth",
    ),
    Claim(
        "top-tenth-does-eighty",
        "The top 10% of experts do 80% of the work.",
        "a rule of thumb, its source not recorded here",
        "holds: 80% of slots, mean over layers; partly: 50%; k distinct experts a token set a ceiling",
        PROBE,
        ("routing",),
        busiest,
        "experts-busiest",
        "experts",
    ),
    Claim(
        "early-experts-alike",
        "Experts of early layers give similar outputs.",
        "Lo et al. 2024 (similarity of experts by layer)",
        "holds: cosine of outputs for the same token at least .3 in the first layer measured, twice every later one "
        "and .1 above random weights; partly: above both",
        WORTH,
        ("pairs",),
        alike,
        "worth-alike",
        "worth",
        ("lo2024closer",),
    ),
    Claim(
        "experts-are-affine",
        "Experts are locally affine.",
        "the reading of a mixture as a piecewise affine map",
        "holds: FVU of an affine map at most .1 for three quarters of the experts; partly: at most .3 for half",
        WORTH,
        ("fits",),
        affine,
        "worth-stand-ins",
        "worth",
    ),
)
