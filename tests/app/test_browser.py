"""The dashboard in headless Chromium: every page opens, follows its links, and asks nothing of the network."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import app
from app import jobs
from app.server import pick_port, serving, url
from data import Tables
from data.runs import create

CHROMIUM = shutil.which(os.environ.get("CHROMIUM", "chromium")) or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGES = [path.stem for path in sorted((Path(app.__file__).parent / "pages").glob("*.py")) if path.stem != "__init__"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium, or name one in $CHROMIUM"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium) -> Iterator:
    """A page that fails the test if it asks for anything outside this machine."""
    asked: list[str] = []
    context = chromium.new_context(viewport={"width": 1360, "height": 900}, accept_downloads=True)
    context.on("request", lambda request: asked.append(request.url))
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    yield tab
    context.close()
    outside = [a for a in asked if urlsplit(a).scheme in ("http", "https", "ws", "wss") and not loopback(a)]
    assert asked and not outside


def loopback(address: str) -> bool:
    return urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tables: Tables) -> Path:
    """A folder of runs with one finished run, `first`."""
    place = tmp_path_factory.mktemp("served") / "runs"
    made = create("first", {"model": "m", "corpus": "c"}, kind="probe.sparsity", root_folder=place)
    made.save_tables(tables)
    made.report("done", 1, 1)
    return place


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    chosen = pick_port(first=8700)
    with serving(folder, chosen):
        yield chosen


def test_every_page_opens_from_the_menu_without_an_error(page, port: int) -> None:
    page.goto(url(port))
    page.wait_for_selector("h1")
    links = page.locator('[data-testid="stSidebarNavLink"]')
    assert links.count() >= 4
    for i in range(links.count()):
        links.nth(i).click()
        page.wait_for_selector("h1")
        page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
        assert page.locator('[data-testid="stException"]').count() == 0
        assert page.locator("h1").inner_text()


def test_a_deep_link_may_be_the_first_thing_asked_of_a_server(page, folder: Path) -> None:
    port = pick_port()
    with serving(folder, port):
        page.goto(url(port, "sparsity"))
        page.wait_for_selector("h1")
        page.get_by_role("link", name="Toy lab").wait_for()
        assert page.get_by_role("link", name="toy lab", exact=True).count() == 0, "Streamlit's own list of files shows"


def test_a_link_opens_the_same_state_in_a_fresh_browser(page, port: int, chromium) -> None:
    page.goto(url(port, "sparsity", run="first"))
    page.wait_for_selector(".js-plotly-plot")
    page.get_by_role("radio", name="with", exact=True).click()
    page.wait_for_function("location.search.includes('sinks=with') && location.search.includes('run=first')")
    page.get_by_text("attention sinks included").first.wait_for()
    other = chromium.new_context().new_page()
    other.goto(page.url)
    other.get_by_text("attention sinks included").first.wait_for(timeout=60_000)
    other.context.close()


def test_figures_have_words_for_who_cannot_see_them(page, port: int) -> None:
    page.goto(url(port, "sparsity", run="first"))
    page.wait_for_selector(".js-plotly-plot")
    described = page.locator('[aria-label*="95% bootstrap intervals"], [alt*="95% bootstrap intervals"]')
    described.first.wait_for(state="attached")


def test_a_figure_is_downloaded_with_all_that_belongs_to_it(page, port: int, tmp_path: Path) -> None:
    import zipfile

    page.goto(url(port, "sparsity", run="first"))
    page.get_by_role("button", name="Download").first.click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Figure, data, caption").first.click()
    waiting.value.save_as(tmp_path / "figure.zip")
    names = zipfile.ZipFile(tmp_path / "figure.zip").namelist()
    assert {"sparsity-firing.csv", "sparsity-firing.txt", "sparsity-firing.tex"} <= set(names)
    assert {"sparsity-firing.pdf", "sparsity-firing.html"} & set(names)


def test_a_job_is_seen_and_cancelled_and_outlives_the_server(page, tmp_path: Path) -> None:
    (tmp_path / "works.py").write_text(
        "import time\ndef endless(run, progress):\n    i = 0\n    while True:\n        i += 1\n"
        "        progress(i, 1e9, '<b>counting</b>')\n        time.sleep(0.05)\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from app import jobs; "
        "jobs.WORK['endless'] = 'works:endless'; sys.exit(jobs.main())"
    )
    job = create("endless", {}, kind="endless", root_folder=tmp_path / "runs")
    jobs.start(job, command=(sys.executable, "-c", code))
    try:
        chosen = pick_port(first=8700)
        with serving(job.path.parent, chosen):
            page.goto(url(chosen, "jobs"))
            page.get_by_text("<b>counting</b>").wait_for()
        assert jobs.state(job) == "running"
        with serving(job.path.parent, chosen):
            page.goto(url(chosen, "jobs"))
            page.get_by_role("button", name="Cancel").click()
            page.get_by_text("Cancelled; start it again").first.wait_for()
        assert jobs.state(job) == "cancelled"
    finally:
        if jobs.state(job) == "running":
            jobs.cancel(job)


def test_markup_from_a_file_stays_text(page, port: int, folder: Path, tables: Tables) -> None:
    nasty = "<script>window.broken=1</script><img src=x onerror='window.broken=1'>"
    made = create("nasty", {"model": nasty, "corpus": nasty}, kind="probe.sparsity", root_folder=folder)
    made.save_tables(tables)
    from pandas import DataFrame

    made.save_table("inputs", DataFrame({"role": ["model"], "name": [nasty], "title": [nasty], "hash": ["0"]}))
    made.report("failed", error=nasty)
    for name in PAGES:
        page.goto(url(port, "" if name == "overview" else name, run="nasty"))
        page.wait_for_selector("h1")
        page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
        assert page.evaluate("window.broken") is None
    page.goto(url(port, "sparsity", run="nasty"))
    page.get_by_text("<script>window.broken=1</script>").first.wait_for()


def test_the_server_listens_on_loopback_only(port: int) -> None:
    addresses = {c.laddr.ip for c in listening(port)}
    assert addresses == {"127.0.0.1"}


def listening(port: int) -> list:
    import psutil

    return [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port]
