"""The explorer in headless Chromium: a click on a cell, a link to it, a typed sentence."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.server import pick_port, serving, url
from tests.app.routed_runs import NASTY, routed_run
from tests.app.test_browser import chromium, page, pytestmark  # noqa: F401  fixtures, and who is skipped


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder: Path = tmp_path_factory.mktemp("served") / "runs"
    routed_run(folder)
    chosen = pick_port(first=8760)
    with serving(folder, chosen):
        yield chosen


def settled(page) -> None:  # noqa: F811
    page.wait_for_selector(".js-plotly-plot .heatmaplayer")
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')


def test_a_click_on_a_cell_leads_to_its_sentences_and_a_link_to_both(page, port: int, chromium) -> None:  # noqa: F811
    page.goto(url(port, "experts", run="routed", layer="1"))
    settled(page)
    before = page.get_by_role("heading", name="Sentences:").inner_text()
    points = page.locator(".js-plotly-plot .scatterlayer .trace").first.locator("path.point")
    for i in range(points.count()):
        box = points.nth(i).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.wait_for_timeout(300)
        page.mouse.click(x, y)
        page.wait_for_timeout(1_500)
        settled(page)
        heading = page.get_by_role("heading", name="Sentences:").inner_text()
        if heading != before:
            break
    assert heading != before, "a click on a cell changes what is shown"
    page.locator("ol.routed li").first.wait_for()
    assert "expert=" in page.url or "label=" in page.url
    other = chromium.new_context().new_page()
    other.goto(page.url)
    other.get_by_role("heading", name=heading).wait_for(timeout=60_000)
    other.context.close()


def test_a_cell_is_reached_with_the_keyboard_alone(page, port: int) -> None:  # noqa: F811
    page.goto(url(port, "experts", run="routed", layer="1", expert="0", label="all"))
    settled(page)
    page.get_by_role("heading", name="Expert 0 of layer 1", exact=True).wait_for()
    focused = "document.activeElement.getAttribute('aria-label') || ''"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(focused).endswith("Expert of layer 1"):
            break
    assert page.evaluate(focused).endswith("Expert of layer 1"), "Tab leads to the list of experts"
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Expert 3 of layer 1", exact=True).wait_for()
    settled(page)
    assert "expert=3" in page.url


def test_tokens_with_markup_stay_text(page, port: int) -> None:  # noqa: F811
    for expert in range(6):  # two of them took the token
        page.goto(url(port, "experts", run="routed", label="all", expert=str(expert), token=NASTY))
        settled(page)
        page.get_by_text(re.compile(r"\d+ of \d+ such tokens went here")).first.wait_for()
        if page.locator("ol.routed").count():
            break
    page.locator("ol.routed").get_by_text(NASTY).first.wait_for()
    assert page.evaluate("window.broken") is None


def test_a_typed_sentence_is_routed_and_edited(page, port: int) -> None:  # noqa: F811
    page.goto(url(port, "experts", run="routed", view="sentence"))
    field = page.get_by_label("Sentence", exact=True)
    field.fill("She counted the lamps.")
    field.press("Control+Enter")
    page.get_by_text("As typed").wait_for()
    page.locator(".js-plotly-plot .heatmaplayer").first.wait_for(state="attached")
    edited = page.get_by_label("Edited", exact=True)
    edited.fill("She counted the seven lamps.")
    edited.press("Control+Enter")
    page.get_by_text("of the experts of the tokens that stayed are the same").wait_for()
