"""How long it takes until something answers: CPU seconds of a fresh process.

    python -m tests.benchmarks.startup [--rounds 5]

`sparsescope --help`, the imports of a notebook, and the first run of two pages on runs that ship; the median of rounds.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "startup.json"
ROOT = Path(__file__).parents[2]
PAGE = (
    "from streamlit.testing.v1 import AppTest; "
    "assert not AppTest.from_file('app/pages/{page}.py', default_timeout=300).run().exception"
)
STARTS = {
    "python, doing nothing": ("pass", None),
    "sparsescope --help": ("import sys; sys.argv = ['sparsescope', '--help']; from app.cli import main; main()", 0.5),
    "sparsescope probe sparsity --help": (
        "import sys; sys.argv = ['sparsescope', 'probe', 'sparsity', '--help']; from app.cli import main; main()",
        0.5,
    ),
    "import data, toymodels": ("import data, toymodels", None),
    "import probes": ("import probes", None),
    "page Overview": (PAGE.format(page="overview"), 5.0),
    "page Experts": (PAGE.format(page="experts"), 5.0),
}
"""What is started -> (code, goal in seconds)."""


def main() -> None:
    """Print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS)
    asked = parser.parse_args()
    rows = []
    for what, (code, goal) in STARTS.items():
        seconds(code)  # compiled files are written, the disk is read
        took = [seconds(code) for _ in range(asked.rounds)]
        rows.append({"what": what, "seconds": statistics.median(took), "most": max(took), "goal": goal})
        print(f"{what:35} {rows[-1]['seconds']:.2f} s CPU" + (f"  goal {goal}" if goal else ""), flush=True)
    from data.runs import provenance

    record = {"rows": rows, "provenance": provenance(seed=0, settings={"benchmark": "startup", "rounds": asked.rounds})}
    asked.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def seconds(code: str) -> float:
    """CPU seconds of a new process that runs this."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
