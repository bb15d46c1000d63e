"""Any matrix as a dictionary: a model's weights, an SAE's decoder, a toy model's W, a file, a frame.

    from probes import dictionaries
    dictionaries.open_dictionary("smollm2-135m#layer-3-down")     # a part of a model; parts(model) lists them
    dictionaries.open_dictionary("decoder.safetensors#W_dec")     # a file: .npy .npz .safetensors .csv, never pickle
    dictionaries.open_dictionary("frame:simplex:8")               # structured and random frames, see `frames.NAMED`

Columns are features, whatever the file or the model has; where it stores features as rows, the matrix is turned.
"""

import os
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import psutil
from jaxtyping import Shaped
from torch import Tensor

from data.progress import Progress, silent
from probes import frames

SUFFIXES = (".npy", ".npz", ".safetensors", ".csv")
"""Files that can be read; none of them can run code."""


@dataclass(frozen=True, eq=False)
class Named:
    """A dictionary with a name and names for its columns."""

    name: str
    matrix: Shaped[Tensor, "d_model n_features"] | Shaped[np.ndarray, "d_model n_features"]
    feature: str = "column"
    """What a column is: token, neuron, expert, latent, ..."""
    labels: Sequence[str] | None = None

    def label(self, index: int) -> str:
        """What the page shows when it points at a column, e.g. `token 42 ' the'` or `neuron 7`."""
        words = f" {self.labels[index]!r}" if self.labels is not None else ""
        return f"{self.feature} {index}{words}"


@runtime_checkable
class Weighted(Protocol):
    """What is asked of a language model here; `probes.open_model` returns such an object."""

    @property
    def name(self) -> str:
        """Short name."""
        ...

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        ...

    @property
    def tokenizer(self) -> Any:
        """Tokenizer with `decode`, or None."""
        ...

    def plain_weights(self) -> dict[str, Tensor]:
        """Parameters under transformers' own names."""
        ...


_ROLES = (
    # pattern of the parameter's name, name of the part, what a column is
    (r"(embed_tokens|wte|embed_in|word_embeddings)\.weight$", "embedding", "token"),
    (r"(lm_head|embed_out)\.weight$", "unembedding", "token"),
    (r"(gate_proj|w1)\.weight$", "gate", "neuron"),
    (r"(up_proj|w3|c_fc|fc1|fc_in|dense_h_to_4h|wi|wi_0)\.weight$", "in", "neuron"),
    (r"(down_proj|w2|fc2|fc_out|dense_4h_to_h|wo|mlp\.c_proj)\.weight$", "down", "neuron"),
    (r"(o_proj|out_proj|attn\.c_proj|attention\.dense)\.weight$", "attention-out", "head dimension"),
    (r"(\.gate|router|router\.(layer|classifier|proj)|gate\.wg)\.weight$", "router", "expert"),
    (r"(experts\.(gate_up_proj|up_proj|mlp\.v1)|mlp\.input_linear\.weight)$", "experts-in", "neuron"),
    (r"experts\.mlp\.w1$", "experts-gate", "neuron"),
    (r"(experts\.(down_proj|mlp\.w2)|mlp\.output_linear\.weight)$", "experts-down", "neuron"),
)
_READS = {"embedding", "unembedding", "gate", "in", "router", "experts-gate"}
"""Parts whose features are the rows of a plain linear layer's weight."""


def parts(model: Weighted) -> dict[str, str]:
    """Parts of a model that are dictionaries over its residual stream: part -> name of the parameter.

    `embedding`, `unembedding`, and for each layer `layer-3-gate`, `-in`, `-down`, `-attention-out`, `-router`, and of
    experts `layer-3-expert-0-down` (where experts are separate), `layer-3-experts-in` and `-experts-down` (stacked).
    """
    found: dict[str, str] = {}
    for name in model.plain_weights():
        for pattern, role, _ in _ROLES:
            if re.search(pattern, name) and "shared_experts." not in name and "self_attention.experts" not in name:
                layer = re.search(r"(?:layers|h|blocks?)\.(\d+)\.", name)
                expert = re.search(r"experts\.(?:expert_)?(\d+)\.", name)
                words = [f"layer-{layer[1]}"] if layer else []
                words += [f"expert-{expert[1]}"] if expert else []
                found.setdefault("-".join([*words, role]), name)
                break
    if "embedding" in found:
        found.setdefault("unembedding", found["embedding"])  # tied
    return found


def of_model(model: Weighted, part: str) -> Named:
    """One part of a model; ValueError lists the parts if there is none of this name.

    `layer-3-expert-means` is measured: the mean output of each expert over the tokens of the default corpus it gets.
    """
    known = parts(model)
    if (asked := re.fullmatch(r"layer-(\d+)-expert-means", part)) and part not in known:
        return _expert_means(model, int(asked[1]))
    if part not in known:
        shown = [p for p in known if not re.match(r"layer-[1-9]", p)]
        raise ValueError(f"{model.name} has no part '{part}'; it has {', '.join(shown)} and the same in other layers")
    weight = model.plain_weights()[known[part]].detach()
    role, feature = next((r, f) for pattern, r, f in _ROLES if re.search(pattern, known[part]))
    matrix = _columns_of(weight, role, model.d_model)
    labels = token_labels(model.tokenizer, matrix.shape[1]) if feature == "token" else None
    if weight.ndim == 3:
        labels = [f"expert {e}, neuron {i}" for e in range(len(weight)) for i in range(matrix.shape[1] // len(weight))]
    return Named(f"{model.name}#{part}", matrix, feature, labels)


def _expert_means(model: Any, layer: int) -> Named:
    from data.corpus import open_corpus
    from probes.expert_means import expert_means

    means, used = expert_means(model, open_corpus(), layer)
    return Named(f"{model.name}#layer-{layer}-expert-means", means, "mean output of", [f"expert {e}" for e in used])


def token_labels(tokenizer: Any, count: int) -> list[str] | None:
    """The text of each token; one that is no text of its own (bytes of a character) has its name in the vocabulary."""
    if tokenizer is None:
        return None
    names = tokenizer.convert_ids_to_tokens(list(range(min(count, len(tokenizer)))))
    texts = tokenizer.batch_decode([[i] for i in range(len(names))])
    read = [t if t and "\ufffd" not in t else (n or f"#{i}") for i, (t, n) in enumerate(zip(texts, names, strict=True))]
    return read + [f"#{i}" for i in range(len(names), count)]


def of_sae(sae: Any, name: str = "sae") -> Named:
    """The decoder of a sparse autoencoder (attribute `W_dec`, (d_sae, d_model)): one column a latent."""
    return Named(f"{name}#decoder", sae.W_dec.detach().t(), "latent")


def of_toy(W: Shaped[Tensor, "d_hidden n_features"], name: str = "toy") -> Named:
    """A toy model's W as it is; a dead feature (zero column) is refused when it is measured."""
    return Named(name, W.detach() if isinstance(W, Tensor) else W, "feature")


def of_frame(text: str, seed: int = 0) -> Named:
    """`simplex:8`, `random:64x256`, `icosahedron`, ...: a frame of `frames.NAMED` with its sizes."""
    name, _, sizes = text.partition(":")
    if name not in frames.NAMED:
        raise ValueError(f"no frame '{name}'; there are {', '.join(frames.NAMED)}")
    numbers = [int(n) for n in re.findall(r"\d+", sizes)]
    options = {"seed": seed} if name in ("random", "rademacher") else {}
    if len(numbers) != _sizes(name):
        example = {0: name, 1: f"{name}:16", 2: f"{name}:16x64"}[_sizes(name)]
        raise ValueError(f"frame '{text}': write {example}")
    return Named(f"frame:{text}", frames.NAMED[name](*numbers, **options))


def of_file(path: str | Path, key: str | None = None, *, transpose: bool = False) -> Named:
    """A matrix from a .npy (memory-mapped), .npz, .safetensors or .csv file; no pickle is ever read.

    `key` names the array where a file holds several; `transpose=True` if the file keeps features as rows.  A .csv may
    have a first line of column names, which become the features' labels.  Raises ValueError with what is wrong; only
    a .csv is read whole here, NaN in the others is told by what measures them.
    """
    path = Path(path)
    if not os.path.isfile(path):  # also false for a name too long for any file
        raise ValueError(f"there is no file {path}")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path.name} is not one of {', '.join(SUFFIXES)}")
    labels: list[str] | None = None
    try:
        if path.suffix == ".npy":
            matrix: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix == ".npz":
            _check_unpacked(path)
            with np.load(path, allow_pickle=False) as arrays:
                matrix = arrays[_choose(list(arrays), key, path)]
        elif path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                matrix = file.get_tensor(_choose(list(file.keys()), key, path))
        else:
            matrix, labels = _read_csv(path)
    except (OSError, ValueError, KeyError) as error:
        if "pickle" in str(error) or "Python objects" in str(error):  # numpy's advice is to allow what could run code
            raise ValueError(f"{path.name} cannot be read: it is no array of numbers") from None
        raise ValueError(f"{path.name} cannot be read: {error}") from None
    except Exception as error:
        raise ValueError(f"{path.name} is damaged or not a {path.suffix} file ({type(error).__name__})") from None
    if matrix.ndim != 2:
        raise ValueError(f"{path.name} holds an array of shape {tuple(matrix.shape)}; a dictionary is a matrix")
    name = path.name + (f"#{key}" if key else "")
    return Named(name, matrix.T if transpose else matrix, labels=None if transpose else labels)


def open_dictionary(
    text: str, *, transpose: bool = False, seed: int = 0, models: Mapping[str, Weighted] | None = None,
    progress: Progress = silent,
) -> Named:  # fmt: skip
    """A dictionary by its written name: `frame:NAME[:SIZES]`, `FILE[#KEY]` or `MODEL#PART`.

    `models` are models already open, by name; others are opened.  `transpose` is for files that keep features as rows.
    """
    if text.startswith("frame:"):
        return of_frame(text.removeprefix("frame:"), seed)
    place, _, part = text.partition("#")
    if Path(place).suffix in SUFFIXES:
        return of_file(place, part or None, transpose=transpose)
    if not part:
        raise ValueError(
            f"'{text}' is no dictionary; write MODEL#PART (smollm2-135m#layer-3-down), FILE[#KEY] "
            f"({', '.join(SUFFIXES)}) or frame:NAME ({', '.join(frames.NAMED)})"
        )
    if models and place in models:
        return of_model(models[place], part)
    from probes.models import open_model

    return of_model(open_model(place, progress=progress), part)


def _columns_of(weight: Tensor, role: str, d_model: int) -> Tensor:
    """A parameter turned so that it is (d_model, features)."""
    if weight.ndim == 3:  # stacked experts: (experts, features, d_model) or (experts, d_model, features)
        last = weight.shape[2] == d_model and (weight.shape[1] != d_model or role == "experts-in")
        return weight.reshape(-1, d_model).t() if last else weight.movedim(1, 0).reshape(d_model, -1)
    rows = weight.shape[1] == d_model if weight.shape[0] != weight.shape[1] else role in _READS
    return weight.t() if rows else weight


def _sizes(name: str) -> int:
    return {"mercedes-benz": 0, "icosahedron": 0, "28-lines": 0, "random": 2, "rademacher": 2}.get(name, 1)


def _check_unpacked(path: Path) -> None:
    """ValueError if the archive unpacks to more than the memory that is free: some are made to."""
    with zipfile.ZipFile(path) as archive:
        largest = max((member.file_size for member in archive.infolist()), default=0)
    free = psutil.virtual_memory().available
    if largest > free // 2:
        raise ValueError(f"it unpacks to {largest / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free; give it as .npy")


def _choose(keys: list[str], key: str | None, path: Path) -> str:
    if key is None and len(keys) == 1:
        return keys[0]
    if key not in keys:
        said = f"has no '{key}'" if key else "holds several arrays"
        raise ValueError(f"it {said}; write {path.name}#KEY with one of {', '.join(keys[:12])}")
    return key


def _read_csv(path: Path) -> tuple[np.ndarray, list[str] | None]:
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline().rstrip("\n").split(",")
    labels: list[str] | None = None
    try:
        [float(cell) for cell in first]
    except ValueError:
        labels = [cell.strip().strip('"') for cell in first]
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # an empty file is told below
        matrix = np.loadtxt(path, delimiter=",", skiprows=1 if labels else 0, ndmin=2, encoding="utf-8-sig")
    if not matrix.size:
        raise ValueError("it holds no numbers")
    if not (finite := np.isfinite(matrix)).all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(f"row {row + 1}, column {column + 1} of its numbers is {matrix[row, column]}, not finite")
    return matrix, labels
