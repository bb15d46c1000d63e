"""Tables of the shape that the experiments make, with the numbers that are asked for; nothing here is a measurement."""

from pandas import DataFrame

Tables = dict[str, DataFrame]


def layers(measure: str, **conditions: float) -> Tables:
    made = [
        (layer, condition, "without", measure, value, value - 0.01, value + 0.01, 2_000)
        for condition, value in conditions.items()
        for layer in range(3)
    ]
    names = ["layer", "condition", "sinks", "measure", "value", "low", "high", "n_tokens"]
    return {"layers": DataFrame(made, columns=names)}


def kinds(real: tuple[float, float], random: tuple[float, float]) -> Tables:
    made = [
        (layer, condition, kind, share, share - 0.01, share + 0.01, 64, 2_000)
        for condition, shares in (("real", real), ("random_init", random))
        for kind, share in zip(("generalized", "specialised"), shares, strict=True)
        for layer in range(3)
    ]
    names = ["layer", "condition", "kind", "share", "low", "high", "n_neurons", "n_tokens"]
    return {"kinds": DataFrame(made, columns=names)}


def keeping(tenth: float, half: float) -> Tables:
    made = [
        (choice, -1, share, ratio, ratio - 0.01, ratio + 0.01, 1_000, 4)
        for choice, scale in (("oracle", 1), ("static", 3))
        for share, ratio in ((0.1, tenth * scale), (0.5, half * scale))
    ]
    names = ["choice", "layer", "share", "ppl_ratio", "ratio_low", "ratio_high", "n_tokens", "n_documents"]
    return {"keeping": DataFrame(made, columns=names)}


def settings(*ends: float) -> Tables:
    made = [(f"setting {i}", 0.5, end, end - 0.01, end + 0.01, 3, 2_048) for i, end in enumerate(ends)]
    names = ["setting", "start", "end", "low", "high", "n_seeds", "n_inputs"]
    return {"emergence_summary": DataFrame(made, columns=names)}


def course(*values: float) -> Tables:
    made = [
        ("all neurons", seed, 100 * step, layer, "firing_frequency", value, 2_000)
        for seed in range(2)
        for step, value in enumerate(values)
        for layer in range(2)
    ]
    names = ["variant", "seed", "step", "layer", "measure", "value", "n_tokens"]
    return {"emergence_snapshots": DataFrame(made, columns=names)}


def residuals(attention: float, attention_ffn: float, attention_skip: float, full: float) -> Tables:
    values = {"attention": attention, "attention_ffn": attention_ffn, "attention_skip": attention_skip, "full": full}
    made = [
        (layer, variant, condition, "out", "residual_composite", value, 0.99 * value, 1.01 * value, 8, 2_040)
        for variant, value in values.items()
        for condition in ("real", "random_init")
        for layer in range(-1, 2)
    ]
    names = ["layer", "variant", "condition", "first", "measure", "value", "low", "high", "n_windows", "n_tokens"]
    return {"rank_residuals": DataFrame(made, columns=names)}


def room(dense: float, sparse: float) -> Tables:
    made = [(p, seed, room, 20, 5) for p, room in ((1.0, dense), (0.01, sparse)) for seed in range(3)]
    names = ["feature_probability", "seed", "dimensions_per_feature", "n_features", "d_hidden"]
    return {"toy_room": DataFrame(made, columns=names)}


def phases(share: float) -> Tables:
    agrees = [i < 100 * share for i in range(100)]
    frame = DataFrame({"agrees": agrees, "off_boundary": True, "single_fits_agreeing": 0.7, "seeds": 10})
    return {"toy_phase": frame}


def toy_experts(one: float, many: float, coin: float) -> Tables:
    held = {("frozen", 1): one, ("frozen", 8): many, ("random", 1): one, ("random", 8): coin}
    made = [(router, e, seed, value + 0.01 * seed) for (router, e), value in held.items() for seed in range(3)]
    return {"toy_moe_runs": DataFrame(made, columns=["router", "n_experts", "seed", "features_per_dimension"])}


def bars(guaranteed: int, measured: int) -> Tables:
    names = ["dictionary", "condition", "mu", "k_guaranteed"]
    found = DataFrame([("d", "real", 0.2, guaranteed), ("d", "random", 0.1, 3)], columns=names)
    made = [
        ("d", bar, kind, k, condition, 100)
        for condition in ("real", "random")
        for bar, kind, k in (("mu", "guaranteed", guaranteed), ("thresholding", "measured", measured))
    ]
    names = ["dictionary", "bar", "kind", "k", "condition", "trials"]
    return {"coherence": found, "recovery_bars": DataFrame(made, columns=names)}


def supports(counted: int) -> Tables:
    names = ["n_features", "d_model", "k", "counted", "of_features", "of_dimensions"]
    return {"supports": DataFrame([(4, 4, 2, 10, 10, 10), (8, 4, 2, counted, 36, 10)], columns=names)}


def process(cnp: float, moe: float) -> Tables:
    held = {"cnp": cnp, "moe": moe, "dense": 0.6, "cnp_moe": 0.2}
    made = [
        (name, size, seed, value + 0.01 * seed, 1.2, 2_190, 100)
        for name, value in held.items()
        for size in (4, 16)
        for seed in range(3)
    ]
    names = ["architecture", "n_context", "seed", "fvu", "fvu_other_context", "macs", "n_tasks"]
    return {"toy_process_runs": DataFrame(made, columns=names)}


def by_class(own: float) -> Tables:
    """Expert 0, 1 and 2 of four hold the share `own` of their own class, the rest is even; controls are even."""
    classes, made = ("PUNCT", "VERB", "NOUN", "ADJ"), []
    for condition in ("real", "hash"):
        for expert in range(4):
            for i, label in enumerate(classes):
                share = own if condition == "real" and i == expert else (1 - own) / 3 if condition == "real" else 0.25
                made.append((condition, "word_class", 0, expert, label, round(1_000 * share)))
    names = ["condition", "labels", "layer", "expert", "label", "n"]
    return {"by_class": DataFrame(made, columns=names), "load": DataFrame({"layer": 0, "expert": range(4)})}


def information(word: float, domain: float, null: float = 0.02) -> Tables:
    made = [
        (condition, layer, labels, mi, mi - 0.005, mi + 0.005, null, 0.005, 0.3, 5_000)
        for condition in ("real", "hash")
        for labels, mi in (("word_class", word), ("domain", domain))
        for layer in range(2)
    ]
    names = ["condition", "layer", "labels", "mi", "low", "high", "null_type", "sd_type", "untestable", "n_tokens"]
    return {"specialization": DataFrame(made, columns=names)}


def busiest(share: float) -> Tables:
    made = [
        (condition, layer, "busiest_share", value, value - 0.01, value + 0.01, 0.1, 0.9, 5_000)
        for condition, value in (("real", share), ("random_init", 0.15))
        for layer in range(2)
    ]
    names = ["condition", "layer", "measure", "value", "low", "high", "chance", "ceiling", "n_tokens"]
    return {"routing": DataFrame(made, columns=names)}


def agreement(*correlations: float) -> Tables:
    made = [
        (layer, "zero", "read", r, r - 0.05, r + 0.05, r / 2, r / 2 - 0.05, r / 2 + 0.05, 64)
        for layer, r in enumerate(correlations)
    ]
    names = [
        "layer",
        "replacement",
        "of",
        "correlation",
        "low",
        "high",
        "within",
        "within_low",
        "within_high",
        "n_cells",
    ]
    return {"agreement": DataFrame(made, columns=names)}


def pairs(*cosines: float) -> Tables:
    made = [
        (layer, 0, other, cosine if condition == "real" else 0.05, condition, 256)
        for condition in ("real", "random_init")
        for layer, cosine in enumerate(cosines)
        for other in range(1, 4)
    ]
    return {"pairs": DataFrame(made, columns=["layer", "expert", "other", "output_cosine", "condition", "n_tokens"])}


def fits(affine: float) -> Tables:
    made = [(0, e, 1_000, 900, 0.6, affine, 5.0, 64) for e in range(4)]
    names = ["layer", "expert", "n_fit", "n", "constant_fvu", "affine_fvu", "participation", "d_model"]
    return {"fits": DataFrame(made, columns=names)}


def series(coarse: float, fine: float, measures: tuple[str, ...], split: bool) -> Tables:
    shapes = ((8, 2, 256), (32, 8, 64)) if split else ((8, 2, 256), (128, 2, 256))
    names = [f"{e} of width {h}" for e, _, h in shapes]
    models = [
        (name, seed, e, k, h, 0, 1_300_000, 4.6)
        for name, (e, k, h) in zip(names, shapes, strict=True)
        for seed in range(3)
    ]
    made = [
        (name, seed, layer, measure, value + 0.001 * seed, 0.01, 10_000)
        for name, value in zip(names, (coarse, fine), strict=True)
        for seed in range(3)
        for layer in range(2)
        for measure in measures
    ]
    return {
        "series": DataFrame(made, columns=["variant", "seed", "layer", "measure", "value", "chance", "n_tokens"]),
        "series_models": DataFrame(
            models, columns=["variant", "seed", "n_experts", "k", "d_mlp", "shared", "active", "loss"]
        ),
    }


def snapshots(learned: int, sparse: int) -> Tables:
    """Half of the information is there at `learned`, half of the fall of the entropy at `sparse`."""
    steps = (0, 100, 200, 300, 400)
    meaning = [
        ("real", layer, "word_class", 0.2 * (step >= learned), 0.0, step, 5_000) for layer in (0, 1) for step in steps
    ]
    certain = [("router_entropy", layer, 2.5 - (step >= sparse), step) for layer in (0, 1) for step in steps]
    return {
        "specialization": DataFrame(
            meaning, columns=["condition", "layer", "labels", "mi", "null_type", "step", "n_tokens"]
        ),
        "routing": DataFrame(certain, columns=["measure", "layer", "value", "step"]),
    }


def students(real: float, gaussian: float, other_weights: float | None = None) -> Tables:
    made = {"real": real, "gaussian": gaussian}
    if other_weights is not None:
        made |= {"random_teacher": other_weights, "shuffled_teacher": other_weights}
    ratios = [
        (layer, condition, "closed_form", 64, 64, seed, r, r - 0.02, r + 0.02, 0.3, 0.3 * r, 4_000_000, 20_000, 41)
        for condition, r in made.items()
        for layer in (3, 15)
        for seed in range(2)
    ]
    gap = real - gaussian
    gaps = [(layer, "closed_form", 64, 64, "gaussian", gap, gap - 0.02, gap + 0.02, 2, 41) for layer in (3, 15)]
    names = "layer condition method n_experts n_active seed ratio low high fvu fvu_dense stored n_tokens n_documents"
    return {
        "secret_ratios": DataFrame(ratios, columns=names.split()),
        "secret_gaps": DataFrame(
            gaps,
            columns=[
                "layer",
                "method",
                "n_experts",
                "n_active",
                "condition",
                "gap",
                "low",
                "high",
                "n_seeds",
                "n_documents",
            ],
        ),
    }


def counted(first: float, second: float) -> Tables:
    """Ratios with the router counted in two layers; Gaussian inputs at 1."""
    names = "layer condition method n_experts n_active k seed ratio low high fvu fvu_dense verdict"
    made = [
        (layer, condition, "closed_form", 64, 64, 1, 0, r, r - 0.02, r + 0.02, 0.4, 0.4 * r,
         "wins" if r > 1.02 else "loses" if r < 0.98 else "undecided")
        for condition, ratios in (("real", (first, second)), ("gaussian", (1.0, 1.0)))
        for layer, r in zip((3, 15), ratios, strict=True)
    ]  # fmt: skip
    frame = DataFrame(made, columns=names.split()).assign(
        n_active_dense=96, active_dense=111_264, active_with_router=111_232, stored=4_000_000, n_tokens=20_000,
        n_documents=41,
    )  # fmt: skip
    return {"secret_counted": frame}


def cells(few: float, many: float) -> Tables:
    made = [
        (3, condition, "constants", n, fvu, 20_000)
        for condition, values in (("real", (few, many)), ("gaussian", (0.95, 0.94)))
        for n, fvu in zip((64, 4_096), values, strict=True)
    ]
    names = ["layer", "condition", "what", "n_cells", "fvu", "n_tokens"]
    return {"secret_cells": DataFrame(made, columns=names)}


def budget(parameters: int, mib: float, combinations: str) -> Tables:
    made = [
        ("4096 x 11008 dense", parameters, mib, "1"),
        ("4096 x 1376, 8 of 64 experts", 1, 1.0, combinations),
    ]
    return {"budget": DataFrame(made, columns=["block", "parameters", "mib_32", "combinations"])}
