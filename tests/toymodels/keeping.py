"""Where long reproductions leave their numbers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data import Config
from data.runs import provenance

FOLDER = Path(__file__).parents[1] / "reproductions"


def keep(name: str, config: Config, seed: int, results: Mapping[str, Any]) -> None:
    """Write tests/reproductions/NAME.json: settings, provenance, results; NaN becomes null."""
    settings = config.model_dump(mode="json")
    value = {"settings": settings, "provenance": provenance(seed=seed, settings=settings), "results": results}
    plain = json.loads(json.dumps(value, default=float), parse_constant=lambda _: None)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(plain, indent=1) + "\n")


def tell(done: float, total: float, note: str = "") -> None:
    """Progress for a person who watches a long reproduction with `pytest -s`."""
    print(f"{done:.2f}/{total} {note}", flush=True)
