"""Routed tokens on disk: which experts every token of a text used in every layer, and the text itself.

    routed_tokens.parquet      one row a token in reading order: document, position, sentence, token_id, text, word
                               class, fine, domain; row groups of 16,384, so that a sentence costs one of them
    routed_documents.parquet   one row a document in that order, with its metadata
    routes.parquet             one row group a layer, one row a token in the same order: kept, expert_0 .., weight_0 ..
    routes_CONDITION.parquet   the same under a control, for the first so many tokens

A pass writes one part a shard (`routed-parts/`); `put_together` makes the files above from them, a layer at a time.
Experts are numbered from 0; -1 is a slot that nobody got (the token was dropped, or the layer has fewer slots).
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int
from pandas import DataFrame

from data.files import RunError, reading, replacing

TOKENS = "routed_tokens"
PARTS = "routed-parts"
ROWS = 16_384
"""Tokens in a row group of `routed_tokens.parquet`."""
TOKEN_SCHEMA = pa.schema(
    [
        ("document", pa.int32()),
        ("position", pa.int32()),
        ("in_window", pa.int16()),
        ("sentence", pa.int32()),
        ("token_id", pa.int32()),
        ("text", pa.string()),
        ("word_class", pa.string()),
        ("fine", pa.string()),
        ("domain", pa.string()),
    ]
)
"""`document` counts documents as they were read; `position` counts text tokens in the document, `in_window` places in
the window that the model saw (0 is the document token, which is left out); `sentence` is -1 in untagged text."""


def routes_name(condition: str = "real") -> str:
    """File stem of the routes under a condition: `routes`, `routes_random_init`, ..."""
    return "routes" if condition == "real" else f"routes_{condition}"


class Routes:
    """The routes of one condition; layers are read one at a time."""

    def __init__(self, folder: Path, condition: str = "real"):
        self.path = Path(folder) / f"{routes_name(condition)}.parquet"
        self._file = _opened(self.path)
        try:
            self._about = json.loads(self._file.schema_arrow.metadata[b"routes"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.path} cannot be read as routes ({type(error).__name__}); measure again") from error

    @property
    def layers(self) -> list[int]:
        """Layers that route."""
        return list(self._about["layers"])

    @property
    def n_tokens(self) -> int:
        """Tokens routed in each layer."""
        return int(self._about["n_tokens"])

    def n_experts(self, layer: int) -> int:
        """Experts of the layer."""
        return int(self._about["n_experts"][self._at(layer)])

    @property
    def k(self) -> int:
        """Slots of a token."""
        return int(self._about["k"])

    def experts(self, layer: int) -> Int[np.ndarray, "n_tokens k"]:
        """Expert of each token and slot, -1 where there was none."""
        return self._matrix(layer, "expert")

    def weights(self, layer: int) -> Float[np.ndarray, "n_tokens k"]:
        """Weight with which each expert's output was summed."""
        return self._matrix(layer, "weight").astype(np.float32)

    def kept(self, layer: int) -> Bool[np.ndarray, " n_tokens"]:
        """Whether each token is ordinary: no attention sink of the layer, not among a window's first positions."""
        return self._columns(layer, ["kept"])["kept"].to_numpy(zero_copy_only=False)

    def _matrix(self, layer: int, what: str) -> np.ndarray:
        names = [f"{what}_{slot}" for slot in range(self.k)]
        held = self._columns(layer, names)
        return np.stack([held[name].to_numpy() for name in names], axis=1)

    def _columns(self, layer: int, names: list[str]) -> Any:
        return self._file.read_row_group(self._at(layer), columns=names).combine_chunks()

    def _at(self, layer: int) -> int:
        if layer not in self._about["layers"]:
            raise ValueError(f"layer {layer} routes nothing; layers that do: {', '.join(map(str, self.layers))}")
        return int(self._about["layers"].index(layer))


class TokenTable:
    """The text that was routed, read in slices."""

    def __init__(self, folder: Path):
        self._file = _opened(Path(folder) / f"{TOKENS}.parquet")
        sizes = [self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)]
        self._begin = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._begin[-1])

    def column(self, name: str, n: int | None = None) -> np.ndarray:
        """One column whole, or its first `n` entries."""
        return self._file.read(columns=[name])[name].slice(0, n).to_numpy()

    def codes(self, name: str, n: int | None = None) -> tuple[Int[np.ndarray, " n_tokens"], list[str]]:
        """A column of words as codes, and the words in alphabetical order."""
        held: Any = self._file.read(columns=[name])[name].slice(0, n).combine_chunks().dictionary_encode()
        words = [str(word) for word in held.dictionary.to_pylist()]
        order = np.argsort(np.array(words, dtype=object))
        place = np.empty(len(words), dtype=np.int32)
        place[order] = np.arange(len(words))
        return place[held.indices.to_numpy()], [words[i] for i in order]

    def rows(self, first: int, last: int, columns: Sequence[str]) -> DataFrame:
        """Rows `first` to `last - 1`, cut to what there is, with the row number as index."""
        first, last = max(first, 0), min(last, len(self))
        if first >= last:
            return self._file.schema_arrow.empty_table().select(list(columns)).to_pandas()
        at = np.searchsorted(self._begin, [first, max(last - 1, first)], side="right") - 1
        groups = list(range(int(at[0]), min(int(at[1]), self._file.num_row_groups - 1) + 1))
        held = self._file.read_row_groups(groups, columns=list(columns))
        frame = held.slice(first - int(self._begin[groups[0]]), max(last - first, 0)).to_pandas()
        frame.index = pd.RangeIndex(first, first + len(frame))
        return frame

    def sentence(self, row: int, columns: Sequence[str] = (), reach: int = 120) -> DataFrame:
        """The sentence around a token, at most `reach` tokens either side; untagged text: 20 tokens either side."""
        if not 0 <= row < len(self):
            raise ValueError(f"there is no token {row}; {len(self):,} were routed, from 0")
        wanted = dict.fromkeys(["document", "sentence", "text", *columns])
        frame = self.rows(row - reach, row + reach + 1, list(wanted))
        here = frame.loc[row]
        same = frame["document"] == here["document"]
        if here["sentence"] < 0:
            near = pd.Series(abs(frame.index.to_numpy() - row) <= 20, index=frame.index)
            return frame[same & near]
        return frame[same & (frame["sentence"] == here["sentence"])]


def save_tokens_part(folder: Path, number: int, columns: Mapping[str, Any]) -> None:
    """Write the tokens of one shard."""
    _write_part(folder, TOKENS, number, [pa.table(dict(columns), schema=TOKEN_SCHEMA)])


def save_routes_part(folder: Path, condition: str, number: int, layers: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Write the routes of one shard: for each layer that routes, `kept`, `experts` (n, k) and `weights` (n, k)."""
    _write_part(folder, routes_name(condition), number, [_routes_table(layer) for layer in layers])


def put_together(
    run_folder: Path, condition: str, parts: Iterable[int], layers: Sequence[int], n_experts: Sequence[int], k: int
) -> None:
    """Make `routes*.parquet` (for `real` also `routed_tokens.parquet`) from the parts with these numbers, in order.

    One layer's rows are held at a time.  The parts stay; `remove_parts` takes them away.
    """
    numbers = sorted(parts)
    if condition == "real":
        tables = (reading(_part(run_folder, TOKENS, n), pq.read_table) for n in numbers)
        _write(run_folder / f"{TOKENS}.parquet", _groups(tables, TOKEN_SCHEMA), TOKEN_SCHEMA)
    name = routes_name(condition)
    files = [reading(_part(run_folder, name, n), pq.ParquetFile) for n in numbers]
    n_tokens = sum(f.metadata.num_rows for f in files) // max(len(layers), 1)
    about = {"layers": list(layers), "n_experts": list(n_experts), "k": k, "n_tokens": n_tokens}
    schema = _routes_schema(k).with_metadata({"routes": json.dumps(about)})
    whole = (pa.concat_tables([f.read_row_group(at) for f in files]) for at in range(len(layers)))
    _write(run_folder / f"{name}.parquet", whole, schema)


def remove_parts(run_folder: Path) -> None:
    """Remove what a pass left on its way."""
    shutil.rmtree(run_folder / PARTS, ignore_errors=True)


def _groups(tables: Iterator[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of `ROWS`."""
    held = schema.empty_table()
    for table in tables:
        held = pa.concat_tables([held, table])
        while held.num_rows >= ROWS:
            yield held.slice(0, ROWS)
            held = held.slice(ROWS).combine_chunks()
    if held.num_rows:
        yield held


def _routes_schema(k: int) -> pa.Schema:
    experts = [(f"expert_{slot}", pa.int16()) for slot in range(k)]
    return pa.schema([("kept", pa.bool_()), *experts, *((f"weight_{slot}", pa.float16()) for slot in range(k))])


def _routes_table(layer: Mapping[str, np.ndarray]) -> pa.Table:
    experts, weights = layer["experts"].astype(np.int16), layer["weights"].astype(np.float16)
    k = experts.shape[1]
    columns = [pa.array(layer["kept"])]
    columns += [pa.array(np.ascontiguousarray(experts[:, slot])) for slot in range(k)]
    columns += [pa.array(np.ascontiguousarray(weights[:, slot])) for slot in range(k)]
    return pa.Table.from_arrays(columns, schema=_routes_schema(k))


def _opened(path: Path) -> pq.ParquetFile:
    return reading(path, lambda p: pq.ParquetFile(p, memory_map=True))


def _part(run_folder: Path, name: str, number: int) -> Path:
    return run_folder / PARTS / f"{name}-{number:07d}.parquet"


def _write_part(run_folder: Path, name: str, number: int, tables: Sequence[pa.Table]) -> None:
    path = _part(run_folder, name, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, iter(tables), tables[0].schema)


def _write(path: Path, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
    """One row group a table."""
    with replacing(path, sealed=True) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table.cast(schema).combine_chunks(), row_group_size=max(table.num_rows, 1))


def save_by_layer(path: Path, frames: Iterable[DataFrame]) -> None:
    """Write frames of one layer each as one file, a row group a frame; nothing is written where there are none."""
    parts = iter(frames)
    first = next(parts, None)
    if first is None:
        return
    schema = pa.Schema.from_pandas(first, preserve_index=False)
    rest = (pa.Table.from_pandas(frame, schema=schema, preserve_index=False) for frame in parts)
    _write(path, chain([pa.Table.from_pandas(first, schema=schema, preserve_index=False)], rest), schema)
