"""The one property: bad input is answered with a finite result or refused by this project in one clear sentence.

`judge(entry, call)` counts a case for an entry point and holds it to that.  A refusal must be a ValueError raised in
this project's own code (or by pydantic, for settings): an error that comes out of a library's depths was met by chance.
"""

import dataclasses
import math
import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import torch

ROOT = Path(__file__).parents[2]
ROOMS = tuple(f"{ROOT / room}{os.sep}" for room in ("app", "data", "probes", "toymodels"))
SECONDS = 20.0
"""Processor time after which a case counts as hanging."""
COUNTS: Counter[str] = Counter()
"""Cases by entry point."""


def judge(entry: str, call: Callable[[], Any], *, nan: bool = False, inf: bool = False) -> Any:
    """The result of `call`, or None where it was refused as it should; AssertionError for anything else.

    `nan`, `inf`: the entry point's documentation promises them.
    """
    COUNTS[entry] += 1
    try:
        with _watched(entry):
            result = call()
    except ValueError as error:
        check_refusal(entry, error)
        return None
    except (AssertionError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise AssertionError(f"{entry} let {type(error).__name__} through: {error}") from error
    bad = [v for v in _numbers(result) if not np.isfinite(v).all()]
    assert nan or not any(np.isnan(v).any() for v in bad), f"{entry} answers NaN"
    assert inf or not any(np.isinf(v).any() for v in bad), f"{entry} answers infinity"
    return result


def check_refusal(entry: str, error: ValueError) -> None:
    """A refusal that a person can act on: ours, one sentence, no traceback and no object's address in it."""
    if not isinstance(error, pydantic.ValidationError):
        raised = traceback.extract_tb(error.__traceback__)[-1].filename
        assert raised.startswith(ROOMS), f"{entry}: {type(error).__name__} comes from {raised}: {error}"
    from app.telling import sentence

    words = sentence(error)
    assert len(words.split()) >= 3, f"{entry} refuses without a sentence: {words!r}"
    assert "Traceback" not in words and " object at 0x" not in words, f"{entry}: {words!r}"
    words.encode()  # it goes to a terminal: no half surrogate may be left in it


@contextmanager
def _watched(entry: str) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"{entry} takes more than {SECONDS:g} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _numbers(result: Any) -> Iterator[np.ndarray]:
    """Every number in a result."""
    if isinstance(result, bool | str | bytes | None):
        return
    if isinstance(result, int | float | complex | np.number):
        yield np.asarray(result if not isinstance(result, int) else math.copysign(1.0, result))
    elif isinstance(result, torch.Tensor):
        plain = result.detach().cpu()
        yield plain.to(torch.complex128 if plain.is_complex() else torch.float64).numpy()
    elif isinstance(result, np.ndarray):
        if result.dtype.kind in "fc":
            yield result
    elif isinstance(result, pd.DataFrame):
        for column in result:
            yield from _numbers(result[column])
    elif isinstance(result, pd.Series):
        if result.dtype.kind in "fc":
            yield result.to_numpy(dtype=np.float64)
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        for field in dataclasses.fields(result):
            yield from _numbers(getattr(result, field.name))
    elif isinstance(result, Mapping):
        for value in result.values():
            yield from _numbers(value)
    elif isinstance(result, list | tuple):
        for value in result:
            yield from _numbers(value)
