"""Verdicts with the router counted, on errors by document that are written down."""

import numpy as np
import pandas as pd
import pytest
from pandas import DataFrame

from probes.secret.ratios import KEY, by_student, counted

N = 30


def planted(error: float, *, method: str, n_active: int, active: int, router: int = 0) -> tuple[dict, DataFrame]:
    key = (3, "real", method, 8, n_active, 1, 100, 0)
    row = dict(zip(KEY, key, strict=True)) | {
        "active": active,
        "active_with_router": active + router,
        "router": router,
        "stored": 10 * active,
    }
    spread = np.random.default_rng(n_active + router).uniform(1, 2, N)
    noise = np.random.default_rng(active).normal(1, 0.02, N)
    frame = DataFrame({"document": range(N), "error": error * spread * noise, "spread": spread})
    return row, frame.assign(**dict(zip(KEY, key, strict=True)), n_tokens=500)


@pytest.mark.parametrize(("level", "verdict"), [(0.3, "wins"), (0.9, "loses"), (0.5, "undecided")])
def test_the_mixture_is_set_against_a_dense_student_that_pays_for_its_router(level: float, verdict: str) -> None:
    students = [
        planted(0.8, method="dense", n_active=64, active=640),
        planted(0.5, method="dense", n_active=96, active=960),
        planted(0.1, method="dense", n_active=256, active=2560),
        planted(level, method="closed_form", n_active=64, active=640, router=320),
    ]
    held = by_student(pd.concat([frame for _, frame in students]))
    found = counted(DataFrame([row for row, _ in students]), held)
    assert len(found) == 1
    one = found.iloc[0]
    assert (one["n_active"], one["n_active_dense"], one["active_dense"]) == (64, 96, 960)
    assert one["ratio"] == pytest.approx(0.5 / level, rel=0.05) and one["low"] < one["ratio"] < one["high"]
    assert one["ratio"] == pytest.approx(held[3, "real", "dense", 8, 96, 1, 100, 0].error.sum()
                                         / held[3, "real", "closed_form", 8, 64, 1, 100, 0].error.sum())  # fmt: skip
    assert one["verdict"] == verdict


def test_no_verdict_without_a_dense_student_large_enough() -> None:
    students = [
        planted(0.8, method="dense", n_active=64, active=640),
        planted(0.3, method="closed_form", n_active=64, active=640, router=320),
    ]
    held = by_student(pd.concat([frame for _, frame in students]))
    assert not len(counted(DataFrame([row for row, _ in students]), held))
