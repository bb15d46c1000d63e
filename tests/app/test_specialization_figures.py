"""Figures of specialization, against the frames they are drawn from."""

import numpy as np
import pytest
from pandas import DataFrame

from app.figures import specialization


def _cells() -> DataFrame:
    rows = []
    for expert, shares in enumerate([(0.8, 0.2), (0.1, 0.9)]):
        for label, share, base in zip(("NOUN", "VERB"), shares, (0.45, 0.55), strict=True):
            row = {"condition": "real", "layer": 2, "labels": "word_class", "expert": expert, "label": label}
            row |= {"n": 1000 * share, "n_expert": 1000, "share": share, "low": share, "high": share, "base": base}
            row |= {
                "lift": share / base,
                "null": 0.5,
                "null_high": 0.6,
                "q": 0.2 if expert == 1 and label == "NOUN" else 0,
            }
            rows.append(row)
    return DataFrame(rows)


@pytest.mark.parametrize(("against", "control"), [("null", 0.5), ("base", 0.45)])
def test_heat_map_shows_lift_over_the_control_and_greys_what_is_unsure(against: str, control: float) -> None:
    grey, coloured = specialization.heat_map(_cells(), against=against).data
    assert list(coloured.x) == ["VERB", "NOUN"] and list(coloured.y) == ["1 (50.0%)", "0 (50.0%)"]
    z = np.array(coloured.z, dtype=float)
    assert z[1, 1] == pytest.approx(np.log2(0.8 / control))
    assert np.isnan(z[0, 1]) and np.argwhere(~np.isnan(np.array(grey.z, dtype=float))).tolist() == [[0, 1]]


def test_names_are_counted_with_their_controls() -> None:
    row = {"layer": 0, "evidence": "", "share": 0.5, "tokens": ""}
    names = DataFrame(
        [
            row | {"condition": c, "expert": e, "name": n}
            for c, e, n in [("real", 0, "verbs"), ("random_init", 0, "none")]
        ]
    )
    assert "1 of 1 (trained, real text); 0 of 1 (random weights)" in specialization.names_caption(names)
    assert specialization.name_table(names).data[0].cells.values[1] == ["verbs"]


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ValueError, match="no layer 7"):
        specialization.heat_map(_cells(), layer=7)
    with pytest.raises(ValueError, match="lacks the columns"):
        specialization.by_layer(_cells())


def test_random_directions_are_told_with_the_spread_of_their_draws() -> None:
    row = {"layer": 0, "labels": "word_class", "null_type": 0.1, "sd_type": 0.01, "z_type": 6.0, "n_tokens": 900}
    row |= {"within": 0.05, "null_within": 0.01, "untestable": 0.2}
    rows = [
        row | {"condition": "real", "mi": 0.3, "low": 0.28, "high": 0.32, "z_draws": 4.0},
        row
        | {"condition": "random_directions", "mi": 0.2, "low": 0.19, "high": 0.21, "n_draws": 5.0, "sd_draws": 0.025},
    ]
    told = specialization.by_layer_caption(DataFrame(rows))
    assert "over 5 routers" in told and "0.025-0.025 nats" in told and "4.0 to 4.0 of them above" in told
    without = DataFrame(rows).drop(columns=["z_draws", "n_draws", "sd_draws"])
    assert "routers" not in specialization.by_layer_caption(without)
