"""What a reproduction leaves behind: its settings, its numbers and its provenance, as JSON beside the test."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.runs import provenance

HERE = Path(__file__).parent


def record(name: str, settings: Mapping[str, Any], measured: Mapping[str, Any], seed: int = 0) -> None:
    made = {
        "settings": dict(settings),
        "measured": dict(measured),
        "provenance": provenance(seed=seed, settings=settings),
    }
    (HERE / f"{name}.json").write_text(json.dumps(made, indent=1, default=float) + "\n", encoding="utf-8")
