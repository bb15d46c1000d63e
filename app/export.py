"""A figure as it goes into a paper: file, data, caption, provenance, and the lines of LaTeX that include it.

For a figure NAME the folder receives

    NAME.pdf .svg .png .html .json   as asked for; PDF and SVG are vectors, PNG has 300 dpi, HTML needs nothing else
    NAME.csv                         exactly the rows that are drawn
    NAME.txt                         the caption, with numbers
    NAME.provenance.json             settings, versions, seed, hashes of the run, and of the figure and its data
    NAME.tex                         \\includegraphics and caption;  sources.bib holds the works cited

PDF, SVG and PNG are drawn by kaleido in a Chrome or Chromium found on this machine; without one the HTML is written
instead and `Exported.notes` says how to get one.  Nothing is fetched from the network.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata, util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import plotly.graph_objects as go

from app.figures.catalogue import Entry, catalogue, find
from app.figures.sources import BIBTEX
from app.figures.theme import INCHES, Width
from data.runs import Run
from data.tables import Tables

FORMATS = ("pdf", "svg", "png", "html", "json")
DRAWN = ("pdf", "svg", "png")
"""Formats that need a browser."""
SECONDS_A_FIGURE = 240
"""A busy machine takes minutes for what takes a second otherwise."""
TRIES = 2

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
_ELSEWHERE = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
)


@dataclass
class Exported:
    """What was written, and what a person should know about it."""

    paths: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_browser() -> str | None:
    """Path of a Chrome or Chromium: `$CHROMIUM` or `$BROWSER_PATH`, one on the PATH, or where systems install it."""
    named = [os.environ.get("CHROMIUM"), os.environ.get("BROWSER_PATH")]
    found = [shutil.which(name) for name in (*filter(None, named), *_BROWSERS)]
    present = [place for place in _ELSEWHERE if Path(place).exists()]
    return next(iter([*filter(None, found), *present]), None)


def missing_drawer() -> str | None:
    """One sentence saying what PDF, SVG and PNG lack on this machine, or None if they can be drawn."""
    if util.find_spec("kaleido") is None:
        return "PDF, SVG and PNG need kaleido: pip install 'sparsescope[figures]'"
    if find_browser() is None:
        return (
            "PDF, SVG and PNG need Chrome or Chromium: apt install chromium, or kaleido_get_chrome; "
            "$CHROMIUM names one that is elsewhere"
        )
    return None


def export(
    entries: Iterable[Entry],
    run: Run,
    folder: Path,
    *,
    width: Width = "column",
    formats: Sequence[str] = ("pdf",),
    dark: bool = False,
) -> Exported:
    """Write the figures of `entries`, drawn from the run's tables, into `folder`.

    ValueError for an unknown format or width; RunError for a table the run lacks.
    """
    if unknown := [f for f in formats if f not in FORMATS]:
        raise ValueError(f"no format {', '.join(unknown)}; there are {', '.join(FORMATS)}")
    check_width(width)
    out, drawn, entries = Exported(), [], list(entries)
    lacking = missing_drawer() if set(formats) & set(DRAWN) else None
    kinds = [f for f in formats if not (lacking and f in DRAWN)]
    if lacking:
        out.notes.append(f"{lacking}; HTML and CSV were written instead")
        kinds = list(dict.fromkeys([*kinds, "html"]))
    folder.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        tables = Tables({name: run.table(name) for name in entry.needs})
        figure = entry.draw(tables, dark=dark, width=width)
        out.paths += _write_beside(entry, tables, figure, run, folder, width=width, dark=dark)
        for kind in kinds:
            path = folder / f"{entry.name}.{kind}"
            out.paths.append(path)
            if kind in DRAWN:
                drawn.append((figure, path))
            else:
                _replace(path, html(figure, entry.name) if kind == "html" else figure.to_json())
    draw(drawn)
    if keys := sorted({key for entry in entries for key in entry.sources}):
        _replace(folder / "sources.bib", "\n\n".join(BIBTEX[key] for key in keys) + "\n")
        out.paths.append(folder / "sources.bib")
    return out


def check_width(width: str) -> Width:
    """`width` if figures come in it, else ValueError."""
    if width not in (*INCHES, "screen"):
        raise ValueError(f"no width '{width}'; there are {', '.join(INCHES)}")
    return cast(Width, width)


def draw(figures: Sequence[tuple[go.Figure, Path]]) -> None:
    """Draw figures as PDF, SVG or PNG by the suffix of their paths, all in one browser.

    A file is replaced only by a whole one.  ValueError without a browser, or naming what it did not draw twice.
    """
    if not figures:
        return
    if lacking := missing_drawer():
        raise ValueError(lacking)
    with contextlib.ExitStack() as kept:
        places = {path.parent: Path(kept.enter_context(TemporaryDirectory(dir=path.parent))) for _, path in figures}
        left = [(figure, path, places[path.parent] / path.name) for figure, path in figures]
        for _ in range(TRIES):
            _drawn([(figure, beside) for figure, _, beside in left])
            for _, path, beside in left:
                if _whole(beside):
                    beside.replace(path)
            left = [one for one in left if one[2].exists()]  # what failed stays behind, empty
            if not left:
                return
    names = ", ".join(path.name for _, path, _ in left)
    raise ValueError(f"the browser {find_browser()} did not draw {names}; try again, or take --format html")


def _whole(path: Path) -> bool:
    """Whether something was drawn; where nothing is, an empty file stands for it."""
    if path.exists() and path.stat().st_size:
        return True
    path.touch()
    return False


def _drawn(figures: Sequence[tuple[go.Figure, Path]]) -> None:
    """Have kaleido draw; it returns the errors of single figures, which leave empty files, instead of raising them."""
    import kaleido
    from choreographer.errors import BrowserFailedError

    jobs: list[Any] = [
        {
            "fig": figure.to_dict(),
            "path": path,
            "opts": {
                "format": path.suffix[1:],
                "width": figure.layout.width or 960,
                "height": figure.layout.height or 540,
                "scale": 300 / 96 if path.suffix == ".png" else 1,
            },
        }
        for figure, path in figures
    ]
    # mathjax would be fetched from a CDN; formulas are written in Unicode instead
    try:
        kaleido.write_fig_from_object_sync(
            jobs, kopts={"path": find_browser(), "mathjax": False, "timeout": SECONDS_A_FIGURE}
        )
    except BrowserFailedError as error:
        raise ValueError(
            f"the browser {find_browser()} did not start (a busy machine can be too slow for it); try again, or take "
            "--format html"
        ) from error


def html(figure: go.Figure, name: str) -> str:
    """The figure as one page that needs nothing else: no network, the same text for the same figure."""
    return str(figure.to_html(include_plotlyjs=True, include_mathjax=False, div_id=name, full_html=True))


def bundle(entry: Entry, run: Run, *, width: Width, formats: Sequence[str], dark: bool = False) -> bytes:
    """All files of one figure as a zip archive, for a download button."""
    return archive([entry], run, width=width, formats=formats, dark=dark)


def archive(entries: Iterable[Entry], run: Run, *, width: Width, formats: Sequence[str], dark: bool = False) -> bytes:
    """All files of several figures as one zip archive."""
    packed = io.BytesIO()
    with TemporaryDirectory() as folder, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for path in export(entries, run, Path(folder), width=width, formats=formats, dark=dark).paths:
            file.write(path, path.name)
    return packed.getvalue()


def choose(run: Run, names: Sequence[str] = ()) -> list[Entry]:
    """The named figures, or all that the run's tables allow.  ValueError says which tables a named one lacks."""
    held = run.table_names()
    if not names:
        possible = [entry for entry in catalogue().values() if entry.drawable(held)]
        if not possible:
            raise ValueError(
                f"run '{run.name}' holds no table that a figure is drawn from ({', '.join(held) or 'none'})"
            )
        return possible
    entries = [find(name) for name in names]
    for entry in entries:
        if not entry.drawable(held):
            lacking = ", ".join(sorted(set(entry.needs) - set(held)))
            raise ValueError(f"'{entry.name}' needs the table {lacking}, which run '{run.name}' does not hold (yet)")
    return entries


def snippet(entry: Entry, caption: str, width: Width, suffix: str = "pdf") -> str:
    """The LaTeX that includes the figure at its own size, with caption, label and citations."""
    cite = f" \\cite{{{','.join(entry.sources)}}}" if entry.sources else ""
    place = "figure*" if width == "wide" else "figure"
    return (
        f"\\begin{{{place}}}[t]\n  \\centering\n"
        f"  \\includegraphics[width={INCHES.get(width, 6.75)}in]{{{entry.name}.{suffix}}}\n"
        f"  \\caption{{{_latex(caption)}{cite}}}\n  \\label{{fig:{entry.name}}}\n\\end{{{place}}}\n"
    )


def _write_beside(
    entry: Entry, tables: Tables, figure: go.Figure, run: Run, folder: Path, *, width: Width, dark: bool
) -> list[Path]:
    """Data, caption, LaTeX and provenance of one figure."""
    caption, rows = entry.caption(tables), entry.plotted(tables).to_csv(index=False)
    provenance = {
        "figure": entry.name,
        "width": width,
        "dark": dark,
        "figure_sha256": _sha(str(figure.to_json())),
        "data_sha256": _sha(rows),
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "exported_with": {name: metadata.version(name) for name in ("sparsescope", "plotly", "pandas")},
        "run": run.name,
        "inputs": run.table("inputs").to_dict("records") if "inputs" in run.table_names() else [],
        "settings": run.settings,
        "provenance": run.provenance,
        "sources": list(entry.sources),
    }
    files = {
        ".csv": rows,
        ".txt": caption + "\n",
        ".tex": snippet(entry, caption, width),
        ".provenance.json": json.dumps(provenance, indent=1, default=str),
    }
    for suffix, text in files.items():
        _replace(folder / f"{entry.name}{suffix}", text)
    return [folder / f"{entry.name}{suffix}" for suffix in files]


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _latex(text: str) -> str:
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    return "".join(special.get(c, c) for c in text.replace("\\", "\0")).replace("\0", "\\textbackslash{}")
