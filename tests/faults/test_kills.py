"""`kill -9` at moments drawn at random: the work done again ends with the tables of the work never stopped."""

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.work import KINDS, do, results, unequal
from tests.reproductions.record import record

Whole = Callable[[str], tuple[Path, int]]


def drawn(events: int, kills: int, seed: int) -> list[tuple[int, float]]:
    """An event for each kill, one from each equal stretch of the work, and how many seconds later; half at once."""
    rng = random.Random(seed)
    edges = [1 + (events - 2) * i / kills for i in range(kills + 1)]
    stretches = itertools.pairwise(edges)
    return [(round(rng.uniform(low, high)), rng.choice([0.0, rng.uniform(0, 0.01)])) for low, high in stretches]


def struck(kind: str, inputs: Path, done: tuple[Path, int], place: Path, kills: int, seed: int) -> dict[str, Any]:
    """How many of these kills landed while the work was under way, how many runs then went on, how many ended equal."""
    folder, events = done
    whole = results(kind, folder)
    assert whole and events > kills
    landed = resumed = equal = 0
    for number, (at, late) in enumerate(drawn(events, kills, seed)):
        cut = place / f"cut-{number}"
        if do(kind, inputs, cut, at, late) is not None:
            continue
        landed += 1
        left = do(kind, inputs, cut)
        assert left is not None
        resumed += left < events
        different = unequal(results(kind, cut), whole)
        assert not different, f"{kind} killed at event {at} of {events} (+{late:.4f} s) ends with another {different}"
        equal += 1
    return {"events": events, "kills": kills, "landed": landed, "resumed": resumed, "equal": equal}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_at_any_moment_changes_nothing(kind: str, inputs: Path, whole: Whole, tmp_path: Path) -> None:
    found = struck(kind, inputs, whole(kind), tmp_path, kills=1, seed=KINDS.index(kind))
    assert found["equal"] == found["landed"]


@pytest.mark.reproduction
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_kills_change_nothing(kind: str, inputs: Path, whole: Whole, tmp_path: Path) -> None:
    found = struck(kind, inputs, whole(kind), tmp_path, kills=20, seed=100 + KINDS.index(kind))
    record(f"kills_{kind}", {"kind": kind, "moments": "one from each of 20 equal stretches of the events"}, found)
    assert found["landed"] >= 15 and found["resumed"] >= 5
