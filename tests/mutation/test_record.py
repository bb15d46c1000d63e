"""The record of mutants is the seeded sample of the sources as they stand, nothing in it survives unexplained."""

import json
from pathlib import Path

import pytest

from tests.mutation.mutants import mutants, mutated, sample
from tests.mutation.targets import TARGETS

ROOT = Path(__file__).parents[2]
RECORD = json.loads((Path(__file__).parent / "results.json").read_text())
REASONS = json.loads((Path(__file__).parent / "equivalent.json").read_text())
SOURCE = '''"""A + b."""
def outer(a: "x + 1", b=1 + 1):
    def inner():
        return a / b
    if a < b:
        raise ValueError(f"{a + b}")
    return -a[0] + inner()
def other(a):
    return a[0] - a[0]
class Law:
    size: int = 3 + 4
    def __call__(self):
        return range(2)
'''


@pytest.mark.parametrize("module", TARGETS)
def test_the_record_is_the_sample_of_the_source(module: str) -> None:
    held = RECORD["mutants"].get(module, {})
    chosen = sample((ROOT / module).read_text(), max(2, len(held)), f"{RECORD['seed']}:{module}")
    assert sorted(held) == sorted(m.name for m in chosen), f"try again: python -m tests.mutation {module}"


def test_what_survives_has_its_reason() -> None:
    verdicts = {(m, name): v for m, found in RECORD["mutants"].items() for name, v in found.items()}
    assert RECORD["mutants"].keys() <= TARGETS.keys()
    assert {key for key, verdict in verdicts.items() if verdict != "killed"} == {
        (module, name) for module, reasons in REASONS.items() for name in reasons
    }
    assert len(verdicts) == RECORD["n"] == RECORD["killed"] + RECORD["equivalent"] and RECORD["survived"] == 0
    assert RECORD["n"] >= 75


def test_formulas_are_changed_and_nothing_that_a_person_reads() -> None:
    names = [m.name for m in mutants(SOURCE)]
    assert names == [
        "outer.inner: a / b -> a / (b + 1) (denominator)",
        "outer.inner: a / b -> a * b (product)",
        "outer: a < b -> a <= b (comparison)",
        "outer: -a[0] -> +a[0] (negation)",
        "outer: -a[0] + inner() -> -a[0] - inner() (sign)",
        "outer: a[0] -> a[1] (index)",
        "other: a[0] -> a[1] (index)",
        "other: a[0] - a[0] -> a[0] + a[0] (sign)",
        "other: a[0] -> a[1] (index 2)",
        "Law.__call__: range(2) -> range(3) (constant)",
    ]


def test_each_mutant_is_one_change_and_each_another() -> None:
    made = {mutated(SOURCE, m) for m in mutants(SOURCE)}
    assert len(made) == len(mutants(SOURCE)) and SOURCE not in made
    second = next(m for m in mutants(SOURCE) if m.name == "other: a[0] -> a[1] (index 2)")
    assert "return a[0] - a[1]" in mutated(SOURCE, second) and "return -a[0] + inner()" in mutated(SOURCE, second)


def test_the_sample_stays_when_lines_move() -> None:
    moved = SOURCE.replace("def other", "def more(x):\n    y = x\n    return y\ndef other")
    for n in (1, 3, 99):
        assert [m.name for m in sample(SOURCE, n, "s")] == [m.name for m in sample(moved, n, "s")]
    assert [m.name for m in sample(SOURCE, 3, "s")] != [m.name for m in sample(SOURCE, 3, "t")]
