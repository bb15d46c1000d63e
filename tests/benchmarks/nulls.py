"""What the nulls of specialization cost: CPU seconds for 100 permutations, and the ratio to permuting with NumPy.

    python -m tests.benchmarks.nulls [--tokens 1000000] [--permutations 100] [--naive 2]

One million tokens, k = 8 of E = 64 experts each (8 million slots), 20 labels, 50,000 token types by Zipf's law, a tenth
of them with two labels; routing depends on the type and on chance.  The naive way permutes labels (or profiles, slot by
slot) with NumPy, counts with scikit-learn's contingency table and calls its mutual_info_score, a few times, in the same
run; its cost grows in proportion to the permutations.  One thread.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.metrics import mutual_info_score

from probes import nulls
from probes.choices import Choices, choices

RESULTS = Path(__file__).parent / "results" / "nulls.json"
GOAL = 10.0


def routed(n_tokens: int, n_experts: int = 64, k: int = 8, n_labels: int = 20, n_types: int = 50_000) -> Choices:
    """The planted text and its routing."""
    rng = np.random.default_rng(0)
    share = 1 / (np.arange(n_types) + 3.0)
    types = rng.choice(n_types, n_tokens, p=share / share.sum())
    of_type = rng.integers(0, n_labels, (2, n_types))
    second = (rng.random(n_types) < 0.1)[types] & (rng.random(n_tokens) < 0.4)
    labels = np.where(second, of_type[1][types], of_type[0][types])
    liking = rng.random((n_types, n_experts), dtype=np.float32)
    experts = np.empty((n_tokens, k), dtype=np.int16)
    for first in range(0, n_tokens, 50_000):
        part = types[first : first + 50_000]
        scores = liking[part] + rng.random((len(part), n_experts), dtype=np.float32) / 2
        experts[first : first + 50_000] = np.argpartition(-scores, k, axis=1)[:, :k]
    return choices(experts, labels, types, np.arange(n_tokens) // 500)


def seconds(work: Callable[[], object]) -> float:
    """CPU time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def naive(made: Choices, null: str, n: int) -> None:
    """The nulls as one would write them first: permute, spread over the slots, count, n times."""
    rng, slots = np.random.default_rng(0), np.repeat(np.arange(made.n_tokens), np.diff(made.start))
    order = np.argsort(made.type, kind="stable")
    for _ in range(n):
        if null == "label":
            mutual_info_score(made.expert, rng.permutation(made.label)[slots])
        elif null == "within":
            dealt = np.empty_like(made.label)
            dealt[order] = made.label[np.lexsort([rng.random(made.n_tokens), made.type])]
            mutual_info_score(made.type[slots].astype(np.int64) * made.n_labels + dealt[slots], made.expert)
        else:
            seen = nulls.by_type(made)
            swapped = seen.routed / seen.text.occurrences[:, None]
            for b in np.unique(seen.bins):
                inside = np.flatnonzero(seen.bins == b)
                swapped[inside] = swapped[rng.permutation(inside)]
            mutual_info_score(None, None, contingency=swapped.T @ seen.text.counts)


def main() -> None:
    """Print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--permutations", type=int, default=100)
    parser.add_argument("--naive", type=int, default=2)
    parser.add_argument("--json", type=Path, default=RESULTS)
    asked = parser.parse_args()
    _once(routed(2_000), 2)  # compiles
    made = routed(asked.tokens)
    ours = _once(made, asked.permutations)
    rows = []
    for null, cost in ours.items():
        theirs = seconds(lambda null=null: naive(made, null, asked.naive)) / asked.naive * asked.permutations
        rows.append({"null": null, "seconds": cost, "naive": theirs, "ratio": theirs / cost})
        print(f"{null:8} {cost:6.2f} s   naive {theirs:8.1f} s   {theirs / cost:6.1f} times")
    total = sum(ours.values())
    print(f"all      {total:6.2f} s   goal {GOAL:g} s for 100 permutations of {made.n_slots:,} slots")
    from data.runs import provenance

    settings = {"benchmark": "nulls", "tokens": asked.tokens, "permutations": asked.permutations, "naive": asked.naive}
    record = {"rows": rows, "seconds": total, "goal": GOAL, "provenance": provenance(seed=0, settings=settings)}
    asked.json.parent.mkdir(exist_ok=True)
    asked.json.write_text(json.dumps(record, indent=1) + "\n")


def _once(made: Choices, n: int) -> dict[str, float]:
    """CPU seconds of each null; the type null without the counts by type, which all share."""
    rng, held = np.random.default_rng(0), []
    counted = seconds(lambda: held.append(nulls.by_type(made)))
    within: list[nulls.Within] = []
    cost = {"within": counted + seconds(lambda: within.append(nulls.within_types(made, held[0], n, rng)))}
    cost["label"] = seconds(lambda: nulls.label_draws(made, n, rng))
    cost["type"] = seconds(lambda: nulls.type_draws(held[0], within[0].deviations, rng))
    return cost


if __name__ == "__main__":
    main()
