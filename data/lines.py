"""Lines of text files one at a time, and what is no text told with its file and line."""

from collections.abc import Iterator
from pathlib import Path

MAX_LINE = 10_000_000
"""Longest line that is read, in bytes; a longer one is a binary file or a whole corpus without line ends."""


class CorpusError(ValueError):
    """Text that cannot be read; the message is one sentence for a person, with file and line."""


def is_text(text: str) -> bool:
    """Whether the text can be written as UTF-8: half a surrogate pair, as JSON or a file's name may hold, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """(line number from 1, line with its end) of a text file, never more than one line in memory."""
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    try:
        with path.open("rb") as file:
            for number in range(1, 1 << 62):
                raw = file.readline(MAX_LINE + 1)
                if not raw:
                    return
                if len(raw) > MAX_LINE:
                    raise CorpusError(f"{path}, line {number}: longer than {MAX_LINE:,} bytes; break it into lines")
                if b"\0" in raw:
                    raise CorpusError(f"{path}, line {number}: holds zero bytes: a binary file, or UTF-16; give UTF-8")
                yield number, _decode(raw, encoding if number == 1 else encoding.removesuffix("-sig"), path, number)
    except CorpusError:
        raise
    except (OSError, ValueError) as error:  # a name may hold what no file's can
        raise CorpusError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _decode(raw: bytes, encoding: str, path: Path, number: int) -> str:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path}, line {number}: byte 0x{raw[error.start]:02x} at column {error.start + 1} is not "
            f"{encoding.removesuffix('-sig')}; save the file as UTF-8 or name its encoding (encoding='cp1252', say)"
        ) from error
    except (LookupError, ValueError) as error:
        raise CorpusError(f"'{encoding}' is not an encoding Python knows; try 'utf-8' or 'cp1252'") from error
