"""Coherence at scale: cost against the process's own matrix product, memory beyond the input, and a PyPI peer.

    python -m tests.benchmarks.coherence [--peer PYTHON] [--features N] [--json PATH]
    python -m tests.benchmarks.coherence --large 131072 --json tests/benchmarks/results/coherence_large.json

CPU time, one thread, float32, random directions.  `share` is the CPU time of `coherence.measure` (mu and pair, Babel to
k = 32, neighbours, clusters, all bounds) over that of 2 F^2 d FLOP at the process's own peak, the best rate of a large
float32 product just before and after; the median over rounds, and their least and greatest.  `memory` is the growth of
the process's peak resident size beyond the input.  The peer is `overcomplete` (`pip install overcomplete`), run by the
interpreter given with `--peer`; it computes mu alone.  `--large N` measures N directions in 64 dimensions from a
memory-mapped file instead, a near pair planted among them.
"""

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results" / "coherence.json"
D_MODEL, FEATURES, PEER_FEATURES = 768, 32_768, 16_384


def main() -> None:
    """Print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=sys.executable, help="a python that has overcomplete")
    parser.add_argument("--features", type=int, default=FEATURES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--as", dest="role", choices=["peer", "ours", "memory", "large"], help=argparse.SUPPRESS)
    parser.add_argument("--large", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.role:
        roles = {"peer": _peer, "ours": lambda n: _ours(n, arguments.rounds), "memory": _memory, "large": _large}
        print(json.dumps(roles[arguments.role](arguments.features)))
        return
    if arguments.large:
        large = {"F": arguments.large, "d": 64} | _ask(sys.executable, "large", arguments.large, 1)
        _write([large], arguments.json)
        return
    rows = [
        {"F": arguments.features, "d": D_MODEL} | _ask(sys.executable, "ours", arguments.features, arguments.rounds)
    ]
    rows[0] |= _ask(sys.executable, "memory", arguments.features, 1)
    small = min(PEER_FEATURES, arguments.features)
    row: dict[str, object] = {"F": small, "d": D_MODEL}
    try:
        ours, theirs = [], []
        for _ in range(3):  # by turns, so that a busy hour is busy for both
            ours.append(_ask(sys.executable, "ours", small, 1)["seconds"])
            theirs.append(_ask(arguments.peer, "peer", small, 1)["seconds"])
        a, b = statistics.median(ours), statistics.median(theirs)
        row |= {"seconds": a, "peer": "overcomplete", "peer_seconds": b, "times_faster": b / a}
    except (subprocess.CalledProcessError, OSError) as error:
        row["peer"] = f"not measured ({type(error).__name__}); give --peer PYTHON with overcomplete"
    rows.append(row)
    _write(rows, arguments.json)


def _write(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    for line in rows:
        print("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()))
    from data.runs import provenance

    record = {"rows": rows, "provenance": provenance(seed=0, settings={"benchmark": "coherence"})}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _ask(python: str, role: str, features: int, rounds: int) -> dict[str, float]:
    """Measure in a fresh process, so that one measurement's memory and caches do not serve another."""
    command = [python, __file__, "--as", role, "--features", str(features), "--rounds", str(rounds)]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=_environment(root))
    return json.loads(done.stdout.splitlines()[-1])


def _environment(root: str) -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}


def _dictionary(features: int) -> torch.Tensor:
    return torch.randn(D_MODEL, features, generator=torch.Generator().manual_seed(0))


def _ours(features: int, rounds: int) -> dict[str, float]:
    from probes import coherence

    V = _dictionary(features)
    coherence.measure(V[:, :4096], dtype=torch.float32)
    rates, seconds = [_rate()], []
    for _ in range(rounds):
        start = time.process_time()
        coherence.measure(V, dtype=torch.float32)
        seconds.append(time.process_time() - start)
        rates.append(_rate())
    shares = [
        s * max(before, after) / (2 * features**2 * D_MODEL)
        for s, before, after in zip(seconds, rates[:-1], rates[1:], strict=True)
    ]
    return {
        "seconds": statistics.median(seconds),
        "share": statistics.median(shares),
        "share_least": min(shares),
        "share_worst": max(shares),
        "rounds": rounds,
        "gflops": max(rates) / 1e9,
    }


def _memory(features: int) -> dict[str, float]:
    from probes import coherence

    V = _dictionary(features)
    coherence.measure(V[:, :2048], dtype=torch.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    coherence.measure(V, dtype=torch.float32)
    return {"memory_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def _large(features: int) -> dict[str, float]:
    import tempfile

    import numpy as np

    from probes import coherence

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(features, 64))
        for first in range(0, features, 8192):
            rows[first : first + 8192] = rng.standard_normal((min(8192, features - first), 64), dtype=np.float32)
        rows[features - 5] = rows[17] + 0.05 * rng.standard_normal(64)
        rows.flush()
        del rows
        coherence.measure(np.load(path, mmap_mode="r").T[:, :4096], dtype=torch.float32)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        report = coherence.measure(np.load(path, mmap_mode="r").T)
        seconds = time.process_time() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert report.pair == (17, features - 5)
    return {"seconds": seconds, "memory_mb": grown, "mu": report.mu, "file_mb": features * 256 / 2**20}


def _rate() -> float:
    """FLOP a CPU second of a large product, the best of five."""
    a, b = torch.randn(2048, D_MODEL), torch.randn(D_MODEL, 2048)
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        a @ b
        best = max(best, 2 * 2048 * 2048 * D_MODEL / (time.process_time() - start))
    return best


def _peer(features: int) -> dict[str, float]:
    """mu by `overcomplete.metrics`, loaded as a file: the package's top imports vision models that are not needed."""
    found = importlib.util.find_spec("overcomplete")
    if found is None or found.origin is None:
        raise SystemExit("overcomplete is not installed here")
    spec = importlib.util.spec_from_file_location("metrics", Path(found.origin).parent / "metrics.py")
    assert spec is not None and spec.loader is not None
    metrics = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(metrics)
    rows = _dictionary(features).t().contiguous()  # features as rows is what it takes
    metrics.dictionary_collinearity(rows[:2048])
    start = time.process_time()
    mu, _ = metrics.dictionary_collinearity(rows)
    return {"seconds": time.process_time() - start, "mu": mu}


if __name__ == "__main__":
    main()
