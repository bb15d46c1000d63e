"""Peak memory against the number of tokens: what a pass with everything measured takes beyond the open model.

    python -m tests.benchmarks.memory [--tokens 2000 20000]

Each length is read in a process of its own, whose peak resident size is set back when the model is open (Linux).
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from data.corpus import open_corpus
from probes import open_model, stream
from probes.firing import InputMoments
from probes.sparsity import Held
from probes.stream import StreamConfig

RESULTS = Path(__file__).parent / "results" / "memory.json"
GOAL = 1.05


def main() -> None:
    """Print and store peak MB at each length, and the ratio of the last to the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.one:
        print(json.dumps(peak(asked.model, asked.one)))
        return
    rows = []
    for n in asked.tokens:
        command = [sys.executable, "-m", "tests.benchmarks.memory", "--model", asked.model, "--one", str(n)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print("  ".join(f"{k} {v:,.1f}" for k, v in rows[-1].items()), flush=True)
    ratio = rows[-1]["peak_mb"] / rows[0]["peak_mb"]
    print(f"ratio {ratio:.3f}  goal {GOAL}")
    from data.runs import provenance

    record = {"rows": rows, "ratio": ratio, "goal": GOAL}
    record["provenance"] = provenance(seed=0, settings={"benchmark": "memory", "model": asked.model})
    asked.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def peak(name: str, n_tokens: int) -> dict[str, float]:
    """MB with the open model alone, the most that the pass took in all, and its CPU seconds."""
    model, corpus = open_model(name, dtype="bfloat16"), open_corpus()
    parts = {**Held(model).parts(), "inputs": InputMoments(model)}
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, begun = _status("VmRSS"), time.process_time()
    stream.run(model, corpus, parts, StreamConfig(n_tokens=n_tokens))
    seconds = time.process_time() - begun
    return {"tokens": n_tokens, "model_mb": before, "peak_mb": _status("VmHWM"), "cpu_seconds": seconds}


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


if __name__ == "__main__":
    main()
