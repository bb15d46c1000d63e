"""Matrices found in models and files, turned the right way round; nothing that could run code is read."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from probes import coherence, dictionaries, frames


class Tokenizer:
    def __len__(self):
        return 5

    def convert_ids_to_tokens(self, ids):
        return [f"<{i}>" for i in ids]

    def batch_decode(self, ids):
        return ["a", "b", "\ufffd", "", " the"][: len(ids)]


def model(weights):
    return SimpleNamespace(name="m", d_model=4, tokenizer=Tokenizer(), plain_weights=lambda: weights)


def test_parts_of_a_dense_and_a_routed_model() -> None:
    g = torch.Generator().manual_seed(0)
    shapes = {
        "model.embed_tokens.weight": (6, 4),
        "model.layers.0.self_attn.o_proj.weight": (4, 4),
        "model.layers.0.mlp.gate_proj.weight": (7, 4),
        "model.layers.0.mlp.up_proj.weight": (7, 4),
        "model.layers.0.mlp.down_proj.weight": (4, 7),
        "model.layers.1.mlp.gate.weight": (3, 4),
        "model.layers.1.mlp.experts.gate_up_proj": (3, 10, 4),
        "model.layers.1.mlp.experts.down_proj": (3, 4, 5),
        "model.layers.1.input_layernorm.weight": (4,),
    }
    weights = {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}
    here = model(weights)
    found = dictionaries.parts(here)
    assert set(found) == {
        "embedding", "unembedding", "layer-0-attention-out", "layer-0-gate", "layer-0-in", "layer-0-down",
        "layer-1-router", "layer-1-experts-in", "layer-1-experts-down",
    }  # fmt: skip
    widths = {part: dictionaries.of_model(here, part).matrix.shape for part in found}
    assert all(shape[0] == 4 for shape in widths.values())
    assert widths["layer-1-experts-in"][1] == 30 and widths["layer-1-experts-down"][1] == 15
    down = dictionaries.of_model(here, "layer-1-experts-down")
    stacked = weights["model.layers.1.mlp.experts.down_proj"]
    assert torch.equal(down.matrix[:, 5 * 2 + 3], stacked[2, :, 3]) and "expert 2, neuron 3" in down.label(13)
    tokens = dictionaries.of_model(here, "embedding")
    assert torch.equal(tokens.matrix[:, 2], weights["model.embed_tokens.weight"][2])
    assert [tokens.label(i) for i in (0, 2, 4, 5)] == ["token 0 'a'", "token 2 '<2>'", "token 4 ' the'", "token 5 '#5'"]
    square = dictionaries.of_model(here, "layer-0-attention-out")
    assert torch.equal(square.matrix, weights["model.layers.0.self_attn.o_proj.weight"])
    with pytest.raises(ValueError, match="embedding"):
        dictionaries.of_model(here, "layer-9-down")


def test_conv1d_and_square_weights_turn_the_right_way() -> None:
    g = torch.Generator().manual_seed(0)
    here = model({
        "transformer.h.0.mlp.c_fc.weight": torch.randn(4, 16, generator=g),
        "model.layers.0.mlp.gate_proj.weight": torch.randn(4, 4, generator=g),
    })  # fmt: skip
    assert dictionaries.of_model(here, "layer-0-in").matrix.shape == (4, 16)
    gate = here.plain_weights()["model.layers.0.mlp.gate_proj.weight"]
    assert torch.equal(dictionaries.of_model(here, "layer-0-gate").matrix, gate.t())


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors", "csv"])
def test_files_of_every_kind_hold_the_same_dictionary(tmp_path, kind) -> None:
    V = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    path = tmp_path / f"V.{kind}"
    if kind == "npy":
        np.save(path, V)
    elif kind == "npz":
        np.savez(path, V=V, other=V[:2])
    elif kind == "safetensors":
        save_file({"V": V, "other": V[:2].copy()}, path)
    else:
        np.savetxt(path, V, delimiter=",")
    several = kind in ("npz", "safetensors")
    named = dictionaries.open_dictionary(f"{path}#V" if several else str(path))
    assert np.asarray(named.matrix) == pytest.approx(V)
    assert coherence.measure(named.matrix).mu == pytest.approx(coherence.measure(V).mu, abs=1e-6)
    assert dictionaries.of_file(path, "V" if several else None, transpose=True).matrix.shape == (9, 5)
    if several:
        with pytest.raises(ValueError, match="other"):
            dictionaries.of_file(path)
        with pytest.raises(ValueError, match="'W'"):
            dictionaries.of_file(path, "W")


def test_a_csv_header_names_the_features(tmp_path) -> None:
    path = tmp_path / "V.csv"
    path.write_text("verb,noun\n1,0\n1,1\n")
    named = dictionaries.of_file(path)
    assert named.matrix.tolist() == [[1, 0], [1, 1]] and named.label(1) == "column 1 'noun'"


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_no_pickle_is_ever_run(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", V=np.array([Bomb()], dtype=object))
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Bomb()))
    for name in ("a.npy", "b.npz", "c.npy"):
        with pytest.raises(ValueError, match=name) as told:
            dictionaries.of_file(tmp_path / name)
        assert "pickle" not in str(told.value)
    (tmp_path / "d.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="not one of"):
        dictionaries.of_file(tmp_path / "d.pt")


@pytest.mark.parametrize(("name", "content"), [
    ("a.npy", b"\x93NUMPY"), ("a.npz", b"PK"), ("a.safetensors", b"\xff" * 20), ("a.csv", b"1,2\n3"),
    ("a.csv", b"a,b\nc,d"),
])  # fmt: skip
def test_damaged_files_are_one_sentence(tmp_path, name, content) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        dictionaries.of_file(tmp_path / name)
    with pytest.raises(ValueError, match="no file"):
        dictionaries.of_file(tmp_path / f"missing-{name}")


@pytest.mark.parametrize("content", ["", "\n", "verb,noun\n", "# nothing\n"])
@pytest.mark.filterwarnings("error")
def test_a_csv_without_numbers_is_one_sentence(tmp_path, content) -> None:
    (tmp_path / "empty.csv").write_text(content)
    with pytest.raises(ValueError, match=r"empty\.csv cannot be read: it holds no numbers"):
        dictionaries.of_file(tmp_path / "empty.csv")


def test_frames_by_name() -> None:
    assert dictionaries.open_dictionary("frame:simplex:8").matrix.shape == (8, 9)
    assert dictionaries.open_dictionary("frame:random:16x64", seed=1).matrix.shape == (16, 64)
    for name in frames.NAMED:
        with pytest.raises(ValueError, match=f"frame:?.*{name}"):
            dictionaries.open_dictionary(f"frame:{name}:1x2x3")
    with pytest.raises(ValueError, match="simplex"):
        dictionaries.open_dictionary("frame:nothing")
    with pytest.raises(ValueError, match="MODEL#PART"):
        dictionaries.open_dictionary("gibberish")


def test_sae_decoders_and_toys() -> None:
    sae = SimpleNamespace(W_dec=torch.nn.Parameter(torch.eye(6, 3)))
    assert dictionaries.of_sae(sae).matrix.shape == (3, 6)
    with pytest.raises(ValueError, match="column 3 is zero"):
        coherence.measure(dictionaries.of_sae(sae).matrix)
    assert dictionaries.of_toy(torch.randn(2, 5)).feature == "feature"


@pytest.mark.model
def test_smollm2_embedding_has_identical_rows_and_its_neurons_stand_close() -> None:
    from probes import open_model

    here = open_model("smollm2-135m")
    for layer in (0, 29):
        for part in ("gate", "in", "down"):
            assert coherence.measure(dictionaries.of_model(here, f"layer-{layer}-{part}").matrix).mu >= 0.47
    tokens = dictionaries.of_model(here, "embedding")
    some = coherence.measure(tokens.matrix[:, :1024])
    assert some.mu == pytest.approx(1, abs=1e-6) and some.k_guaranteed == 0
    names = {tokens.label(i) for i in some.clusters["feature"]}
    assert "token 12 '<jupyter_text>'" in names and "token 14 '<jupyter_output>'" in names
