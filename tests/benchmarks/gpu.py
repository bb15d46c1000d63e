"""Measuring on a GPU, against the plain pass and the matrix product of the same run: `python -m tests.benchmarks.gpu`.

Without a CUDA device it says so.  Wall-clock time between two synchronisations, one process, TF32 off; reported is the
median over rounds.

    stream     tokens a second of the plain pass (blocks alone) over batches in hand, the ratio of the pass with all
               measures to it, its share of what the bfloat16 product would allow, and the rate with the cutting of
               whole documents into tokens; for the mixture that ships and for the shapes of SmolLM2-135M and
               OLMoE-1B-7B with random weights, on whose values no rate depends (a random router uses all experts about
               alike)
    coherence  seconds over those of F^2 d operations, half of V^T V's by symmetry, at the rate of a large product in
               float32; memory is the most that was held beyond the dictionary
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data.corpus import open_corpus
from data.runs import provenance
from probes import LanguageModel, coherence, open_model, stream
from probes.firing import InputMoments
from probes.routing_counts import RoutingCounts
from probes.sparsity import Held
from probes.stream import StreamConfig

RESULTS = Path(__file__).parent / "results" / "gpu.json"
SIDE = 8_192
"""Rows and columns of the matrices whose product is the limit."""
BATCHES = (2_048, 16_384)
"""Tokens that go through the model together: the default, and enough to keep a large GPU busy."""
SIZES = (131_072, 1_000_000)
D_MODEL = 768
ROUTED = ("expert_index", "expert_weight", "router_logits")
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1_536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49_152, "tie_word_embeddings": True,
    },
    "olmoe-1b-7b": {
        "model_type": "olmoe", "hidden_size": 2_048, "intermediate_size": 1_024, "num_hidden_layers": 16,
        "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 50_304, "num_experts": 64,
        "num_experts_per_tok": 8, "max_position_embeddings": 4_096,
    },
    "tiny": {
        "model_type": "olmoe", "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 50_304,
        "num_attention_heads": 4, "num_key_value_heads": 4, "num_experts": 8, "num_experts_per_tok": 2,
    },
}  # fmt: skip
"""Settings of the shapes; `tiny` is for trying the benchmark out."""
ARCHITECTURES = {"llama": "LlamaForCausalLM", "olmoe": "OlmoeForCausalLM"}
MODELS = ("tinymoe", "smollm2-135m", "olmoe-1b-7b")


def main() -> None:
    """Print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--features", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", action="store_true", help="every accumulator alone as well")
    parser.add_argument("--json", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device here, so nothing was measured")
        return
    limits = {dtype: product_rate(asked.device, kind) for dtype, kind in KINDS.items()}
    settings = {"benchmark": "gpu", "rounds": asked.rounds, "tokens": asked.tokens}
    device = torch.cuda.get_device_name() if asked.device == "cuda" else asked.device
    record: dict[str, Any] = {"device": device, "limits": limits, "rows": []}
    record["provenance"] = provenance(seed=0, settings=settings)
    for row in rows(asked, limits):
        print("  ".join(f"{k} {v:,.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        record["rows"].append(row)
        asked.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def rows(asked: argparse.Namespace, limits: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Whatever is asked for, as it is measured."""
    for name in asked.models:
        yield from streamed(name, asked, limits["bfloat16"])
    for n_features in asked.features:
        yield scanned(n_features, asked.device, limits["float32"], asked.rounds)


KINDS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def product_rate(device: str, dtype: torch.dtype) -> float:
    """FLOP a second of a large product, the median of ten after three."""
    side = SIDE if device == "cuda" else 512
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    found = [2 * side**3 / seconds(lambda: a @ b, device) for _ in range(13)]
    return statistics.median(found[3:])


def streamed(name: str, asked: argparse.Namespace, limit: float) -> Iterator[dict[str, Any]]:
    """One row a batch size: rates and ratios of one model."""
    device = asked.device
    held_before = _held(device)
    model = opened(name, device)
    in_model = _held(device) - held_before
    for batch_tokens in asked.batches:
        shard = max(8_192, 2 * batch_tokens)
        config = StreamConfig(
            n_tokens=asked.tokens, batch_tokens=batch_tokens, shard_tokens=shard, tokens_per_document=10**6
        )
        corpus = open_corpus()
        begun = time.perf_counter()
        batches = [b for s in stream._shards(model, corpus, config, None) for b in stream.batches(s, model, config)]
        cutting = time.perf_counter() - begun
        n_tokens = sum(len(batch) for batch in batches)
        row = {"kind": "stream", "model": name, "batch_tokens": batch_tokens, "tokens": n_tokens, "model_mb": in_model}
        variants: dict[str, Callable[[], None]] = {}
        parts = of_all(model)
        variants["all"] = _shown(model, batches, parts, config)
        if model.n_experts:
            variants["capture"] = _captured(model, batches)
        if asked.parts:
            variants["nothing"] = _shown(model, batches, {}, config)
            variants |= {part: _shown(model, batches, {part: of_all(model)[part]}, config) for part in parts}
        ratios, plain = against(partial(_read, model, batches), variants, device, asked.rounds)
        row |= {"plain_tokens_s": n_tokens / plain, "ratio": ratios.pop("all")}
        row |= {"of_product": n_tokens / plain * flop(model) / limit, "cutting_tokens_s": n_tokens / cutting}
        if "capture" in ratios:
            row["capture_ratio"] = ratios.pop("capture")
        if ratios:
            row["parts"] = ratios
        whole = seconds(partial(stream.run, model, corpus, of_all(model), config), device)
        row |= {"run_tokens_s": n_tokens / whole, "peak_mb": _peak(device, variants["all"])}
        yield row
    del model, variants, parts
    if device == "cuda":
        torch.cuda.empty_cache()


def opened(name: str, device: str) -> LanguageModel:
    """The model that ships, or one of the true shape with random weights and the tokenizer of the one that ships."""
    if name == "tinymoe":
        return open_model(name, dtype="bfloat16", device=device)
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**SHAPES[name])
    config.architectures = [ARCHITECTURES[config.model_type]]  # by which a dense model is taken apart
    tokenizer = open_model("tinymoe").tokenizer
    with torch.device(device):  # made where it stays: on the processor random numbers alone would take minutes
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        return open_model(made, tokenizer=tokenizer, dtype="bfloat16", device=device)


def of_all(model: LanguageModel) -> dict[str, Any]:
    """Everything measured: of a mixture where its tokens go, of a dense model its neurons."""
    if model.n_experts:
        return {"counts": RoutingCounts(model)}
    return {**Held(model).parts(), "inputs": InputMoments(model)}


def flop(model: LanguageModel) -> float:
    """FLOP a token: 2 a parameter of the blocks that the token uses (attention over the window is left out)."""
    total = 0
    for name, weight in model.plain_weights().items():
        if weight.dim() > 1 and "embed" not in name and "lm_head" not in name:
            total += weight.numel() * (model.k if weight.dim() == 3 else 1) // (len(weight) if weight.dim() == 3 else 1)
    return 2.0 * total


def scanned(n_features: int, device: str, limit: float, rounds: int) -> dict[str, Any]:
    """One row: coherence of random directions on the device."""
    d = D_MODEL
    V = torch.randn(d, n_features, generator=torch.Generator(device).manual_seed(0), device=device)
    coherence.measure(V[:, :4_096], dtype=torch.float32)
    found: list[float] = []

    def measured() -> None:
        for _ in range(rounds if n_features < 500_000 else 1):
            found.append(seconds(lambda: coherence.measure(V, dtype=torch.float32), device))

    peak, least = _peak(device, measured), n_features**2 * d / limit
    took = statistics.median(found)
    row = {"kind": "coherence", "F": n_features, "d": d, "seconds": took, "limit_s": least, "ratio": took / least}
    return row | {"dictionary_mb": V.numel() * 4 / 2**20, "peak_mb": peak}


def against(
    plain: Callable[[], None], variants: dict[str, Callable[[], None]], device: str, rounds: int
) -> tuple[dict[str, float], float]:
    """Median ratio of each variant to the plain runs before and after it, and the median seconds of these."""
    plain()
    for run in variants.values():
        run()  # compiles, allocates
    found: dict[str, list[float]] = {name: [] for name in variants}
    alone = []
    for _ in range(rounds):
        before = seconds(plain, device)
        alone.append(before)
        for name, run in variants.items():
            took, after = seconds(run, device), seconds(plain, device)
            found[name].append(2 * took / (before + after))
            alone.append(after)
            before = after
    return {name: statistics.median(ratios) for name, ratios in found.items()}, statistics.median(alone)


def seconds(run: Callable[[], object], device: str) -> float:
    """Wall-clock seconds until the device is done."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    begun = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - begun


def _read(model: LanguageModel, batches: list[Any]) -> None:
    with torch.no_grad():
        for batch in batches:
            model.body(input_ids=batch.ids.to(model.device), use_cache=False)


def _shown(model: LanguageModel, batches: list[Any], parts: dict[str, Any], config: StreamConfig) -> Callable[[], None]:
    def run() -> None:
        stream.show(model, batches, parts, config)
        for part in parts.values():
            part.state()

    return run


def _captured(model: LanguageModel, batches: list[Any]) -> Callable[[], None]:
    def run() -> None:
        for batch in batches:
            model.observe(batch.ids, ROUTED, lambda *_: None)

    return run


def _held(device: str) -> float:
    return torch.cuda.memory_allocated() / 2**20 if device == "cuda" else 0.0


def _peak(device: str, run: Callable[[], object]) -> float:
    """MB that the run held at most beyond what was there."""
    if device != "cuda":
        run()
        return 0.0
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


if __name__ == "__main__":
    main()
