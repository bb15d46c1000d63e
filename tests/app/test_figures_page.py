"""The page of figures: on a run, on an empty folder, from a link; BibTeX that parses, fonts that are embedded."""

import re
import shutil
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import app
from app import export
from app.claims import CLAIMS
from app.figures.catalogue import catalogue, find
from app.figures.sources import BIBTEX
from app.figures.theme import INCHES, pixels
from data import Run

PAGE = Path(app.__file__).parent / "pages" / "figures.py"


def page(**query: str) -> AppTest:
    test = AppTest.from_file(str(PAGE), default_timeout=60)
    for key, value in query.items():
        test.query_params[key] = value
    return test.run()


def test_it_lists_the_runs_figures_with_caption_latex_and_command(run: Run) -> None:
    test = page()
    assert not test.exception and not test.error
    possible = [entry.name for entry in export.choose(run)]
    assert list(test.selectbox(key="figure").options) == possible
    code = "\n".join(str(block.value) for block in test.code)
    assert f"sparsescope figures first --only {possible[0]}" in code
    assert "\\includegraphics[width=3.25in]" in code and "@" in code


def test_a_link_names_figure_and_width(run: Run) -> None:
    linked = page(figure="sparsity-sinks", width="wide")
    assert not linked.exception
    assert linked.selectbox(key="figure").value == "sparsity-sinks"
    assert "\\includegraphics[width=6.75in]{sparsity-sinks.pdf}" in "\n".join(str(c.value) for c in linked.code)
    gone = page(figure="no-such-figure")
    assert not gone.exception and gone.selectbox(key="figure").value in catalogue()


def test_an_empty_folder_names_what_to_do(runs_folder: Path) -> None:
    test = page()
    assert not test.exception and not test.error
    assert "sparsescope demo" in "\n".join(str(code.value) for code in test.code)


def test_several_figures_go_into_one_archive(run: Run) -> None:
    entries = export.choose(run, ["sparsity-firing", "sparsity-sinks"])
    names = zipfile.ZipFile(BytesIO(export.archive(entries, run, width="text", formats=["html"]))).namelist()
    for entry in entries:
        assert {f"{entry.name}.{kind}" for kind in ("html", "csv", "txt", "tex", "provenance.json")} <= set(names)
    assert "sources.bib" in names


@pytest.mark.parametrize("width", sorted(INCHES))
def test_a_printed_figure_is_as_wide_as_its_place_and_its_text_7_to_9_points(run: Run, width: str) -> None:
    for entry in export.choose(run):
        held = {name: run.table(name) for name in entry.needs}
        figure = entry.draw(held, width=export.check_width(width))
        assert figure.layout.width == pixels(INCHES[width])
        made = figure.layout.template.layout
        sizes = [made.font.size, made.xaxis.tickfont.size, made.xaxis.title.font.size, made.legend.font.size]
        assert all(7 <= size * 72 / 96 <= 9.01 for size in sizes)


def entries_of(text: str) -> dict[str, dict[str, str]]:
    """A small reader of BibTeX: key -> fields; braces must balance, and nothing may be left over."""
    found, at = {}, 0
    while match := re.compile(r"\s*@(\w+)\{([^,\s]+),\s*").match(text, at):
        at, fields = match.end(), {}
        while field := re.compile(r"(\w+)\s*=\s*\{").match(text, at):
            start = at = field.end()
            depth = 1
            while depth:
                depth += {"{": 1, "}": -1}.get(text[at], 0)
                at += 1
            fields[field[1]] = text[start : at - 1]
            rest = re.compile(r"\s*,?\s*").match(text, at)
            assert rest
            at = rest.end()
        assert text[at] == "}", f"{match[2]}: unread text {text[at : at + 30]!r}"
        at += 1
        found[match[2]] = fields
    assert not text[at:].strip(), f"unread: {text[at : at + 60]!r}"
    return found


def test_every_source_parses_as_bibtex_under_its_key() -> None:
    read = entries_of("\n\n".join(BIBTEX.values()))
    assert list(read) == list(BIBTEX)
    for key, fields in read.items():
        assert {"title", "author", "year"} <= set(fields), key
        assert fields["year"].isdigit() and fields["year"] in key


def test_all_that_is_cited_is_known() -> None:
    cited = {key for entry in catalogue().values() for key in entry.sources} | {k for c in CLAIMS for k in c.sources}
    assert cited <= set(BIBTEX)


@pytest.mark.skipif(
    export.missing_drawer() is not None or not shutil.which("pdffonts"), reason="no browser, no pdffonts"
)
def test_every_font_of_a_pdf_is_embedded(run: Run, tmp_path: Path) -> None:
    export.export([find("sparsity-firing")], run, tmp_path, formats=["pdf"])
    told = subprocess.run(["pdffonts", tmp_path / "sparsity-firing.pdf"], capture_output=True, text=True, check=True)
    fonts = told.stdout.splitlines()[2:]
    assert fonts
    for line in fonts:
        embedded, subset, uni = line.split()[-5:-2]
        assert (embedded, subset, uni) == ("yes", "yes", "yes"), line
