"""CPU seconds to a level of unexplained variance, closed form against Adam: `python -m tests.benchmarks.secret`.

The mixture of 64 affine cells is fitted in closed form; the mixture of 1,024 single neurons by Adam, for twice as many
steps each time until it misses no more than the closed form or the budget is spent.  Both use 64 active neurons on the
middle layer of SmolLM2-135M; capturing inputs is not counted for either.
"""

import json
import tempfile
from pathlib import Path

import torch

from data.corpus import open_corpus
from data.runs import provenance
from probes import open_model, secret
from probes.secret.fitting import Layer, fit_layer
from probes.stream import StreamConfig

RESULTS = Path(__file__).parent / "results" / "secret.json"
STEPS = (125, 250, 500, 1_000, 2_000)
LAYER = 15


def main() -> None:
    """Print and store FVU and CPU seconds of both, and the ratio of the seconds."""
    torch.set_num_threads(1)
    model = open_model("smollm2-135m", dtype="bfloat16")
    with tempfile.TemporaryDirectory() as place:
        run = secret.capture(model, open_corpus(), [LAYER], StreamConfig(n_tokens=20_000), root=Path(place))
        subject = Layer(model, LAYER, secret.read_inputs(run, LAYER))
        closed = fit_layer(subject, secret.SecretConfig(layer=LAYER))
        rows = [{"student": "closed form", "steps": 0, "fvu": closed.fvu, "cpu_seconds": closed.cpu_seconds}]
        for steps in STEPS:
            config = secret.SecretConfig(layer=LAYER, method="paper", n_experts=1_024, steps=steps, rates=(3e-3,))
            found = fit_layer(subject, config)
            rows.append({"student": "Adam", "steps": steps, "fvu": found.fvu, "cpu_seconds": found.cpu_seconds})
            print("  ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
            if found.fvu <= closed.fvu:
                break
    last = rows[-1]
    reached = last["fvu"] <= closed.fvu
    ratio = last["cpu_seconds"] / closed.cpu_seconds
    print(f"closed form: FVU {closed.fvu:.3f} in {closed.cpu_seconds:.1f} s; Adam {ratio:.1f} times as long"
          f"{'' if reached else ' and not there'}")  # fmt: skip
    record = {"rows": rows, "reached": reached, "ratio": ratio}
    RESULTS.parent.mkdir(exist_ok=True)
    record["provenance"] = provenance(seed=0, settings={"benchmark": "secret", "layer": LAYER})
    RESULTS.write_text(json.dumps(record, indent=1, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
