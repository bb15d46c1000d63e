"""Instance-steps a second of toy training: torch and compiled engines against `tms-kit` and `occhio` from PyPI.

    python -m tests.benchmarks.toys [--peers PYTHON] [--rounds N] [--json PATH]

CPU time, one thread, batch 1024, sixteen instances a stack, feature probability .05, everything a step needs (draws,
gradients, AdamW) and nothing else.  The rounds of all four alternate, and each is given its best.  The peers are
looked for in this interpreter, else in the one given with `--peers` (`pip install tms-kit occhio`, extra `bench`).
`matmul_share` is 10 B n m FLOP a step over the rate of a large float32 matrix product on the same core.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results" / "toys.json"
SHAPES = ((2, 1), (5, 2), (20, 5), (80, 20))
GOALS = {(5, 2): (7, 50), (20, 5): (4, 15), (80, 20): (3, 4)}
"""Times the better peer that plain torch must reach, and that the compiled engine aims at."""
INSTANCES, BATCH, PROBABILITY = 16, 1024, 0.05
_SECONDS = 1.5


def main() -> None:
    """Print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=sys.executable, help="a python that has tms-kit and occhio")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--as-peer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.as_peer:
        print(json.dumps({f"{n},{m}": _measure_all(_peers(n, m)) for n, m in SHAPES}))
        return
    rates: dict[tuple[int, int], dict[str, float]] = {shape: {} for shape in SHAPES}
    for _ in range(arguments.rounds):
        others = _run_peers(arguments.peers)
        for n, m in SHAPES:
            found = others.get(f"{n},{m}", {}) | _measure_all(_ours(n, m)) | {"matmul": _matmul_flops()}
            for name, rate in found.items():
                rates[n, m][name] = max(rate, rates[n, m].get(name, 0))
    rows = [_row(shape, found) for shape, found in rates.items()]
    for row in rows:
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    from data.runs import provenance

    record = {"rows": rows, "provenance": provenance(seed=0, settings={"benchmark": "toys", "batch": BATCH})}
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _row(shape: tuple[int, int], found: dict[str, float]) -> dict[str, object]:
    row: dict[str, object] = {"n_features": shape[0], "d_hidden": shape[1]}
    row |= {f"{name}_rate": rate for name, rate in found.items() if name != "matmul"}
    flops = 10 * BATCH * shape[0] * shape[1]
    peers = [rate for name, rate in found.items() if name in ("tms_kit", "occhio")]
    for place, name in enumerate(("torch", "numba")):
        row[f"{name}_matmul_share"] = found[name] * flops / found["matmul"]
        if peers:
            row[f"{name}_times_better_peer"] = found[name] / max(peers)
            row[f"{name}_goal"] = GOALS.get(shape, (0, 0))[place]
    return row


def _measure_all(work: dict[str, Callable[[int], None]]) -> dict[str, float]:
    return {name: _rate(run) for name, run in work.items()}


def _rate(run: Callable[[int], None]) -> float:
    """Instance-steps a CPU second, over about a second and a half after a warm-up that sizes it."""
    steps, seconds = 16, 0.0
    run(steps)
    while seconds < 0.2:
        steps *= 2
        start = time.process_time()
        run(steps)
        seconds = time.process_time() - start
    steps = max(steps, int(steps * _SECONDS / seconds))
    start = time.process_time()
    run(steps)
    return INSTANCES * steps / (time.process_time() - start)


def _ours(n: int, m: int) -> dict[str, Callable[[int], None]]:
    import numpy as np

    from toymodels import ToyConfig
    from toymodels.compiled import NumbaEngine
    from toymodels.stack import Stack, TorchEngine

    config = ToyConfig(n_features=n, d_hidden=m, feature_probability=PROBABILITY, steps=10**9)
    everyone = np.arange(INSTANCES)

    def stack() -> Stack:
        return Stack([config] * INSTANCES, range(INSTANCES))

    engines = {"torch": TorchEngine(stack()), "numba": NumbaEngine(stack(), threads=1)}
    return {name: lambda steps, e=engine: e.advance(everyone, 0, steps) for name, engine in engines.items()}


def _run_peers(python: str) -> dict[str, dict[str, float]]:
    command = [python, str(Path(__file__).resolve()), "--as-peer"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    with contextlib.suppress(ValueError, IndexError):
        return json.loads(done.stdout.splitlines()[-1])
    print("the peers cannot be measured: " + (done.stderr.splitlines() or ["no output"])[-1], file=sys.stderr)
    return {}


def _peers(n: int, m: int) -> dict[str, Callable[[int], None]]:
    found = {}
    if importlib.util.find_spec("tms_kit"):
        found["tms_kit"] = _tms_kit(n, m)
    if importlib.util.find_spec("occhio"):
        found["occhio"] = _occhio(n, m)
    return found


def _tms_kit(n: int, m: int) -> Callable[[int], None]:
    from tms_kit.data import IIDFeatureGenerator
    from tms_kit.loss import ImportanceWeightedLoss
    from tms_kit.model import Model
    from tms_kit.optimize import optimize
    from tms_kit.tms import TMS

    class Toy(TMS):
        def __init__(self) -> None:
            self.model = Model(n, INSTANCES, m, device="cpu")
            self.data_gen = IIDFeatureGenerator(n, INSTANCES, torch.full((INSTANCES, n), PROBABILITY))
            self.loss_calc = ImportanceWeightedLoss(n, torch.ones(INSTANCES, n))

    toy = Toy()
    return lambda steps: optimize(toy, steps=steps, batch_size=BATCH, disable_tqdm=True, log_freq=10**9)


def _occhio(n: int, m: int) -> Callable[[int], None]:
    from occhio.autoencoder import TiedLinearRelu
    from occhio.distributions.sparse import SparseUniform
    from occhio.model_grid import Axis, ModelGrid
    from occhio.toy_model import ToyModel

    def create(params: dict) -> ToyModel:
        law = SparseUniform(n, p_active=float(params["Density"]), generator=torch.Generator().manual_seed(0))
        return ToyModel(law, TiedLinearRelu(n, m))

    densities = [PROBABILITY * (1 + 0.01 * i) for i in range(INSTANCES)]
    grid = ModelGrid(create, axes=[Axis("Density", densities)])

    def run(steps: int) -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            grid.fit(n_epochs=steps, batch_size=BATCH)

    return run


def _matmul_flops() -> float:
    a, b = torch.randn(768, 768), torch.randn(768, 768)
    a @ b
    start = time.process_time()
    for _ in range(40):
        a @ b
    return 40 * 2 * 768**3 / (time.process_time() - start)


if __name__ == "__main__":
    main()
