"""What is needed to make a run again."""

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from data.config import digest

_VERSIONED = (
    "sparsescope",
    "torch",
    "transformers",
    "transformer-lens",
    "sae-lens",
    "numpy",
    "pandas",
    "spacy",
)


def provenance(
    *, seed: int | None, settings: Mapping[str, Any], hashes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """All that is needed to make the run again: versions, seed, commit, settings digest, hashes, machine, time."""
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings_digest": digest(settings),
        "seed": seed,
        "commit": _commit(Path(__file__).resolve().parents[1]),
        "hashes": dict(hashes or {}),
        "versions": {name: v for name in _VERSIONED if (v := _version(name))},
        "python": sys.version.split()[0],
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit(root: Path) -> str | None:
    # Only a checkout of this project: an installed copy may lie inside somebody else's repository.
    if not (root / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        found = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
        return found.stdout.strip() or None
    return None
