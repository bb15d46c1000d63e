"""Claims that are arithmetic: what a dense block stores, how many sets of experts a token can use."""

from app.claims.claim import Claim, Finding, Frames, rows, verdict

PRINTED_PARAMETERS, PRINTED_MIB = 90_113_536, 343.75
COMBINATIONS = 4_426_165_368


def dense_block(tables: Frames) -> Finding:
    """Parameters and bytes of a 4096 x 11008 block with two matrices."""
    row = rows(tables["budget"], "a 4096 x 11008 dense block", block="4096 x 11008 dense").iloc[0]
    parameters, mib = int(row["parameters"]), float(row["mib_32"])
    off = abs(parameters / PRINTED_PARAMETERS - 1)
    exact = parameters == PRINTED_PARAMETERS and abs(mib - PRINTED_MIB) < 0.005
    return Finding(
        verdict(holds=exact, partly=off <= 0.01),
        f"{parameters:,} parameters, {mib:.2f} MiB in 32 bits: {off:.3%} from what is printed",
        f"printed {PRINTED_PARAMETERS:,} and {PRINTED_MIB} MiB, which are 2 x 11008 x 4093.1",
        "exact arithmetic, two matrices, no biases",
    )


def combinations(tables: Frames) -> Finding:
    """Sets of 8 of 64 experts."""
    held = tables["budget"]
    many = rows(held[held["block"].str.endswith("8 of 64 experts")], "a block with 8 of 64 experts").iloc[0]
    few = held[held["block"].str.endswith("2 of 16 experts")]
    counted = int(str(many["combinations"]).replace(",", ""))
    beside = f"2 of 16 experts: {few['combinations'].iloc[0]}" if len(few) else "a dense block: 1"
    return Finding(
        verdict(holds=counted == COMBINATIONS, partly=abs(counted / COMBINATIONS - 1) <= 0.01),
        f"C(64, 8) = {counted:,}",
        beside,
        "exact arithmetic",
    )


CLAIMS = (
    Claim(
        "dense-block-size",
        "A dense 4096 x 11008 block has 90,113,536 parameters, 343.75 MiB in 32 bits.",
        "a printed figure, its source not recorded here",
        "holds: both numbers exactly; partly: parameters within 1%",
        "sparsescope probe ladder",
        ("budget",),
        dense_block,
        "",
        "ladder",
    ),
    Claim(
        "expert-combinations",
        "8 of 64 experts can be combined in 4,426,165,368 ways.",
        "Dai et al. 2024 (DeepSeekMoE)",
        "holds: exactly; partly: within 1%",
        "sparsescope probe ladder",
        ("budget",),
        combinations,
        "",
        "ladder",
        ("dai2024deepseekmoe",),
    ),
)
