"""What an export leaves in the folder, and that the PDF is a vector with its fonts inside."""

import json
import re
import zipfile
from io import BytesIO, StringIO
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from app import export
from app.figures.catalogue import find
from data import Run

needs_browser = pytest.mark.skipif(
    export.missing_drawer() is not None, reason=export.missing_drawer() or "a browser draws the figures"
)
FIRING = "sparsity-firing"


@needs_browser
def test_every_format_and_all_that_goes_with_it(run: Run, tmp_path: Path) -> None:
    out = export.export([find(FIRING)], run, tmp_path / "out", formats=export.FORMATS)
    assert out.notes == []
    written = {path.name for path in out.paths}
    suffixes = ("pdf", "svg", "png", "html", "json", "csv", "txt", "tex", "provenance.json")
    assert written == {f"{FIRING}.{s}" for s in suffixes} | {"sources.bib"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == written

    pdf = (tmp_path / "out" / f"{FIRING}.pdf").read_bytes()
    box = re.search(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", pdf)
    assert box and float(box[1]) / 72 == pytest.approx(3.25, abs=0.05)
    assert re.search(rb"/FontFile[23]", pdf), "text must be text, in fonts the file carries"
    assert b"/Subtype /Image" not in pdf and b"/Subtype/Image" not in pdf

    svg = (tmp_path / "out" / f"{FIRING}.svg").read_text()
    assert "<text" in svg and "<image" not in svg and "https://cdn" not in svg
    png = (tmp_path / "out" / f"{FIRING}.png").read_bytes()
    assert int.from_bytes(png[16:20]) == pytest.approx(3.25 * 300, abs=2)


def test_the_csv_is_what_is_drawn_and_the_provenance_says_where_it_is_from(run: Run, tmp_path: Path) -> None:
    export.export([find(FIRING)], run, tmp_path, formats=["json"])
    rows = run.table("layers").query("measure == 'firing_frequency' and sinks == 'without'")
    written = pd.read_csv(StringIO((tmp_path / f"{FIRING}.csv").read_text()))
    assert_frame_equal(written, rows.sort_values(["condition", "layer"]).reset_index(drop=True), check_dtype=False)
    told = json.loads((tmp_path / f"{FIRING}.provenance.json").read_text())
    assert told["settings"]["kind"] == "probe.sparsity"
    assert told["provenance"]["seed"] == 0
    assert told["provenance"]["versions"]["sparsescope"]


def test_the_same_run_gives_the_same_files(run: Run, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        export.export([find(FIRING)], run, tmp_path / folder, formats=["html", "json"])
    for name in (f"{FIRING}.html", f"{FIRING}.json", f"{FIRING}.csv", f"{FIRING}.tex"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_html_asks_nothing_of_the_network(run: Run, tmp_path: Path) -> None:
    export.export([find(FIRING)], run, tmp_path, formats=["html"])
    page = (tmp_path / f"{FIRING}.html").read_text()
    assert not re.search(r"""<(script|link|img)[^>]+(src|href)=["']?(https?:)?//""", page)


def test_without_a_browser_html_is_written_and_a_sentence_says_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_browser", lambda: None)
    out = export.export([find(FIRING)], run, tmp_path, formats=["pdf"])
    assert {p.suffix for p in out.paths} == {".html", ".csv", ".txt", ".tex", ".json", ".bib"}
    assert "apt install chromium" in out.notes[0] and "HTML and CSV were written instead" in out.notes[0]


def test_latex_survives_what_captions_hold(run: Run) -> None:
    text = export.snippet(find(FIRING), r"50% of A_b & {c} \x ~ #1 $", "text")
    assert r"\caption{50\% of A\_b \& \{c\} \textbackslash{}x \textasciitilde{} \#1 \$ \cite{li2023lazy}}" in text
    assert r"\includegraphics[width=5.5in]{sparsity-firing.pdf}" in text


def test_a_bundle_is_a_zip_of_the_same_files(run: Run) -> None:
    packed = export.bundle(find(FIRING), run, width="text", formats=["html"])
    assert f"{FIRING}.csv" in zipfile.ZipFile(BytesIO(packed)).namelist()


def test_refusals_are_sentences(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no format gif; there are pdf"):
        export.export([find(FIRING)], run, tmp_path, formats=["gif"])
    with pytest.raises(ValueError, match="no width 'poster'"):
        export.export([find(FIRING)], run, tmp_path, width="poster")  # type: ignore[arg-type]
    (run.path / "layers.parquet").unlink()
    with pytest.raises(ValueError, match="needs the table layers, which run 'first' does not hold"):
        export.choose(run, [FIRING])
    assert FIRING not in [entry.name for entry in export.choose(run)]


def test_what_the_browser_leaves_empty_is_drawn_again_then_told_and_no_file_is_lost(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import plotly.graph_objects as go

    asked: list[list[str]] = []

    def flaky(figures: list[tuple[go.Figure, Path]]) -> None:
        asked.append([path.name for _, path in figures])
        for _, path in figures:
            fails = path.name == "bad.pdf" or (path.name == "slow.pdf" and len(asked) == 1)
            path.write_bytes(b"" if fails else b"drawn")

    monkeypatch.setattr(export, "_drawn", flaky)
    monkeypatch.setattr(export, "missing_drawer", lambda: None)
    figures = [(go.Figure(), tmp_path / name) for name in ("good.pdf", "slow.pdf", "bad.pdf")]
    figures[2][1].write_bytes(b"from before")
    with pytest.raises(ValueError, match=r"did not draw bad\.pdf"):
        export.draw(figures)
    assert asked == [["good.pdf", "slow.pdf", "bad.pdf"], ["slow.pdf", "bad.pdf"]]
    held = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert held == {"good.pdf": b"drawn", "slow.pdf": b"drawn", "bad.pdf": b"from before"}
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and path.name != "runs"]
