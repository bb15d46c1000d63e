"""What a reproduction leaves behind: its settings, its numbers and its provenance, as JSON beside the test."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.runs import provenance

HERE = Path(__file__).parent


def record(name: str, settings: Mapping[str, Any], measured: Mapping[str, Any], seed: int = 0) -> None:
    """Write NAME.json; what is not a number becomes null."""
    made = {
        "settings": dict(settings),
        "measured": dict(measured),
        "provenance": provenance(seed=seed, settings=settings),
    }
    plain = json.loads(json.dumps(made, default=float), parse_constant=lambda _: None)
    (HERE / f"{name}.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def tell(done: float, total: float, note: str = "") -> None:
    """Progress for a person who watches a long reproduction with `pytest -s`."""
    print(f"{done:.2f}/{total} {note}", flush=True)
