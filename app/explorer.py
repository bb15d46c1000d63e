"""What the explorer of experts reads off a run folder: the tokens behind a cell, and their sentences as HTML."""

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from jaxtyping import Bool, Int
from pandas import DataFrame

from data.routed import Routes, TokenTable

CONDITIONS = {
    "real": "trained",
    "random_init": "random weights",
    "random_directions": "random directions",
    "hash": "token hash",
}
"""Conditions as the page calls them."""
Order = Literal["strongest", "first", "random"]
SENTENCES = 20
"""Sentences shown for a cell."""


@dataclass(frozen=True)
class Asked:
    """Which tokens are wanted; None or empty: whichever."""

    layer: int
    expert: int
    labels: str = "word_class"
    label: str | None = None
    domain: str | None = None
    document: int | None = None
    token: str | None = None
    """Text of the token, spaces around it and case aside."""
    order: Order = "strongest"
    n: int = 80


class Explorer:
    """One run's routed tokens; columns are kept once they were read."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.tokens = TokenTable(self.folder)
        documents = self.folder / "routed_documents.parquet"
        self.documents = pd.read_parquet(documents) if documents.exists() else DataFrame({"document": []})
        self._held: dict[str, Any] = {}

    def conditions(self) -> list[str]:
        """Conditions whose routes are in the folder."""
        return [c for c in CONDITIONS if (self.folder / _file(c)).exists()]

    def routes(self, condition: str) -> Routes:
        """Routes of a condition."""
        found: Routes = self._once(f"routes {condition}", lambda: Routes(self.folder, condition))
        return found

    def layer(self, condition: str, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """Experts and weights of one layer; the last few that were asked for are kept."""
        key = f"layer {condition} {layer}"
        if key not in self._held and sum(k.startswith("layer ") for k in self._held) >= 4:
            self._held.pop(next(k for k in self._held if k.startswith("layer ")))
        routes = self.routes(condition)
        found: tuple[np.ndarray, np.ndarray] = self._once(
            key, lambda: (routes.experts(layer), np.where(routes.kept(layer)[:, None], routes.weights(layer), -1))
        )
        return found

    def is_label(self, labels: str, label: str) -> Bool[np.ndarray, " n_tokens"]:
        """Which tokens carry the label."""
        code, words = self._codes(labels)
        return code == words.index(label) if label in words else np.zeros(len(code), dtype=bool)

    def find(self, condition: str, asked: Asked) -> Int[np.ndarray, " n"]:
        """Rows of ordinary tokens that went to the expert and fit what is asked, at most `asked.n`."""
        experts, weights = self.layer(condition, asked.layer)
        row, slot = np.nonzero((experts == asked.expert) & (weights >= 0))
        keep = self._filter(asked)
        if keep is not None:
            held = keep[row]
            row, slot = row[held], slot[held]
        if asked.order == "first":
            return row[: asked.n]
        if asked.order == "random":
            chosen = np.random.default_rng(0).permutation(len(row))[: asked.n]
            return row[np.sort(chosen)]
        weight = weights[row, slot]
        best = np.argpartition(-weight, asked.n)[: asked.n] if len(row) > asked.n else np.arange(len(row))
        return row[best[np.argsort(-weight[best], kind="stable")]]

    def count(self, condition: str, asked: Asked) -> tuple[int, int]:
        """(tokens that fit and went to the expert, tokens that fit)."""
        experts, weights = self.layer(condition, asked.layer)
        went = ((experts == asked.expert) & (weights >= 0)).any(axis=1)
        keep = self._filter(asked)
        fit = (weights >= 0).any(axis=1) if keep is None else keep[: len(went)] & (weights >= 0).any(axis=1)
        return int((went & fit).sum()), int(fit.sum())

    def shares(self, condition: str, layer: int, asked: Asked) -> DataFrame:
        """Of the tokens that fit (whatever their expert): `expert, n, share, base, lift`, for a token or a domain."""
        experts, weights = self.layer(condition, layer)
        width = self.routes(condition).n_experts(layer)
        keep = self._filter(asked)
        chosen = experts if keep is None else experts[keep[: len(experts)]]
        kept = weights if keep is None else weights[keep[: len(weights)]]
        n = np.bincount(chosen[(kept >= 0) & (chosen >= 0)], minlength=width)
        base = np.bincount(experts[(weights >= 0) & (experts >= 0)], minlength=width)
        share, even = n / max(n.sum(), 1), base / max(base.sum(), 1)
        return DataFrame(
            {"expert": np.arange(width), "n": n, "share": share, "base": even, "lift": share / even.clip(1e-9)}
        )

    def sentence(self, condition: str, layer: int, row: int) -> DataFrame:
        """The sentence around a token: `text, word_class, experts, weights` (lists), row as index."""
        found = self.tokens.sentence(int(row), ["word_class", "document", "position"])
        experts, weights = self.layer(condition, layer)
        inside = found[found.index < len(experts)]
        at = inside.index.to_numpy()
        return inside.assign(experts=list(experts[at]), weights=list(weights[at]))

    def document(self, code: int) -> str:
        """Name of a document."""
        return str(self.documents["document"].iloc[code]) if code < len(self.documents) else str(code)

    def token_text(self) -> np.ndarray:
        """Every token's text without spaces around it, in small letters."""
        found: np.ndarray = self._once("stripped", lambda: _stripped(*self.tokens.codes("text")))
        return found

    def _filter(self, asked: Asked) -> np.ndarray | None:
        parts = []
        if asked.label:
            parts.append(self.is_label(asked.labels, asked.label))
        if asked.domain:
            parts.append(self.is_label("domain", asked.domain))
        if asked.document is not None:
            parts.append(self._once("document", lambda: self.tokens.column("document")) == asked.document)
        if asked.token:
            parts.append(self.token_text() == asked.token.strip().lower())
        return np.logical_and.reduce(parts) if parts else None

    def _codes(self, labels: str) -> tuple[np.ndarray, list[str]]:
        found: tuple[np.ndarray, list[str]] = self._once(f"codes {labels}", lambda: self._read_codes(labels))
        return found

    def _read_codes(self, labels: str) -> tuple[np.ndarray, list[str]]:
        if labels in ("word_class", "fine", "domain"):
            return self.tokens.codes(labels)
        if labels == "token":
            code, words = self.tokens.codes("text")
            return code, [visible(word) for word in words]
        from probes.routed_labels import RoutedText  # brings torch along, which takes seconds

        own = self.folder / "routed_labels.parquet"
        beside = {}
        if own.exists() and labels in pq.read_schema(own).names:
            beside = {labels: pd.read_parquet(own, columns=[labels])[labels].to_numpy()}
        labelled = RoutedText(self.folder, self.documents, beside).labels(labels)
        return labelled.code, labelled.words

    def _once(self, key: str, make: Any) -> Any:
        if key not in self._held:
            self._held[key] = make()
        return self._held[key]


def sentences(
    explorer: Explorer, condition: str, asked: Asked, rows: Int[np.ndarray, " n"], most: int = SENTENCES
) -> str:
    """The first `most` sentences of these tokens as an HTML list, each sentence once.

    Every token is shaded by the part of its weight that the expert has, its other experts on hover; tokens that were
    found are underlined.  All text is escaped, signs that turn the line round are replaced.
    """
    items: list[str] = []
    wanted, shown = set(rows.tolist()), set[int]()
    for row in rows.tolist():
        if row in shown or len(items) == most:
            continue
        found = explorer.sentence(condition, asked.layer, row)
        shown |= set(found.index.tolist())
        tokens = zip(found.index, found.itertuples(), strict=True)
        pieces = "".join(_piece(token, at in wanted, asked.expert) for at, token in tokens)
        here = found.loc[row]
        where = f"{_shown(explorer.document(int(here['document'])))}, token {int(here['position']):,}"
        items.append(
            f'<li style="margin-bottom:0.5em"><bdi>{pieces}</bdi> '
            f'<span style="opacity:0.6;font-size:0.85em">({where})</span></li>'
        )
    return f'<ol class="routed" style="padding-left:1.5em;line-height:1.7">{"".join(items)}</ol>'


def _piece(token: Any, found: bool, expert: int) -> str:
    pairs = sorted(zip(token.weights, token.experts, strict=True), reverse=True)
    used = ", ".join(f"{int(e)} ({max(float(w), 0):.2f})" for w, e in pairs if e >= 0)
    weight = next((max(float(w), 0.05) for w, e in pairs if e == expert), 0.0)
    total = sum(max(float(w), 0.0) for w, e in pairs if e >= 0) or 1.0
    style = f"background:rgba(230,150,0,{0.85 * min(weight / total, 1):.2f});" if weight else ""
    style += "text-decoration:underline;text-decoration-thickness:2px;font-weight:600;" if found else ""
    what = html.escape(f"{token.word_class or 'no class'}; experts {used or 'none'}", quote=True)
    return f'<span title="{what}" style="{style}border-radius:0.2em">{_shown(str(token.text))}</span>'


def _shown(text: str) -> str:
    one_line = text.replace("\r\n", "⏎").replace("\n", "⏎").replace("\r", "⏎")
    return html.escape("".join(c if c.isprintable() else "�" for c in one_line))


def visible(token: str) -> str:
    """A token with its spaces and line breaks shown."""
    return str(token).replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")


def _file(condition: str) -> str:
    return "routes.parquet" if condition == "real" else f"routes_{condition}.parquet"


def _stripped(code: np.ndarray, words: list[str]) -> np.ndarray:
    return np.array([word.strip().lower() for word in words], dtype=object)[code]
