"""Claims about activation sparsity: how few neurons work, when that comes about, what is lost when only they do."""

import numpy as np

from app.claims.claim import Claim, Finding, Frames, Lacking, Number, count, mean, over_seeds, rows, share_of, verdict

CONTROLS = {"random_init": "random weights", "shuffled": "shuffled weights", "gaussian": "Gaussian input"}
PROBE = "sparsescope probe sparsity --model smollm2-135m --tokens 20000"
LAYERS = "mean over layers, 95% over documents"


def _by_condition(tables: Frames, measure: str) -> dict[str, Number]:
    held = rows(tables["layers"], measure=measure, sinks="without")
    rows(held, "the model with its own weights", condition="real")
    rows(held, "the control with random weights", condition="random_init")
    return {str(c): mean(part) for c, part in held.groupby("condition")}


def _controls(found: dict[str, Number], form: str = ".1%") -> str:
    return ", ".join(f"{words} {found[c].text(form)}" for c, words in CONTROLS.items() if c in found)


def active(tables: Frames) -> Finding:
    """Mean share of tokens on which a neuron fires."""
    found = _by_condition(tables, "firing_frequency")
    real, control = found["real"], found["random_init"]
    return Finding(
        verdict(holds=real.high <= 0.065, partly=real.high <= control.low / 2),
        f"a neuron fires on {real.text('.1%')} of tokens ({LAYERS})",
        _controls(found),
        count(tables["layers"]),
    )


def concentrated(tables: Frames) -> Finding:
    """Energy in the top tenth of the neurons of each token."""
    found = _by_condition(tables, "energy_top10")
    real = found["real"]
    beyond = real.low > max(other.high for name, other in found.items() if name != "real")
    return Finding(
        verdict(holds=real.high >= 0.8 and beyond, partly=real.high >= 0.7),
        f"the top 10% of a token's neurons hold {real.text('.1%')} of its energy ({LAYERS})",
        _controls(found),
        count(tables["layers"]),
    )


def two_kinds(tables: Frames) -> Finding:
    """Shares of generalized and specialised neurons, together and each."""
    held = tables["kinds"]

    def shares(condition: str) -> tuple[Number, Number]:
        mine = rows(held, f"kinds of neurons with {condition} weights", condition=condition)
        return mean(rows(mine, kind="generalized"), "share"), mean(rows(mine, kind="specialised"), "share")

    (general, special), (general_control, special_control) = shares("real"), shares("random_init")
    both = general.value + special.value
    return Finding(
        verdict(
            holds=both >= 0.8 and min(general.low, special.low) >= 0.1,
            partly=min(general.low, special.low) >= 0.1 and special.low > special_control.high,
        ),
        f"{general.text('.1%')} of neurons fire on more than half of the tokens, {special.text('.1%')} on 5-30%, "
        f"{1 - both:.1%} are neither ({LAYERS})",
        f"random weights {general_control.text('.1%')} and {special_control.text('.1%')}",
        f"{count(held)}, {int(held['n_neurons'].max()):,} neurons a layer",
    )


def cheap(tables: Frames) -> Finding:
    """Perplexity when the largest tenth, or the largest half, of each token's neurons is kept."""
    held = rows(tables["keeping"], layer=-1)
    own = rows(held, "the largest neurons of each token", choice="oracle")
    control = held[held["choice"].isin(["static", "random"])]
    few, half = (own[(own["share"] - share).abs() < 1e-6] for share in (0.1, 0.5))
    if few.empty or half.empty or control.empty:
        raise Lacking("shares .5 and .1 and the choice 'static' or 'random' are wanted")

    def ratio(part: "object") -> Number:
        return mean(part, "ppl_ratio", "ratio_low", "ratio_high")  # type: ignore[arg-type]

    tenth, five = ratio(few), ratio(half)
    beside = [
        f"{choice} {share:.0%} of neurons {ratio(part).text(',.2f')}"
        for (choice, share), part in control[control["share"].isin([0.5, 0.1])].groupby(["choice", "share"])
    ]
    return Finding(
        verdict(holds=tenth.high <= 1.1, partly=five.high <= 1.1),
        f"perplexity is multiplied by {tenth.text()} with 10% of the neurons kept and by {five.text()} with 50% (95% "
        "over documents)",
        "; ".join(beside),
        f"{count(own)}, {int(own['n_documents'].max())} documents",
    )


def everywhere(tables: Frames) -> Finding:
    """Active units at the end of training in each setting of the two-layer network."""
    held = tables["emergence_summary"]
    if held["setting"].nunique() < 2:
        raise Lacking("a single setting: nothing shows whether the data matter")
    parts = [
        f"{row['setting']} {Number(row['end'], row['low'], row['high']).text('.1%')}" for row in held.to_dict("records")
    ]
    return Finding(
        share_of(held["high"] <= 0.15),
        f"units active after training: {'; '.join(parts)} (mean and range over seeds)",
        f"before training {held['start'].min():.1%} to {held['start'].max():.1%}",
        f"{int(held['n_seeds'].min())} seeds, {int(held['n_inputs'].min()):,} inputs",
    )


def late(tables: Frames) -> Finding:
    """How much of the fall in firing comes in the second half of training."""
    held = rows(tables["emergence_snapshots"], measure="firing_frequency", variant="all neurons")
    held = held if "seed" in held.columns else held.assign(seed=0)
    falls, shares = [], []
    for _, part in held.groupby("seed"):
        course = part.groupby("step")["value"].mean()
        if len(course) < 3:
            raise Lacking("fewer than three snapshots")
        start, end = float(course.iloc[0]), float(course.iloc[-1])
        middle = float(np.interp(course.index[-1] / 2, course.index.to_numpy(float), course.to_numpy(float)))
        falls.append(start - end)
        shares.append((middle - end) / (start - end) if start > end else 0.0)
    fall, share = over_seeds(falls), over_seeds(shares)
    first, last = (held.loc[held["step"] == s, "value"].mean() for s in (held["step"].min(), held["step"].max()))
    return Finding(
        verdict(holds=fall.low >= 0.05 and share.low >= 0.5, partly=fall.low >= 0.05),
        f"firing goes from {first:.1%} to {last:.1%} of tokens; {share.text('.0%')} of that in the second half of "
        "training (range over seeds)",
        f"random weights, step 0: {first:.1%}",
        f"{count(held)} a snapshot, {held['step'].nunique()} snapshots, {len(falls)} seeds",
    )


def _residual(tables: Frames, variant: str, condition: str) -> Number:
    words = f"the variant '{variant}' with {'its own' if condition == 'real' else 'random'} weights"
    held = rows(tables["rank_residuals"], words, variant=variant, condition=condition, first="out")
    held = rows(held, measure="residual_composite")
    return mean(held[held["layer"] == held["layer"].max()])


def _windows(tables: Frames) -> str:
    held = tables["rank_residuals"]
    depth = int(held["layer"].max()) + 1
    return f"{int(held['n_windows'].max())} windows, {count(held)}, after the last of {depth} blocks"


def loses_rank(tables: Frames) -> Finding:
    """Relative residual to the mean token after attention alone."""
    alone, full = _residual(tables, "attention", "real"), _residual(tables, "full", "real")
    random = _residual(tables, "attention", "random_init")
    return Finding(
        verdict(holds=max(alone.high, random.high) <= 0.01, partly=alone.high <= full.low / 2),
        f"relative residual to the mean token after attention alone {alone.text('.1e')} (95% over documents)",
        f"the whole model {full.text('.2f')}; attention alone with random weights {random.text('.1e')}",
        _windows(tables),
    )


def restored(tables: Frames) -> Finding:
    """Which of feed-forward block and skip connection keeps the tokens apart by itself."""
    alone, full = _residual(tables, "attention", "real"), _residual(tables, "full", "real")
    ffn, skip = _residual(tables, "attention_ffn", "real"), _residual(tables, "attention_skip", "real")
    random = _residual(tables, "full", "random_init")
    apart = [x.low >= 0.05 for x in (ffn, skip, full)]
    return Finding(
        verdict(holds=all(apart), partly=apart[2]),
        f"relative residual to the mean token with feed-forward blocks {ffn.text('.1e')}, with skip connections "
        f"{skip.text('.2f')}, with both {full.text('.2f')} (95% over documents)",
        f"attention alone {alone.text('.1e')}; both, random weights {random.text('.2f')}",
        _windows(tables),
    )


CLAIMS = (
    Claim(
        "neurons-active",
        "About 3.5% of the neurons of a feed-forward layer are active for a token.",
        "Li et al. 2023 (3.0% of T5-Base, 6.3% of ViT-B/16, ReLU networks)",
        "holds: at most 6.5% with the whole interval; partly: at most half of what random weights show; firing is a "
        "positive gate (gated layers) or an activation above 0",
        PROBE,
        ("layers",),
        active,
        "sparsity-firing",
        "sparsity",
        ("li2023lazy",),
    ),
    Claim(
        "ten-do-eighty",
        "10% of the neurons carry 80% of the activation.",
        "a common reading of Li et al. 2023",
        "holds: the interval reaches 80% and lies above every control; partly: it reaches 70%",
        PROBE,
        ("layers",),
        concentrated,
        "sparsity-energy",
        "sparsity",
        ("li2023lazy",),
    ),
    Claim(
        "two-kinds-of-neurons",
        "Neurons are generalized (they fire on more than 50% of tokens) or specialised (5-30%).",
        "a common reading of Li et al. 2023",
        "holds: 80% of neurons are one or the other, at least 10% each; partly: at least 10% each, and more "
        "specialised ones than with random weights",
        PROBE,
        ("kinds",),
        two_kinds,
        "kinds-bands",
        "laziness",
        ("li2023lazy",),
    ),
    Claim(
        "topk-is-cheap",
        "Keeping only the largest few activations of a trained model costs little.",
        "Li et al. 2023",
        "holds: perplexity at most 10% higher with 10% of the neurons; partly: with 50%; whole interval",
        "sparsescope probe keep --tokens 4000",
        ("keeping",),
        cheap,
        "keeping-curve",
        "laziness",
        ("li2023lazy", "liu2024teal"),
    ),
    Claim(
        "sparsity-everywhere",
        "Sparsity emerges by itself, whatever the data: also with random labels, random inputs and endless data.",
        "Li et al. 2023",
        "holds: at most 15% of units active in every setting, all seeds; partly: in some",
        "sparsescope emergence two-layer",
        ("emergence_summary",),
        everywhere,
        "emergence-settings",
        "emergence",
        ("li2023lazy",),
    ),
    Claim(
        "sparsity-late",
        "Sparsity emerges late in training.",
        "a common reading of Li et al. 2023",
        "holds: firing falls by at least 5 points, half of it or more in the second half of training, every seed; "
        "partly: it falls by as much, but earlier",
        "sparsescope emergence training",
        ("emergence_snapshots",),
        late,
        "emergence-firing",
        "emergence",
        ("li2023lazy",),
    ),
    Claim(
        "attention-loses-rank",
        "Softmax attention alone loses rank: with depth all tokens become one vector.",
        "Dong et al. 2021",
        "holds: relative residual to the mean token at most .01 after the last block, with trained and with random "
        "weights; partly: at most half of the whole model's",
        "sparsescope probe rank --windows 8",
        ("rank_residuals",),
        loses_rank,
        "rank-residual",
        "rank",
        ("dong2021attention",),
    ),
    Claim(
        "ffn-and-skip-restore",
        "Feed-forward blocks and skip connections restore the rank.",
        "Dong et al. 2021",
        "restored: relative residual to the mean token at least .05. Holds: by either of the two alone and by both; "
        "partly: by both together",
        "sparsescope probe rank --windows 8",
        ("rank_residuals",),
        restored,
        "rank-residual",
        "rank",
        ("dong2021attention",),
    ),
)
