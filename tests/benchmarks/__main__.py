"""All benchmarks, one table: `python -m tests.benchmarks [NAME ...]`.

Each module of this folder measures ratios within one run by CPU time, prints them and writes results/NAME.json.
`--markdown` prints the kept results as a table, and `--readme` puts it into README.
"""

import importlib
import sys
from pathlib import Path

from tests.benchmarks import _table

HERE = Path(__file__).parent


def main(names: list[str]) -> None:
    if "--markdown" in names:
        print(_table.markdown())
        return
    if "--readme" in names:
        text = _table.README.read_text(encoding="utf-8")
        _table.README.write_text(_table.replaced(text, _table.markdown()), encoding="utf-8")
        return
    known = sorted(p.stem for p in HERE.glob("*.py") if not p.stem.startswith("_"))
    for name in names or known:
        if name not in known:
            raise SystemExit(f"no benchmark '{name}'; there are {', '.join(known)}")
        print(f"\n== {name}")
        sys.argv = [f"tests/benchmarks/{name}.py"]  # a module reads its own options when it is run alone
        importlib.import_module(f"tests.benchmarks.{name}").main()
    print(f"\n{_table.markdown()}")


if __name__ == "__main__":
    main(sys.argv[1:])
