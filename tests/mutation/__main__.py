"""Are the formulas tested?  `python -m tests.mutation` changes them one sign, index or denominator at a time.

For each module of `TARGETS` a seeded sample of mutants is put into a copy of the checkout, and the tests that guard
the module must fail there.  What survives is listed, and gets a test or a reason in `equivalent.json`.  The record is
`results.json`; naming modules (`python -m tests.mutation probes/bounds.py`) does these again and keeps the others.
Whether the record still is the sample of the sources as they stand is a test of every run (`test_record.py`).
"""

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.mutation.mutants import Mutant, mutants, mutated, sample
from tests.mutation.targets import TARGETS

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
RECORD = HERE / "results.json"
SECONDS = 240
"""Processor time after which a test run is ended: the mutant does not stop, and counts as killed."""


def main() -> None:
    """Read what is asked, try each mutant, write and print the record."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", help="modules of TARGETS; default: all")
    parser.add_argument("--each", type=int, default=4, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--survivors", action="store_true", help="only the recorded survivors again")
    asked = parser.parse_args()
    held = json.loads(RECORD.read_text())["mutants"] if RECORD.exists() else {}
    _load_libraries()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        shutil.copytree(ROOT, copy, dirs_exist_ok=True, ignore=_left_out)
        for module in asked.modules or TARGETS:
            source = (ROOT / module).read_text()
            before = held.get(module, {})
            chosen = sample(source, asked.each, f"{asked.seed}:{module}")
            if asked.survivors:
                chosen = [m for m in mutants(source) if before.get(m.name, "") == "survived"]
                if not chosen:
                    continue
            found = {m.name: _try(copy, module, source, m) for m in chosen}
            # Where nothing survived, the tests might fail for a reason of their own.
            if "survived" not in found.values() and (code := _run(copy, TARGETS[module])):
                print(f"the tests of {module} fail as it stands (exit code {code}); its mutants are not counted")
                continue
            held[module] = before | found if asked.survivors else found
            _write(held, asked.seed)


def _try(copy: Path, module: str, source: str, mutant: Mutant) -> str:
    path = copy / module
    path.write_text(mutated(source, mutant))
    began = time.monotonic()
    try:
        code = _run(copy, TARGETS[module])
    finally:
        path.write_text(source)
    verdict = "survived" if code == 0 else "killed"
    print(f"{verdict:9} {time.monotonic() - began:5.0f} s  {module}:{mutant.name}", flush=True)
    return verdict


def _run(copy: Path, tests: tuple[str, ...]) -> int:
    """Exit code of pytest in a child of this process, which has the heavy libraries loaded already."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    spent = int(resource.getrusage(resource.RUSAGE_SELF).ru_utime)
    resource.setrlimit(resource.RLIMIT_CPU, (spent + SECONDS, spent + SECONDS))
    os.chdir(copy)
    sys.path[:] = [str(copy), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
    for name in [n for n in sys.modules if n.split(".")[0] in ("app", "data", "probes", "tests", "toymodels")]:
        del sys.modules[name]
    sys.dont_write_bytecode = True
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no", *tests])
    import data

    if not Path(data.__file__).is_relative_to(copy.resolve()):
        code = 99  # the tests ran on the wrong files
    os._exit(int(code))


def _load_libraries() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import hypothesis
    import numba  # noqa: F401
    import pandas  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401

    # A failure is wanted, not its smallest example.
    kept = [p for p in hypothesis.Phase if p not in (hypothesis.Phase.shrink, hypothesis.Phase.explain)]
    hypothesis.settings.register_profile("mutants", phases=kept, derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")


def _left_out(folder: str, names: list[str]) -> set[str]:
    return {n for n in names if n in (".git", ".venv", "runs", "gallery", "__pycache__") or n.endswith("_cache")}


def _write(held: dict[str, dict[str, str]], seed: int) -> None:
    reasons = json.loads((HERE / "equivalent.json").read_text())
    verdicts = [
        "equivalent" if v == "survived" and n in reasons.get(m, {}) else v
        for m, found in held.items()
        for n, v in found.items()
    ]
    counts = {v: verdicts.count(v) for v in ("killed", "survived", "equivalent")}
    alive = counts["killed"] + counts["survived"]
    score = round(counts["killed"] / alive, 4) if alive else None
    record = {"seed": seed, "n": len(verdicts), **counts, "score": score, "mutants": held}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{counts['killed']} of {alive} killed, {counts['equivalent']} equivalent", flush=True)


if __name__ == "__main__":
    main()
