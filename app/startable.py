"""Measurements of a language model that a form can start: what each asks for, and the settings it makes of that.

`kind` of the run is `probe.NAME`; `app.jobs.WORK` says what does it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.laziness import KeepConfig, KindsConfig, LadderConfig
from app.memory import MemoryConfig
from app.rank import RankConfig
from app.saes import SaeRun
from app.sparsity import SparsityConfig


def _tokens(size: int, seed: int) -> dict[str, Any]:
    return {"n_tokens": size, "seed": seed}


@dataclass(frozen=True)
class Probe:
    """One measurement as a form shows it."""

    name: str
    title: str
    what: str
    """One sentence saying what it answers."""
    config: type[Any]
    """Settings with `model` and `corpus`."""
    size: int
    """How much is read unless something else is asked for."""
    unit: str = "Tokens"
    """What `size` counts."""
    settings: Callable[[int, int], dict[str, Any]] = _tokens
    """Size and seed -> settings."""


PROBES = {
    probe.name: probe
    for probe in (
        Probe(
            "sparsity",
            "Sparsity, beside its controls",
            "How many neurons fire, how the energy is spread, how many neurons are specialised.",
            SparsityConfig,
            20_000,
        ),
        Probe(
            "keep",
            "Keeping few neurons",
            "What the model loses when only its largest neurons work, or always the same ones.",
            KeepConfig,
            4_000,
        ),
        Probe(
            "kinds",
            "Word classes of neurons",
            "On which word classes rare and specialised neurons fire, against two nulls.",
            KindsConfig,
            20_000,
        ),
        Probe(
            "ladder",
            "Sparsity ladder",
            "How large a share of its units each block uses, and in how many combinations.",
            LadderConfig,
            4_000,
        ),
        Probe(
            "rank",
            "Rank",
            "Do the tokens of a text become one vector, and what prevents it?",
            RankConfig,
            8,
            "Windows",
            lambda size, seed: {"n_windows": size, "seed": seed},
        ),
        Probe(
            "memory",
            "Memories",
            "What makes each neuron fire, what it writes, and whether the two agree.",
            MemoryConfig,
            20_000,
        ),
        Probe(
            "sae",
            "Sparse autoencoder",
            "How much of the middle layer a few active directions rebuild, beside principal components.",
            SaeRun,
            20_000,
            settings=lambda size, seed: {"sae": {"n_tokens": size, "seed": seed}},
        ),
    )
}
"""Measurements by the last part of their kind."""
