"""What measurements of a language model on text have in common: their settings, and how model and text are opened.

Each kind of run has a module with its settings and its work: a verb makes the run and does the work here, a job is
started with the run and does the same work elsewhere.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from data.config import Config
from data.corpus import Corpus
from data.files import one_at_a_time
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


class OnText(FromHub):
    """What every measurement of a model on text is asked; a kind of run changes a default by naming the field again."""

    model: str = "smollm2-135m"
    """Name, GGUF file, folder or hub name of the language model."""
    corpus: str = "sotu-modern"
    """Name or path of the text."""
    dtype: Dtype = "auto"
    """Number type of the forward pass; `auto` is bfloat16 on a processor that computes in it, else float32."""


class Spread(OnText):
    """What a measurement whose text can be read by many machines is asked besides."""

    engine: Literal["local", "ray"] = "local"
    """Where the text is read: in one process, or on a Ray cluster."""


def number_type(wanted: Dtype) -> str:
    """`wanted`, with `auto` decided by what this machine's processor can do."""
    if wanted != "auto":
        return wanted
    import torch

    supported: Any = getattr(torch.cpu, "_is_avx512_bf16_supported", None) or (lambda: False)
    return "bfloat16" if supported() else "float32"


def opened(
    asked: OnText, progress: Progress = silent, model: str | None = None, secret_experts: str | None = None
) -> "LanguageModel":
    """The model of these settings; `model` names another, `secret_experts` a run whose students become its experts."""
    from probes import open_model

    return open_model(
        model or asked.model,
        dtype=number_type(asked.dtype),
        device_map=asked.device_map,
        secret_experts=secret_experts,
        trust_remote_code=asked.trust_remote_code,
        progress=progress,
    )


def model_and_text(
    asked: OnText,
    run: Run,
    progress: Progress,
    *,
    role: str | None = "model",
    secret_experts: str | None = None,
) -> "tuple[LanguageModel, Corpus]":
    """Open the model and the text of these settings, and note in the run which ones they were.

    `role` is the model's in the table `inputs`; with None nothing is noted.
    """
    from data import open_corpus

    progress(0, 1, f"opening {asked.model}")
    corpus = open_corpus(asked.corpus)
    model = opened(asked, progress, secret_experts=secret_experts)
    if role is not None:
        remember_inputs(run, [as_input(role, model), as_input("corpus", corpus)])
    return model, corpus


def as_input(role: str, one: "LanguageModel | Corpus") -> tuple[str, str, str, str]:
    """A row of the table `inputs`: role, name, title, hash of all that was read."""
    if isinstance(one, Corpus):
        return role, one.name, one.name, one.hash
    return role, one.name, one.title, one.fingerprint


def remember_inputs(run: Run, inputs: Sequence[tuple[str, str, str, str]]) -> None:
    """Write the table `inputs` (role, name, title, hash); RunError if a stopped run was begun on others.

    Settings hold only names, and what a name stands for can change between stopping and resuming.  Roles that other
    parts of the run have written stay.
    """
    from pandas import DataFrame, concat

    frame = DataFrame(inputs, columns=["role", "name", "title", "hash"])
    with one_at_a_time(run.path / ".inputs"):
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
        run.save_table("inputs", frame.sort_values("role", ignore_index=True))  # whoever came first
