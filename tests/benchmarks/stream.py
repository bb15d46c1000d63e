"""What measuring costs: CPU time of a pass with accumulators over the plain forward pass without vocabulary projection.

    python -m tests.benchmarks.stream [--tokens 2000] [--rounds 5]

One thread.  In every round each variant reads the same tokens in turn, and its time is divided by the mean of the plain
passes before and after it; reported is the median over rounds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from data.corpus import open_corpus
from probes import open_model, stream
from probes.firing import InputMoments
from probes.sparsity import Held
from probes.stream import StreamConfig

RESULTS = Path(__file__).parent / "results" / "stream.json"
FIRST_CUT = ("firing", "concentration", "sinks", "inputs")
GOALS = {"first cut": 1.2, "all": 1.3}


def main() -> None:
    """Print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--tokens", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for dtype in asked.dtype for row in ratios(asked.model, dtype, asked.tokens, asked.rounds)]
    for row in rows:
        goal = f"  goal {row['goal']}" if row["goal"] else ""
        print(f"{row['dtype']:9} {row['part']:14} {row['ratio']:.3f}  ({row['least']:.3f}-{row['most']:.3f}){goal}")
    from data.runs import provenance

    settings = {"benchmark": "stream", "model": asked.model, "tokens": asked.tokens, "rounds": asked.rounds}
    record = {"rows": rows, "provenance": provenance(seed=0, settings=settings)}
    asked.json.parent.mkdir(exist_ok=True)
    asked.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def ratios(name: str, dtype: str, n_tokens: int, rounds: int) -> list[dict[str, Any]]:
    """One row for every accumulator alone, the first cut and all together."""
    model, corpus, config = open_model(name, dtype=dtype), open_corpus(), StreamConfig(n_tokens=n_tokens)

    def parts() -> dict[str, Any]:
        return {"nothing": None, **Held(model).parts(), "inputs": InputMoments(model)}

    def plain() -> None:
        for shard in stream._shards(model, corpus, config, None):
            for batch in stream.batches(shard, model, config):
                with torch.no_grad():
                    model.hf.base_model(input_ids=batch.ids, use_cache=False)

    def measuring(chosen: tuple[str, ...]) -> Callable[[], None]:
        held = {k: v for k, v in parts().items() if k in chosen and v is not None}
        return lambda: stream.run(model, corpus, held, config) and None

    variants = {part: measuring((part,)) for part in parts()}
    variants |= {"first cut": measuring(FIRST_CUT), "all": measuring(tuple(parts()))}
    seconds(plain)
    for run in variants.values():
        run()  # compiles, allocates
    found: dict[str, list[float]] = {variant: [] for variant in variants}
    for _ in range(rounds):
        before = seconds(plain)
        for variant, run in variants.items():
            took, after = seconds(run), seconds(plain)
            found[variant].append(2 * took / (before + after))
            before = after
    return [
        {"dtype": dtype, "part": part, "ratio": statistics.median(times), "least": min(times), "most": max(times)}
        | {"goal": GOALS.get(part)}
        for part, times in found.items()
    ]


def seconds(run: Callable[[], None]) -> float:
    """CPU seconds of this process."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
