"""CPU seconds and agreement of the whole n = 2, m = 1 phase diagram: `python -m tests.benchmarks.phase`."""

import json
import time
from pathlib import Path

import torch

from data.runs import provenance
from toymodels import phase

RESULTS = Path(__file__).parent / "results" / "phase.json"


def main() -> None:
    """Print and store the time and the agreement of the default diagram, and of a small one of three features."""
    torch.set_num_threads(1)
    rows = []
    for settings in ({"resolution": 32, "n_features": 2}, {"resolution": 16, "n_features": 3}):
        start = time.process_time()
        table = phase.diagram(**settings)
        seconds = time.process_time() - start
        share = phase.agreement(table).iloc[0].to_dict()
        rows.append({**settings, "cpu_seconds": round(seconds, 2), **{k: float(v) for k, v in share.items()}})
        print("  ".join(f"{k} {v:.4g}" for k, v in rows[-1].items()), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    record = {"rows": rows, "provenance": provenance(seed=0, settings={"benchmark": "phase"})}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
