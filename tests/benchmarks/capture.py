"""What seeing the routing costs: a pass that captures index, weight and router logits against the plain pass.

    python -m tests.benchmarks.capture

CPU time, the two passes interleaved, the median of their ratios.
"""

import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from data.runs import provenance
from probes import open_model
from tests.probes.families import tiny_moe

SITES = ("expert_index", "expert_weight", "router_logits")
ROUNDS = 15


def measure(kind: str, **shape: Any) -> dict[str, Any]:
    """Ratio of CPU times on one model."""
    model = open_model(tiny_moe(kind, **shape))
    ids = torch.randint(3, 300, (8, 256), generator=torch.Generator().manual_seed(0))
    kept: list[Any] = []

    def captured() -> None:
        kept.clear()
        model.observe(ids, SITES, lambda layer, sites: kept.append((layer, sites)))

    def plain() -> None:
        with torch.no_grad():
            model.body(input_ids=ids, use_cache=False)

    def seconds(work: Any) -> float:
        begin = time.process_time()
        work()
        return time.process_time() - begin

    seconds(plain), seconds(captured)
    pairs = [(seconds(plain), seconds(captured)) for _ in range(ROUNDS)]
    return {
        "family": kind,
        "tokens": ids.numel(),
        "plain_s": median(p for p, _ in pairs),
        "captured_s": median(c for _, c in pairs),
        "ratio": median(c / p for p, c in pairs),
    }


def main() -> None:
    """Print the table and keep it."""
    torch.set_num_threads(1)
    shape = {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 64, "moe_intermediate_size": 64}
    rows = [measure(kind, **shape) for kind in ("olmoe", "qwen2_moe", "deepseek_v3")]
    for row in rows:
        plain, captured = row["plain_s"], row["captured_s"]
        print(f"{row['family']:12s} plain {plain:.3f} s, captured {captured:.3f} s: {row['ratio']:.3f}x")
    target = Path(__file__).parent / "results" / "capture.json"
    record = {"goal": 1.15, "rows": rows, "provenance": provenance(seed=0, settings={"benchmark": "capture", **shape})}
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
