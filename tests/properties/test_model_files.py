"""Model folders, GGUF files and dictionaries on disk that lie, are cut short, or would run code."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from probes import coherence, open_model
from probes.dictionaries import of_file, open_dictionary
from tests.probes.tiny import tiny_hf
from tests.properties.judge import judge
from tests.properties.strategies import texts


class Bomb:
    """Writes a file beside itself when it is unpickled."""

    def __init__(self, place: str):
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.place, "w")


def header(claims: Any, body: bytes = b"\0" * 64, length: int | None = None) -> bytes:
    """A safetensors file whose header says what it likes."""
    said = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return struct.pack("<Q", len(said) if length is None else length) + said + body


HUGE = 2**62
LIES = [
    header({"W": {"dtype": "F32", "shape": [HUGE, HUGE], "data_offsets": [0, 64]}}),
    header({"W": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, HUGE]}}),
    header({"W": {"dtype": "F32", "shape": [4, 4], "data_offsets": [64, 0]}}),
    header({"W": {"dtype": "F32", "shape": [-4, -4], "data_offsets": [0, 64]}}),
    header({"W": {"dtype": "F99", "shape": [4, 4], "data_offsets": [0, 64]}}),
    header({"W": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}, length=HUGE),
    header({"W": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}, b"\0" * 8),
    header({"W": {"dtype": "F32", "shape": [0, 4], "data_offsets": [0, 0]}}, b""),
    header({"__metadata__": {"a": "b"}}, b""),
    header(b"{" * 5000),
    header([]),
    b"",
    b"\xff" * 16,
]


def arrays(place: Path) -> dict[str, bytes]:
    """Files of arrays that are pickles, bombs, or not what their name says."""
    bomb = pickle.dumps(Bomb(str(place / "ran")))
    zipped, large, object_array = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("data.pkl", bomb)
        archive.writestr("../outside.npy", b"x")
    with zipfile.ZipFile(large, "w", zipfile.ZIP_DEFLATED) as archive:
        shape = np.lib.format
        raw = io.BytesIO()
        shape.write_array_header_1_0(raw, {"descr": "<f8", "fortran_order": False, "shape": (2**20, 2**12)})
        archive.writestr("W.npy", raw.getvalue() + bytes(1 << 24))
    np.save(object_array, np.array([Bomb(str(place / "ran"))], dtype=object), allow_pickle=True)
    lying = io.BytesIO()
    np.lib.format.write_array_header_1_0(lying, {"descr": "<f8", "fortran_order": False, "shape": (HUGE, 4)})
    return {
        "bomb.npy": bomb,
        "object.npy": object_array.getvalue(),
        "lying.npy": lying.getvalue(),
        "bomb.npz": zipped.getvalue(),
        "large.npz": large.getvalue(),
        "bomb.safetensors": bomb,
        "bomb.csv": bomb,
        "bomb.pt": zipped.getvalue(),
        "bomb.bin": bomb,
    }


@pytest.mark.parametrize("name", sorted(arrays(Path("."))))
def test_no_file_runs_code_or_fills_the_memory(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    path.write_bytes(arrays(tmp_path)[name])
    judge("probes.dictionaries.of_file", lambda: of_file(path).matrix)
    judge("probes.open_dictionary", lambda: open_dictionary(f"{path}#W").matrix)
    judge("probes.open_model", lambda: open_model(str(path)))
    assert [p.name for p in tmp_path.iterdir()] == ["in"] and [p.name for p in path.parent.iterdir()] == [name]


files = st.one_of(
    st.binary(max_size=64),
    st.sampled_from(LIES),
    texts.map(lambda t: t.encode("utf-8", "replace")),
    st.sampled_from(
        [b"1,2\n3", b"a,b\n1,x\n", b"nan,inf\n1,2\n", b"1e999,1\n", b"\xff\xfe1,2", b"1," * 3000, b"a\n\n"]
    ),
)


@given(content=files, suffix=st.sampled_from([".npy", ".npz", ".safetensors", ".csv", ".txt", ""]), key=texts)
def test_any_bytes_are_a_dictionary_or_a_sentence(content: bytes, suffix: str, key: str, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("files") / f"d{suffix}"
    path.write_bytes(content)
    judge("probes.dictionaries.of_file", lambda: coherence.measure(of_file(path).matrix))
    turned = judge("probes.dictionaries.of_file key", lambda: of_file(path, key, transpose=True).matrix, nan=True)
    assert turned is None or suffix != ".csv" or np.isfinite(turned).all()
    judge("probes.open_dictionary", lambda: open_dictionary(f"{path}#{key}").matrix)
    judge("probes.open_dictionary name", lambda: open_dictionary(f"frame:{key}").matrix)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    tiny_hf(num_hidden_layers=1).save_pretrained(place)
    return place


CONTRADICTIONS: list[dict[str, Any]] = [
    {"hidden_size": 33}, {"num_hidden_layers": 10**6}, {"vocab_size": 10**8}, {"vocab_size": 2**61},
    {"num_hidden_layers": 3}, {"num_attention_heads": 0},
    {"vocab_size": -1},
    {"model_type": "no-such"}, {"model_type": 3}, {"hidden_size": "many"}, {"hidden_size": None}, {"hidden_act": "no"},
    {"intermediate_size": 128}, {"torch_dtype": "int3"}, {"dtype": "nope"}, {"architectures": ["Nope"]},
    {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}, {"quantization_config": {"quant_method": "nope"}},
    {"quantization_config": 3}, {"rope_scaling": {"type": "x"}}, {"num_key_value_heads": 3},
]  # fmt: skip


@pytest.mark.parametrize("change", [*CONTRADICTIONS, None, b"", b"{", b"[]", b"\xff", b"3", b'{"a":' * 9000])
def test_a_config_that_contradicts_its_weights(change: Any, folder: Path, tmp_path: Path) -> None:
    for part in folder.iterdir():
        (tmp_path / part.name).write_bytes(part.read_bytes())
    config = tmp_path / "config.json"
    if change is None:
        config.unlink()
    elif isinstance(change, bytes):
        config.write_bytes(change)
    else:
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
    before = sorted(p.name for p in tmp_path.iterdir())
    opened = judge("probes.open_model folder", lambda: open_model(str(tmp_path)).name)
    assert opened is None or change != {"num_hidden_layers": 3}, "layers without weights are made up"
    assert sorted(p.name for p in tmp_path.iterdir()) == before


LARGE = {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 11008, "vocab_size": 32000, "head_dim": 128}


def test_weights_that_are_not_there_take_no_memory(folder: Path, tmp_path: Path) -> None:
    """Seven billion parameters named by a config.json beside a file of none: they would be drawn at random."""
    config = json.loads((folder / "config.json").read_text()) | LARGE
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(header({"__metadata__": {"format": "pt"}}, b""))
    assert judge("probes.open_model weights", lambda: open_model(str(tmp_path)).name) is None


@pytest.mark.parametrize("content", [*LIES, None, pickle.dumps(torch.zeros(2))])
def test_weights_that_are_cut_or_lie(content: bytes | None, folder: Path, tmp_path: Path) -> None:
    for part in folder.iterdir():
        (tmp_path / part.name).write_bytes(part.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2] if content is None else content)
    assert judge("probes.open_model weights", lambda: open_model(str(tmp_path)).name) is None


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(str(tmp_path / "ran"))))
    assert judge("probes.open_model weights", lambda: open_model(str(tmp_path)).name) is None
    assert not (tmp_path / "ran").exists()


def gguf(version: int, tensors: int, entries: int, rest: bytes) -> bytes:
    """The beginning of a GGUF file."""
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + rest


string = struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<IQ", 8, 5) + b"llama"
wrong = st.sampled_from(
    [
        *(b"", b"GGUF", gguf(3, 0, 0, b""), gguf(99, 1, 1, string), gguf(3, HUGE, 0, b""), gguf(3, 0, HUGE, b"")),
        *(gguf(3, 1, 1, string), gguf(3, 0, 1, struct.pack("<Q", HUGE) + b"x"), gguf(3, 0, 1, string)),
        gguf(3, 1, 1, string + struct.pack("<Q", 1) + b"w" + struct.pack("<IQQIQ", 2, HUGE, HUGE, 0, 0)),
        gguf(3, 1, 1, string + struct.pack("<Q", 1) + b"w" + struct.pack("<IQQIQ", 2, 4, 4, 77, HUGE)),
        gguf(3, 0, 1, struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 9, HUGE)),
    ]
)


@given(content=wrong | st.binary(max_size=48).map(lambda raw: b"GGUF" + raw))
def test_a_gguf_file_with_wrong_counts(content: bytes, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    path.write_bytes(content)
    assert judge("probes.open_model gguf", lambda: open_model(str(path)).name) is None


@given(name=texts)
@example(name="a" * 3000)
def test_a_model_of_any_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.models.door._on_the_hub", lambda name: False)
    if not name.strip() or "/" in name:
        return
    judge("probes.open_model name", lambda: open_model(f"./no-such-{name}"))
    judge("probes.open_model name", lambda: open_model(f"no-such-{name}"))
    judge("probes.open_model name", lambda: open_model(f"~{name}.gguf"))
    judge("probes.open_dictionary name", lambda: open_dictionary(f"{name}.npy#a"))
    judge("probes.open_model dtype", lambda: open_model("tinymoe", dtype=name).name)
