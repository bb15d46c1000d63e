"""Run folders that somebody altered, and names that would lead out of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data.config import digest
from data.routed import Routes, TokenTable
from data.runs import Run, check_name, compare, create, list_runs, open_run
from tests.properties.judge import judge
from tests.properties.strategies import matrices, texts

names = st.one_of(
    texts,
    st.sampled_from(
        ["..", ".", "a/b", "../x", "/etc/passwd", "a\\b", "C:x", "nul", "con", "a" * 129, ".hidden", "a..b"]
    ),
    st.sampled_from(
        ["~", "~root", "-rf", "a\n", "name ", "\u202ename", "ｎａｍｅ", "a%2fb", "settings.json", "x.parquet"]
    ),
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
damage = st.one_of(
    st.binary(max_size=40),
    json_values.map(lambda v: json.dumps(v).encode()),
    st.sampled_from(
        [b"", b"{", b"[" * 100_000, b'{"kind": 3}', b"\xff\xfe{", b'{"a":' * 50_000, b'{"state": "running"}']
    ),
)


def tree(folder: Path) -> dict[str, int]:
    """Every file below a folder with its size."""
    return {str(p): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


@given(name=names, settings=st.dictionaries(texts, json_values, max_size=3))
@example(name="a" * 3000, settings={})
def test_names_stay_in_their_folder(name: str, settings: dict[str, Any], tmp_path_factory: Any) -> None:
    place = tmp_path_factory.mktemp("place")
    (place / "secret.txt").write_text("mine")
    root = place / "below" / "runs"
    root.mkdir(parents=True)
    judge("data.runs.check_name", lambda: check_name(name))
    made = judge("data.runs.create", lambda: create(name, settings, kind="x", root_folder=root))
    judge("data.open_run", lambda: open_run(name, root))
    run = made or create("plain", {}, kind="x", root_folder=root)
    judge("data.Run.save_table", lambda: run.save_table(name, pd.DataFrame({"a": [1]})))
    judge("data.Run.save_tensors", lambda: run.save_tensors(name, {"a": np.zeros(2)}))
    judge("data.Run.table", lambda: run.table(name), nan=True)
    judge("data.Run.tensors", lambda: run.tensors(name))
    if made is not None:
        assert made.path.parent == root
        again = judge("data.runs.create again", lambda: create(name, settings, kind="x", root_folder=root))
        assert again is not None
    assert all(path.startswith((str(root), str(place / "secret.txt"))) for path in tree(place))
    assert (place / "secret.txt").read_text() == "mine"


@given(content=damage, which=st.sampled_from(["settings.json", "provenance.json", "progress.json", "t.parquet"]))
@example(content=b"{}", which="progress.json")
@example(content=b'{"kind": 3}', which="settings.json")
def test_altered_files_are_told(content: bytes, which: str, tmp_path_factory: Any) -> None:
    root = tmp_path_factory.mktemp("runs")
    run = create("first", {"a": 1}, kind="probe.sparsity", root_folder=root)
    run.save_table("t", pd.DataFrame({"a": [1.0]}))
    (run.path / which).write_bytes(content)
    before = tree(root)
    for entry, call in {
        "data.Run.settings": lambda: run.settings,
        "data.Run.kind": lambda: run.kind.upper(),
        "data.Run.provenance": lambda: run.provenance,
        "data.Run.progress": lambda: run.progress["state"].upper(),
        "data.Run.tables": run.tables,
        "data.list_runs": lambda: list_runs(root),
        "data.runs.compare": lambda: compare(run, run),
        "data.routed.Routes": lambda: Routes(run.path),
        "data.routed.TokenTable": lambda: TokenTable(run.path),
    }.items():
        judge(entry, call, nan=True, inf=True)
    judge("data.runs.create", lambda: create("first", {"a": 1}, kind="probe.sparsity", root_folder=root))
    assert tree(root) == before


@given(content=damage, stem=st.sampled_from(["routes", "routed_tokens"]))
def test_altered_routes_are_told(content: bytes, stem: str, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("routes")
    (folder / f"{stem}.parquet").write_bytes(content)
    judge("data.routed.Routes", lambda: Routes(folder).experts(0))
    judge("data.routed.TokenTable", lambda: TokenTable(folder).sentence(0))


@given(row=st.sampled_from([-1, 0, 5, 10**9]), layer=st.sampled_from([-1, 0, 1, 99]))
def test_rows_and_layers_that_are_not_there(row: int, layer: int) -> None:
    folder = Path(__file__).parents[2] / "data" / "bundled" / "runs" / "tinymoe-experts"
    judge("data.routed.TokenTable.sentence", lambda: TokenTable(folder).sentence(row))
    judge("data.routed.TokenTable.rows", lambda: TokenTable(folder).rows(row, row + 3, ["text"]))
    judge("data.routed.Routes.experts", lambda: Routes(folder).experts(layer))


@given(matrix=matrices(), key=texts)
def test_arrays_that_cannot_be_kept_are_refused(matrix: Any, key: str, tmp_path_factory: Any) -> None:
    run = create("arrays", {}, kind="x", root_folder=tmp_path_factory.mktemp("runs"))
    judge("data.Run.save_tensors", lambda: run.save_tensors("w", {key: matrix}))
    if (run.path / "w.safetensors").exists():
        assert set(judge("data.Run.tensors", lambda: run.tensors("w"), nan=True, inf=True)) == {key}
    frame = pd.DataFrame({key.encode("ascii", "backslashreplace").decode(): [matrix]})
    judge("data.Run.save_table", lambda: run.save_table("t", frame))


@given(value=json_values)
def test_digests_of_anything(value: Any) -> None:
    assert len(judge("data.digest", lambda: digest(value))) == 12


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_folder_is_told(kind: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "runs"
    root.mkdir()
    if kind == "link":
        (root / "x").symlink_to(outside)
    else:
        (root / "x").write_text("")
    assert judge("data.runs.create", lambda: create("x", {}, kind="k", root_folder=root)) is None
    assert judge("data.Run.delete", Run(root / "x").delete) is None
    assert not tree(outside)
