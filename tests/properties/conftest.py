"""Two profiles: quick in every test run, full by `HYPOTHESIS_PROFILE=full`, which keeps how many cases it ran."""

import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.probes.conftest import tokenizer  # noqa: F401
from tests.properties.judge import COUNTS

RECORD = Path(__file__).parent / "counts.json"
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")
GROWTH = 1 << 20
"""KiB by which the process may grow in a test."""

_common = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
_found = (Phase.explicit, Phase.generate)
settings.register_profile("quick", max_examples=8, derandomize=True, phases=_found, **_common)
settings.register_profile("full", max_examples=150, **_common)
settings.load_profile(PROFILE)


@pytest.fixture(autouse=True)
def bounded(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No network, runs and caches in a folder of the test's own, and no gigabyte for any input."""
    home = tmp_path_factory.mktemp("home")
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(home / "runs"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setattr("data.provenance._commit", lambda root: None)  # a process for each run folder made
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < GROWTH, f"the test took {grown / 1024:.0f} MiB"


def pytest_sessionfinish(exitstatus: int) -> None:
    """A full profile that holds keeps its counts, entry point by entry point; other slices' counts stay."""
    if PROFILE != "full" or not COUNTS or exitstatus:
        return
    held = json.loads(RECORD.read_text())["cases"] if RECORD.exists() else {}
    cases = dict(sorted((held | dict(COUNTS)).items()))
    RECORD.write_text(json.dumps({"total": sum(cases.values()), "cases": cases}, indent=1) + "\n")
