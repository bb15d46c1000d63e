"""Claims about mixtures of experts inside dense blocks, and about a block as a table of constants."""

from pandas import DataFrame

from app.claims.claim import Claim, Finding, Frames, Lacking, Number, over_seeds, rows, verdict

STUDENT = "closed_form"
"""The mixture that claims are decided with; the paper's own student is decided with where it alone was fitted."""
WEIGHTS = ("random_teacher", "shuffled_teacher")
"""Conditions in which only the layer's weights are not the trained ones."""
CONDITIONS = "--condition real --condition gaussian --condition random_teacher --condition shuffled_teacher"
PROBE = "sparsescope probe secret --model smollm2-135m --layer 3 --layer 15 --layer 27"


def _student(frame: DataFrame) -> DataFrame:
    for method in (STUDENT, "paper"):
        if (frame["method"] == method).any():
            held = frame[frame["method"] == method]
            for size in ("n_experts", "n_active", "k"):  # where several were fitted, the first that was asked for
                held = held[held[size] == held[size].iloc[0]] if size in held else held
            return held
    raise Lacking("no mixture (closed_form or paper) was fitted beside the dense student")


def _layers(frame: DataFrame, name: str = "ratio") -> dict[int, Number]:
    return {
        int(str(layer)): Number(part[name].mean(), part["low"].mean(), part["high"].mean())
        for layer, part in frame.groupby("layer")
    }


def _told(found: dict[int, Number]) -> str:
    return "; ".join(f"layer {layer}: {number.text()}" for layer, number in found.items())


def secretly(tables: Frames) -> Finding:
    """FVU of the dense student over that of the mixture of equal active parameters, on the model's own activations."""
    held = _student(tables["secret_ratios"])
    real = rows(held, "real activations", condition="real")
    other = rows(held, "a control condition (Gaussian inputs)", condition="gaussian")
    found = _layers(real)
    levels = real.groupby("layer")[["fvu_dense", "fvu"]].mean()
    level = "; ".join(f"layer {i}: {a:.3f} and {b:.3f}" for i, (a, b) in enumerate_layers(levels))
    return Finding(
        verdict(holds=all(n.low >= 1.25 for n in found.values()), partly=any(n.low > 1 for n in found.values())),
        f"FVU dense / mixture, {_told(found)} (95% over documents, mean over seeds); FVU dense and mixture, {level}; "
        f"{int(real['stored'].max()):,} parameters stored",
        f"Gaussian inputs of the same mean and covariance, {_told(_layers(other))}",
        f"{int(real['n_tokens'].max()):,} held-out tokens of {int(real['n_documents'].max())} documents, "
        f"{real['seed'].nunique()} seeds",
    )


def enumerate_layers(levels: DataFrame) -> list[tuple[int, tuple[float, float]]]:
    """(layer, its two numbers) of a frame with the layer as index."""
    return [(int(str(i)), (float(row.iloc[0]), float(row.iloc[1]))) for i, row in levels.iterrows()]


def not_gaussian(tables: Frames) -> Finding:
    """The ratio on real activations less that on Gaussian ones."""
    gaps = rows(_student(tables["secret_gaps"]), "Gaussian inputs", condition="gaussian")
    ratios = _student(tables["secret_ratios"])
    found, alone = _layers(gaps, "gap"), _layers(rows(ratios, "Gaussian inputs", condition="gaussian"))
    enough = [n.value >= 0.25 and n.low > 0 for n in found.values()]
    return Finding(
        verdict(holds=all(enough), partly=any(n.low > 0 for n in found.values())),
        f"ratio on real less ratio on Gaussian activations, {_told(found)} (95% over documents)",
        f"the ratio on Gaussian activations, {_told(alone)}",
        f"{int(gaps['n_documents'].max())} held-out documents, {int(gaps['n_seeds'].max())} seeds",
    )


def in_the_inputs(tables: Frames) -> Finding:
    """The ratio of layers whose weights were never trained, on the trained model's activations."""
    held = _student(tables["secret_ratios"])
    drawn, mixed = (rows(held, f"a {name} layer on real inputs", condition=name) for name in WEIGHTS)
    real = rows(held[held["layer"].isin(drawn["layer"])], "the trained layer", condition="real")
    trained, found = _layers(real), _layers(drawn)
    if min(number.value for number in trained.values()) <= 1:
        raise Lacking("the trained layer is no better imitated by a mixture than by a dense block")
    excess = [(found[layer].value - 1) / (trained[layer].value - 1) for layer in trained]
    return Finding(
        verdict(holds=min(excess) >= 0.8, partly=all(number.low > 1 for number in found.values())),
        f"FVU dense / mixture of a layer with random weights on the model's own activations, {_told(found)}; of one "
        f"with its trained entries shuffled, {_told(_layers(mixed))} (95% over documents)",
        f"the trained layer on them, {_told(trained)}; on Gaussian inputs, "
        f"{_told(_layers(rows(held, 'Gaussian inputs', condition='gaussian')))}",
        f"{int(real['n_tokens'].max()):,} held-out tokens of {int(real['n_documents'].max())} documents, "
        f"seeds: {real['seed'].nunique()}",
    )


def with_router(tables: Frames) -> Finding:
    """The mixture with its router counted, beside the smallest dense block of no fewer active parameters."""
    held = _student(tables["secret_counted"])
    real = rows(held, "real activations", condition="real")
    other = rows(held, "a control condition (Gaussian inputs)", condition="gaussian")
    wins = (real["verdict"] == "wins").groupby(real["layer"]).all()
    never = (real["verdict"] == "loses").all()
    return Finding(
        verdict(holds=bool(wins.all()), partly=not never),
        f"FVU of a dense block of {int(real['n_active_dense'].iloc[0])} neurons / mixture with its router, "
        f"{_told(_layers(real))} (95% over documents); {int(real['active_dense'].iloc[0]):,} and "
        f"{int(real['active_with_router'].iloc[0]):,} active parameters, {int(real['stored'].max()):,} stored",
        f"Gaussian inputs of the same mean and covariance, {_told(_layers(other))}",
        f"{int(real['n_tokens'].max()):,} held-out tokens of {int(real['n_documents'].max())} documents, "
        f"seeds: {real['seed'].nunique()}",
    )


def embedding(tables: Frames) -> Finding:
    """What a table of constants, one a cell of the inputs, leaves unexplained as cells become more."""
    held = rows(tables["secret_cells"], "tables of constants", what="constants")
    if held["n_cells"].nunique() < 2:
        raise Lacking("one number of cells only; fit several")
    real = rows(held, "real activations", condition="real")
    other = rows(held, "a control condition (Gaussian inputs)", condition="gaussian")
    few, many = real["n_cells"].min(), real["n_cells"].max()
    last = over_seeds(real.loc[real["n_cells"] == many].groupby("layer")["fvu"].mean())
    first = over_seeds(real.loc[real["n_cells"] == few].groupby("layer")["fvu"].mean())
    control = [over_seeds(other.loc[other["n_cells"] == n].groupby("layer")["fvu"].mean()) for n in (few, many)]
    falls = first.value - last.value > 2 * max(control[0].value - control[1].value, 0)
    return Finding(
        verdict(holds=last.high <= 0.2 and falls, partly=falls and last.value < first.value),
        f"constants leave {first.text()} unexplained with {few:,} cells and {last.text()} with {many:,} (mean and "
        "range over layers)",
        f"Gaussian inputs {' and '.join(n.text() for n in control)}",
        f"{int(real['n_tokens'].max()):,} held-out tokens, {real['layer'].nunique()} layers",
    )


CLAIMS = (
    Claim(
        "mlps-are-secret-mixtures",
        "Dense feed-forward blocks are secretly sparse mixtures of experts.",
        "Boix-Adsera 2025",
        "at equal active parameters, FVU(dense) / FVU(mixture): holds: at least 1.25 in every layer, whole interval; "
        "partly: above 1 in some",
        PROBE,
        ("secret_ratios",),
        secretly,
        "secret-ratios",
        "secret",
        ("boixadsera2025secret",),
    ),
    Claim(
        "not-on-gaussian-data",
        "They are not on Gaussian data: the mixture is in the activations, not in the weights.",
        "Boix-Adsera 2025",
        "ratio on real activations less that on Gaussian ones of the same mean and covariance: holds: at least .25 in "
        "every layer, its interval above 0; partly: above 0 in some",
        PROBE,
        ("secret_gaps", "secret_ratios"),
        not_gaussian,
        "secret-ratios",
        "secret",
        ("boixadsera2025secret",),
    ),
    Claim(
        "secret-mixtures-need-no-training",
        "The secret mixture is in what the layer reads: a layer that was never trained has it too, on the same inputs.",
        "Boix-Adsera 2025 explains it by the inputs' structure; layers with other weights are tried here",
        "FVU(dense) / FVU(mixture) less 1, random weights on real inputs as a share of the trained layer's: holds: "
        "at least .8 in every layer; partly: above 0, whole interval, in every layer",
        f"sparsescope probe secret {CONDITIONS}",
        ("secret_ratios",),
        in_the_inputs,
        "secret-ratios",
        "secret",
        ("boixadsera2025secret",),
    ),
    Claim(
        "secret-mixtures-pay-for-their-router",
        "A secret mixture is better than a dense block that costs as much as its experts and router together.",
        "Boix-Adsera 2025 gives the router's cost; the comparison is made here",
        "FVU(dense) / FVU(mixture), the smallest dense block of no fewer active parameters than the mixture with its "
        "router: holds: above 1 in every layer, whole interval; partly: not below 1 in every layer",
        f"{PROBE} --more-active 96",
        ("secret_counted",),
        with_router,
        "secret-ratios",
        "secret",
        ("boixadsera2025secret",),
    ),
    Claim(
        "block-is-an-embedding",
        "A feed-forward block is an embedding layer: a table of constants.",
        "an argument about the limit of many experts, its source not recorded here",
        "holds: constants leave at most .2 unexplained in every layer, and fall twice as far as on Gaussian inputs; "
        "partly: they fall so",
        f"{PROBE} --embedding",
        ("secret_cells",),
        embedding,
        "secret-cells",
        "secret",
    ),
)
