"""The pictures of README, made from real runs: `python -m tests.gallery.make [--runs FOLDER]`.

Toy runs that are missing are trained first (some minutes), the others ship; then figures are exported and pages
photographed in headless Chromium.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.app.test_browser import ARGUMENTS, CHROMIUM

HERE = Path(__file__).parent
TOYS = ("pentagon", "basic", "phase", "uniform")
FIGURES = {
    "toy-polytope": "pentagon",
    "toy-dynamics": "pentagon",
    "toy-features": "basic",
    "toy-matrices": "basic",
    "toy-phase": "phase",
    "toy-staircase": "uniform",
    "keeping-curve": "demo",
    "kinds-bands": "demo",
    "sparsity-firing": "demo",
    "sparsity-energy": "demo",
    "coherence-recovery": "demo",
}
"""Figure -> the run it is drawn from."""
PAGES = {
    "overview": "?run=demo",
    "sparsity": "sparsity?run=demo",
    "toy-lab": "toy_lab",
    "claims": "claims",
    "coherence": "coherence?run=demo",
    "experts": "experts?run=tinymoe-experts&layer=2&expert=0&label=VERB",
    "training": "training?run=tinymoe-snapshots",
}


def main() -> None:
    """Measure what is missing, then draw all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs to draw from and to fill")
    runs = parser.parse_args().runs.resolve()
    os.environ["SPARSESCOPE_RUNS"] = str(runs)
    for preset in TOYS:
        if not (runs / preset / "toy_room.parquet").exists() and not list((runs / preset).glob("toy_p*.parquet")):
            sparsescope("toy", "run", preset)
    export()
    photograph(runs)


def sparsescope(*words: str) -> None:
    print("+ sparsescope", *words, flush=True)
    subprocess.run([sys.executable, "-c", "from app.cli import main; main()", *words], check=True)


def export() -> None:
    from app import export as exporting
    from app.figures import catalogue
    from data import open_run

    for name, run in FIGURES.items():
        entry = catalogue.find(name)
        figure = entry.draw(open_run(run).tables(), width="text")
        exporting.draw([(figure, HERE / f"{name}.png")])
        print(HERE / f"{name}.png")


def photograph(runs: Path) -> None:
    from playwright.sync_api import sync_playwright

    from app.server import pick_port, serving

    port = pick_port()
    with serving(runs, port, wait=300), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1360, "height": 900})
        page.set_default_timeout(300_000)
        for name, place in PAGES.items():
            page.goto(f"http://127.0.0.1:{port}/{place}", wait_until="commit")
            page.wait_for_selector("h1")
            if name == "toy-lab":
                page.get_by_role("button", name="Run", exact=True).click()
                page.get_by_role("button", name="Keep as a run").wait_for()
            page.wait_for_timeout(2_000)
            page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
            page.wait_for_timeout(4_000)
            page.screenshot(path=HERE / f"page-{name}.png")
            print(HERE / f"page-{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
