"""Where long reproductions leave their numbers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data import Config
from data.runs import provenance

FOLDER = Path(__file__).parents[1] / "reproductions"


def keep(name: str, config: Config, seed: int, results: Mapping[str, Any]) -> None:
    """Write tests/reproductions/NAME.json: settings, provenance, results."""
    settings = config.model_dump(mode="json")
    value = {"settings": settings, "provenance": provenance(seed=seed, settings=settings), "results": results}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(value, indent=1, default=float) + "\n")


def tell(done: float, total: float, note: str = "") -> None:
    """Progress for a person who watches a long reproduction with `pytest -s`."""
    print(f"{done:.2f}/{total} {note}", flush=True)
