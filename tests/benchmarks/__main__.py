"""All benchmarks, one table: `python -m tests.benchmarks [NAME ...]`.

Each module of this folder measures ratios within one run by CPU time, prints them and writes results/NAME.json.
"""

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> None:
    known = sorted(p.stem for p in HERE.glob("*.py") if not p.stem.startswith("_"))
    for name in names or known:
        if name not in known:
            raise SystemExit(f"no benchmark '{name}'; there are {', '.join(known)}")
        print(f"\n== {name}")
        sys.argv = [f"tests/benchmarks/{name}.py"]  # a module reads its own options when it is run alone
        importlib.import_module(f"tests.benchmarks.{name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
