"""Keeps what a pass shows it: the slow, obvious oracle."""

from typing import Any

import numpy as np
import torch

from probes.sinks import KEPT
from probes.stream import Observation


class Everything:
    sites = ("gate", "neurons", "ffn_input", "ffn_output")

    def __init__(self) -> None:
        self.seen: list[Observation] = []

    def update(self, seen: Observation) -> None:
        self.seen.append(seen)

    def merge(self, other: Any) -> None:
        self.seen += other.seen

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def restore(self, state: Any) -> None: ...

    def tables(self) -> Any: ...

    def of(self, layer: int, site: str, group: int = KEPT) -> torch.Tensor:
        return torch.cat([s.sites[site][s.group == group] for s in self.seen if s.layer == layer])
