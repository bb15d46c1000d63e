"""Every figure by name: which tables it needs, how it is drawn, the numbers behind it and its caption.

A module of this package that draws figures lists them in `FIGURES`; pages, the command line and notebooks find them
here, so that the same name gives the same figure everywhere.
"""

import importlib
import pkgutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import plotly.graph_objects as go
from pandas import DataFrame

import app.figures
from app.figures.theme import Width

Frames = Mapping[str, DataFrame]


class Draw(Protocol):
    """Tables -> figure, for a light or dark ground and one of the widths of `theme.style`."""

    def __call__(self, tables: Frames, *, dark: bool = False, width: Width = "screen") -> go.Figure:
        """The figure."""
        ...


class Caption(Protocol):
    """Tables -> one paragraph that states what is shown, on how much data, with which control and uncertainty."""

    def __call__(self, tables: Frames) -> str:
        """The caption."""
        ...


class Plotted(Protocol):
    """Tables -> exactly the rows that the figure shows."""

    def __call__(self, tables: Frames) -> DataFrame:
        """The rows."""
        ...


@dataclass(frozen=True)
class Entry:
    """One figure of the catalogue."""

    name: str
    """File stem and handle on the command line, e.g. `sparsity-firing`."""
    title: str
    """What the figure shows, as a heading."""
    needs: tuple[str, ...]
    """Names of the tables it is drawn from."""
    draw: Draw
    caption: Caption
    plotted: Plotted
    sources: tuple[str, ...] = ()
    """Keys of `app.figures.sources.BIBTEX`: whose claim or method this is."""

    def drawable(self, table_names: Collection[str]) -> bool:
        """Whether a run with these tables holds all that the figure needs."""
        return set(self.needs) <= set(table_names)


def of_table(
    table: str,
    *,
    name: str,
    title: str,
    draw: Callable[..., go.Figure],
    caption: Callable[[DataFrame], str],
    plotted: Callable[[DataFrame], DataFrame] = lambda frame: frame,
    sources: tuple[str, ...] = (),
) -> Entry:
    """The entry of a figure drawn from one table: `draw(frame, dark=, width=)`, `caption(frame)`, `plotted(frame)`."""

    def drawn(tables: Frames, *, dark: bool = False, width: Width = "screen") -> go.Figure:
        return draw(tables[table], dark=dark, width=width)

    return Entry(
        name=name,
        title=title,
        needs=(table,),
        draw=drawn,
        caption=lambda tables: caption(tables[table]),
        plotted=lambda tables: plotted(tables[table]),
        sources=sources,
    )


def catalogue() -> dict[str, Entry]:
    """All figures by name, in the order of their modules' names; ValueError if two share a name."""
    found: dict[str, Entry] = {}
    for module_info in pkgutil.iter_modules(app.figures.__path__):
        module = importlib.import_module(f"app.figures.{module_info.name}")
        for entry in getattr(module, "FIGURES", ()):
            if entry.name in found:
                raise ValueError(f"two figures are called '{entry.name}'")
            found[entry.name] = entry
    return found


def find(name: str) -> Entry:
    """The figure of this name; ValueError lists the names there are."""
    entries = catalogue()
    if name not in entries:
        raise ValueError(f"no figure '{name}'; there are {', '.join(entries)}")
    return entries[name]
