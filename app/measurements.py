"""What verbs and jobs measure: settings that can be written to a run folder, and the work they stand for.

A verb makes the run and does the work here; a job is started with the run and does the same work elsewhere.
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeInt, PositiveInt

from data.config import Config
from data.progress import Progress, silent
from data.runs import Run, RunError

if TYPE_CHECKING:
    from probes.models import LanguageModel

Dtype = Literal["auto", "float32", "bfloat16"]


class FromHub(Config):
    """How a large model, or one that brings its own code, is opened."""

    device_map: str | None = None
    """How transformers spreads it over devices, e.g. `auto`."""
    trust_remote_code: bool = False
    """Run code that comes with it."""


class SparsityConfig(FromHub):
    """Settings of `probe.sparsity`."""

    model: str = "smollm2-135m"
    """Name, GGUF file, folder or hub name of the language model."""
    corpus: str = "sotu-modern"
    """Name or path of the text."""
    n_tokens: PositiveInt = 20_000
    """Tokens read."""
    controls: tuple[Literal["gaussian", "random_init", "shuffled"], ...] = ("gaussian", "random_init", "shuffled")
    """Controls measured beside the model."""
    control_tokens: PositiveInt | None = None
    """Tokens that the controls with other weights read; None: as many as the model."""
    word_classes: bool = False
    """Tag the text and measure firing by word class as well."""
    dtype: Dtype = "auto"
    """Number type of the forward pass; `auto` is bfloat16 on a processor that computes in it, else float32."""
    seed: NonNegativeInt = 0
    """Order of the documents, random weights, Gaussian draws."""
    engine: Literal["local", "ray"] = "local"
    """Where the text is read: in one process, or on a Ray cluster."""


def sparsity(run: Run, progress: Progress) -> None:
    """Measure `SparsityConfig` into the run."""
    config = SparsityConfig.model_validate({k: v for k, v in run.settings.items() if k != "kind"})
    measure_sparsity(config, run, progress)


def measure_sparsity(config: SparsityConfig, run: Run, progress: Progress) -> None:
    """Open model and text, note their hashes, and measure which neurons fire, beside the controls."""
    progress(0, config.n_tokens, f"opening {config.model}")
    from data import open_corpus
    from data.wordclass import default_tagger
    from probes import sparsity
    from probes.stream import StreamConfig

    model = opened(config, progress)
    corpus = open_corpus(config.corpus)
    remember_inputs(
        run,
        [("model", model.name, model.title, model.fingerprint), ("corpus", corpus.name, corpus.name, corpus.hash)],
    )
    sparsity.measure(
        model,
        corpus,
        config.n_tokens,
        controls=config.controls,
        control_tokens=config.control_tokens,
        tagger=default_tagger() if config.word_classes else None,
        config=StreamConfig(seed=config.seed, shard_tokens=_shard(config.n_tokens)),
        engine=config.engine,
        run=run,
        progress=progress,
    )


def _shard(n_tokens: int) -> int:
    """Tokens a shard: about eight shards, so that pages fill while little work runs, but no larger than usual."""
    return min(8_192, max(1_024, n_tokens // 8))


def number_type(wanted: Dtype) -> str:
    """`wanted`, with `auto` decided by what this machine's processor can do."""
    if wanted != "auto":
        return wanted
    import torch

    supported: Any = getattr(torch.cpu, "_is_avx512_bf16_supported", None) or (lambda: False)
    return "bfloat16" if supported() else "float32"


def opened(
    asked: Any, progress: Progress = silent, model: str | None = None, secret_experts: str | None = None
) -> "LanguageModel":
    """The model of settings with `model, dtype` and what `FromHub` has; `model` names another."""
    from probes import open_model

    return open_model(
        model or asked.model,
        dtype=number_type(asked.dtype),
        device_map=asked.device_map,
        secret_experts=secret_experts,
        trust_remote_code=asked.trust_remote_code,
        progress=progress,
    )


def remember_inputs(run: Run, inputs: list[tuple[str, str, str, str]]) -> None:
    """Write the table `inputs` (role, name, title, hash); RunError if a stopped run was begun on others.

    Settings hold only names, and what a name stands for can change between stopping and resuming.  Roles that other
    parts of the run have written stay.
    """
    from pandas import DataFrame, concat

    frame = DataFrame(inputs, columns=["role", "name", "title", "hash"])
    if "inputs" in run.table_names():
        held = run.table("inputs")
        before = held.set_index("role")["hash"].to_dict()
        for role, name, _, digest in inputs:
            if before.get(role, digest) != digest:
                raise RunError(
                    f"the {role} '{name}' has changed since run '{run.name}' was begun; delete the run or choose "
                    "another name"
                )
        frame = concat([held[~held["role"].isin(frame["role"])], frame], ignore_index=True)
    run.save_table("inputs", frame)
