"""Files and datasets read one document at a time; whatever cannot be read is told with its file and line."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.lines import MAX_LINE, CorpusError, lines

PART = 200_000
"""Plain text longer than this many characters is cut into several documents, at the next empty line."""


@dataclass(frozen=True)
class Document:
    """One text with the register it belongs to and whatever else is known about it."""

    name: str
    text: str
    domain: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fields:
    """Which columns of a table or keys of a JSON object are read as what."""

    text: str = "text"
    domain: str = "domain"
    name: str = "document"


def read_text(path: Path, fields: Fields, encoding: str) -> Iterator[Document]:
    """A .txt or .md file: one document, or several of about `PART` characters if it is long."""
    held: list[str] = []
    size = part = 0
    for _, line in lines(path, encoding):
        held.append(line.replace("\r\n", "\n"))
        size += len(line)
        if size >= PART and (not line.strip() or size >= 2 * PART):
            part += 1
            yield Document(f"{path.name}#{part}", "".join(held))
            held, size = [], 0
    yield Document(f"{path.name}#{part + 1}" if part else path.name, "".join(held))


def read_jsonl(path: Path, fields: Fields, encoding: str) -> Iterator[Document]:
    """A .jsonl file: one document a line, the line an object with a text and perhaps a domain and more."""
    for number, line in lines(path, encoding):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line.rstrip())
        except json.JSONDecodeError as error:
            raise CorpusError(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
        except RecursionError as error:
            raise CorpusError(f"{where}: JSON nested too deep to read") from error
        except ValueError as error:  # a number of thousands of digits
            raise CorpusError(f"{where}: not JSON ({_first_line(error)})") from error
        if not isinstance(row, dict):
            raise CorpusError(f"{where}: a JSON {type(row).__name__}, not an object with the key '{fields.text}'")
        yield _from_row(row, fields, where, f"{path.name}:{number}")


def read_csv(path: Path, fields: Fields, encoding: str) -> Iterator[Document]:
    """A .csv (or .tsv) file with a header: one document a row."""
    number = 0

    def counted() -> Iterator[str]:
        nonlocal number
        for number, line in lines(path, encoding):  # noqa: B007 - the row's line is told in errors
            yield line

    reader = csv.reader(counted(), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    header: list[str] | None = None
    while True:
        began = number + 1
        row = _csv_row(reader, path, began)
        if row is None:
            break
        if not row:
            continue
        if header is None:
            header = row
            _need(header, fields, f"{path}, line {began}")
        elif len(row) != len(header):
            raise CorpusError(f"{path}, line {began}: {len(row)} cells where the header has {len(header)}")
        else:
            yield _from_row(
                dict(zip(header, row, strict=True)), fields, f"{path}, line {began}", f"{path.name}:{began}"
            )


def _csv_row(reader: Iterator[list[str]], path: Path, line: int) -> list[str] | None:
    # The csv module's cell limit (131,072) is global: raised for one row only and put back.
    limit = csv.field_size_limit(MAX_LINE)
    try:
        return next(reader, None)
    except csv.Error as error:
        raise CorpusError(f"{path}, line {line}: not CSV ({error})") from error
    finally:
        csv.field_size_limit(limit)


def read_parquet(path: Path, fields: Fields, encoding: str) -> Iterator[Document]:
    """A .parquet file: one document a row, 1,000 rows in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            _need(file.schema_arrow.names, fields, str(path))
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield _from_row(row, fields, f"{path}, row {number}", f"{path.name}:{number}")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}, after row {number}: not readable as parquet ({_first_line(error)})") from error


def read_dataset(name: str, fields: Fields, split: str, streaming: bool) -> Iterator[Document]:
    """A dataset of the Hugging Face hub or of a local folder, through `datasets`: one document a row.

    `name` is `OWNER/NAME`, `OWNER/NAME:CONFIG`, or a folder written by `Dataset.save_to_disk` or holding data files.
    """
    import datasets

    where = f"hf:{name}, split '{split}'"
    folder = Path(name)
    try:
        if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
            found = datasets.load_from_disk(name)
            rows = found[split] if isinstance(found, datasets.DatasetDict) else found
        else:
            path, _, config = (name, "", "") if folder.exists() else name.partition(":")
            rows = datasets.load_dataset(path, config or None, split=split, streaming=streaming)
    except Exception as error:  # datasets raises dozens of kinds, most of them its own
        raise CorpusError(
            f"{where} cannot be opened ({type(error).__name__}: {_first_line(error)}); check the name, the split and "
            "the network, or give a local file or folder"
        ) from error
    if rows.column_names is not None:
        _need(rows.column_names, fields, where)
    for number, row in enumerate(rows, 1):
        yield _from_row(row, fields, f"{where}, row {number}", f"{split}:{number}")


def read_treebank(path: Path, fields: Fields, encoding: str) -> Iterator[Document]:
    """A .conllu treebank: one document a `# newdoc`; `data.conllu.GoldTagger` holds its tags."""
    # Not at the top: data.conllu builds on this module.
    from data.conllu import read_conllu

    for gold in read_conllu(path):
        yield Document(gold.name, gold.text)


def _need(columns: list[str], fields: Fields, where: str) -> None:
    if fields.text not in columns:
        there = ", ".join(columns) or "none"
        raise CorpusError(f"{where}: no column '{fields.text}' (columns: {there}); name the column that holds the text")


def _from_row(row: Mapping[str, Any], fields: Fields, where: str, name: str) -> Document:
    if fields.text not in row:
        _need(list(row), fields, where)
    text = row[fields.text]
    if text is None:
        text = ""
    if not isinstance(text, str):
        raise CorpusError(f"{where}: '{fields.text}' holds a {type(text).__name__}, not a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON may hold "\\ud800"; no tokenizer takes it
        half = f"U+{ord(text[error.start]):04X}"
        raise CorpusError(
            f"{where}: character {error.start + 1} of '{fields.text}' is half a surrogate pair ({half})"
        ) from error
    rest = {k: v for k, v in row.items() if k not in (fields.text, fields.domain, fields.name)}
    plain = {k: v if isinstance(v, (str, int, float, bool, type(None))) else str(v) for k, v in rest.items()}
    domain = row.get(fields.domain)
    given = row.get(fields.name)
    return Document(
        name if given is None else str(given), text, domain="" if domain is None else str(domain), metadata=plain
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


Reader = Callable[[Path, Fields, str], Iterator[Document]]
READERS: Mapping[str, Reader] = {
    ".txt": read_text,
    ".md": read_text,
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".conllu": read_treebank,
}
"""Reader by file suffix."""


def read_path(path: Path, fields: Fields, encoding: str) -> Iterator[Document]:
    """Documents of a file, or of every readable file below a folder, sorted by path.

    The domain of a document without one is the name of the folder its file lies in (for a single file: its stem).
    """
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in READERS and p.is_file() and _shown(p, path))
        if not files:
            raise CorpusError(f"{path} holds no {', '.join(READERS)} file")
        for file in files:
            inside = file.relative_to(path).parent.as_posix()
            for found in READERS[file.suffix.lower()](file, fields, encoding):
                name = found.name if inside == "." else f"{inside}/{found.name}"
                yield Document(name, found.text, found.domain or file.parent.name, found.metadata)
        return
    if path.suffix.lower() not in READERS:
        raise CorpusError(f"{path}: no reader for '{path.suffix}'; there are {', '.join(READERS)} and folders of them")
    empty = True
    for found in READERS[path.suffix.lower()](path, fields, encoding):
        empty = empty and not found.text.strip()
        yield Document(found.name, found.text, found.domain or path.stem, found.metadata)
    if empty:
        raise CorpusError(f"{path}, line 1: the file is empty" if path.stat().st_size == 0 else f"{path} holds no text")


def _shown(path: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(root).parts)
