"""The palette against the mathematics of contrast and colour blindness; the sizes against print."""

import tomllib
from itertools import combinations
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

import app
from app.figures import theme

# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(first: str, second: str) -> float:
    dim, bright = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (first, second))
    return (bright + 0.05) / (dim + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.119192, 0.9503041]]
    )
    x, y, z = np.cbrt(np.clip(to_xyz @ np.clip(rgb, 0, 1), 1e-6, None) / [0.95047, 1.0, 1.08883])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("dark", [False, True])
def test_every_series_colour_stands_out_from_its_ground(dark: bool) -> None:
    assert min(contrast(c, theme.GROUND[dark]) for c in theme.PALETTE[dark]) >= 3
    assert min(contrast(c[dark], theme.GROUND[dark]) for c in (theme.INK, theme.QUIET)) >= 4.5


@pytest.mark.parametrize("blindness", sorted(BLINDNESS))
@pytest.mark.parametrize("dark", [False, True])
def test_conditions_stay_apart_to_a_colour_blind_eye(dark: bool, blindness: str) -> None:
    colours = [theme.condition(c, dark=dark).colour for c in ("real", "gaussian", "random_init", "shuffled")]
    seen = [lab(np.array(BLINDNESS[blindness]) @ linear(c)) for c in colours]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) > 10


def test_conditions_differ_without_colour() -> None:
    looks = [theme.condition(c) for c in ("real", "gaussian", "random_init", "shuffled")]
    assert len({look.dash + look.symbol for look in looks}) == 4


@pytest.mark.parametrize(("width", "inches"), [("column", 3.25), ("text", 5.5), ("wide", 6.75)])
def test_print_sizes(width: theme.Width, inches: float) -> None:
    figure = theme.style(go.Figure(), width=width)
    assert figure.layout.width == pytest.approx(inches * 96, abs=0.5)
    sizes = [figure.layout.template.layout.font.size, figure.layout.template.layout.xaxis.tickfont.size]
    assert all(7 <= pixels * 72 / 96 <= 9 for pixels in sizes)


def test_style_is_not_swayed_by_the_default_template() -> None:
    import plotly.io as pio

    before = pio.templates.default
    plain = theme.style(go.Figure(go.Scatter(x=[1], y=[2])), width="text").to_json()
    try:
        pio.templates.default = "plotly_dark"
        assert theme.style(go.Figure(go.Scatter(x=[1], y=[2])), width="text").to_json() == plain
    finally:
        pio.templates.default = before


def test_unknown_width_is_refused() -> None:
    with pytest.raises(ValueError, match="poster"):
        theme.style(go.Figure(), width="poster")  # type: ignore[arg-type]


def test_alt_text_is_kept_with_the_figure() -> None:
    assert theme.style(go.Figure(), alt="A line falls.").layout.meta["alt"] == "A line falls."


def test_a_legend_of_many_rows_does_not_take_its_height_from_the_plot() -> None:
    def high(n: int, name: str, width: theme.Width = "column") -> int:
        figure = go.Figure([go.Bar(x=[1], y=[1], name=f"{name} {i}") for i in range(n)])
        return int(theme.style(figure, width=width).layout.height)

    plain = theme.pixels(3.25 * 0.72)
    assert high(1, "a") == high(3, "a") == high(2, "as long as half of the column") == plain
    assert high(5, "as long as half of the column") > plain + 50
    assert high(5, "a third of the width", "wide") == theme.pixels(6.75 * 0.52)


def test_titles_longer_than_their_axis_break_in_print_only() -> None:
    long, short = "Experts kept from one token to the next (%)", "Loss (nats)"

    def titled(width: theme.Width) -> list[str]:
        figure = make_subplots(rows=3, cols=1)
        for row, text in enumerate((long, short, "Unbreakable" * 9), 1):
            figure.update_yaxes(title=text, row=row)
        return [axis.title.text for axis in theme.style(figure, width=width).select_yaxes()]

    assert titled("screen") == [long, short, "Unbreakable" * 9]
    first, *others = titled("column")
    assert first.split("<br>") == ["Experts kept from one", "token to the next (%)"]
    assert others[1] == "Unbreakable" * 9
    alone = theme.style(go.Figure().update_yaxes(title="Neurons firing (% of tokens)"), width="column")
    assert "<br>" not in alone.layout.yaxis.title.text


@pytest.mark.parametrize("dark", [False, True])
def test_page_and_figure_text_meets_the_contrast_of_wcag(dark: bool) -> None:
    """Text 4.5 to 1 (1.4.3), marks and scales 3 to 1 (1.4.11), on the page's own grounds and on hover labels."""
    settings = tomllib.loads((Path(app.__file__).parent / "dashboard" / ".streamlit" / "config.toml").read_text())
    page = settings["theme"]["dark" if dark else "light"]
    for ground in (page["backgroundColor"], page["secondaryBackgroundColor"]):
        assert contrast(page["textColor"], ground) >= 7
        assert contrast(theme.INK[dark], ground) >= 7 and contrast(theme.QUIET[dark], ground) >= 4.5
        assert min(contrast(colour, ground) for colour in theme.PALETTE[dark]) >= 3
    assert contrast(page["primaryColor"], page["backgroundColor"]) >= 4.5
    assert contrast("#ffffff", page["primaryColor"]) >= 3, "words on a button; in the dark no blue has 4.5 to both"
    assert contrast(theme.INK[dark], theme.GRID[dark]) >= 4.5, "hover labels"
