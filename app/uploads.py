"""Files that somebody gave the dashboard: bounded, and kept below the folder of runs under names of our own."""

import hashlib
from pathlib import Path

from data.files import replacing
from data.runs import root

SUFFIXES = (".npy", ".npz", ".safetensors", ".csv")
LARGEST = 200
"""MB of one file; the server refuses larger ones too (`maxUploadSize` in its settings)."""
TOGETHER = 2_000
"""MB of all kept files."""


def keep(name: str, content: bytes) -> Path:
    """Write the content to `uploads/` below the folder of runs, named by its SHA-256; the same content is kept once.

    Of the given name only the ending is used.  ValueError if that is none of SUFFIXES or there is too much already.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"a file that ends in '{suffix}' is not taken; give one of {', '.join(SUFFIXES)}")
    if len(content) > LARGEST * 10**6:
        raise ValueError(f"the file has {len(content) / 1e6:,.0f} MB; give one of at most {LARGEST}, or name its path")
    folder = root() / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (hashlib.sha256(content).hexdigest()[:16] + suffix)
    if target.exists() and not target.is_symlink():
        return target
    held = sum(path.lstat().st_size for path in folder.iterdir())
    if held + len(content) > TOGETHER * 10**6:
        raise ValueError(f"{folder} holds {held / 1e6:,.0f} MB of {TOGETHER:,}; delete what is not needed any more")
    with replacing(target) as temporary:
        temporary.write_bytes(content)
    return target
