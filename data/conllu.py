"""Gold treebanks in CoNLL-U: their texts, and a tagger that answers with their tags.

Source of the format: universaldependencies.org/format.html.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.lines import CorpusError, lines
from data.wordclass import Words


@dataclass(frozen=True)
class GoldDocument:
    """A text with its annotated words."""

    name: str
    text: str
    words: Words


@dataclass
class _Open:
    """The document being read."""

    name: str
    text: str = ""
    rows: list[tuple[int, int, str, str, int]] = field(default_factory=list)
    sentence: int = -1
    gap: str = ""

    def word(self, surface: str, parts: Sequence[tuple[str, str, str]], gap: str) -> None:
        """Add a surface token that holds the syntactic words `parts` of (form, universal, fine)."""
        self.text += self.gap
        start = len(self.text)
        self.text += surface
        self.gap = gap
        if "".join(form for form, _, _ in parts) != surface:
            # A fused form (French `du`): its characters cannot be shared out, so the first word has them all.
            parts = [(surface, *parts[0][1:])]
        for form, universal, fine in parts:
            self.rows.append((start, start + len(form), universal, universal if fine == "_" else fine, self.sentence))
            start += len(form)

    def close(self) -> GoldDocument:
        return GoldDocument(self.name, self.text, Words.of(self.rows))


def read_conllu(path: Path | str) -> Iterator[GoldDocument]:
    """Documents of a treebank, in order; a file without `# newdoc` is one document.

    Texts are made of the FORM column and `SpaceAfter=No`; `# newpar` begins a paragraph (an empty line).  Multiword
    tokens are split where their words spell them out (`do` + `n't`), else the first word gives its tags to all.  Empty
    nodes are left out.  CorpusError with file and line if a line is not CoNLL-U.
    """
    path = Path(path)
    held = _Open(path.name)
    fused: tuple[int, str, str, list[tuple[str, str, str]]] | None = None
    fresh = True
    for number, raw in lines(path):
        line = raw.rstrip("\r\n")
        where = f"{path}, line {number}"
        if line.startswith("#"):
            key, _, value = line[1:].partition("=")
            if key.split()[:1] == ["newdoc"]:
                if held.rows:
                    yield held.close()
                held = _Open(f"{path.name}:{value.strip() or number}")
            elif key.split()[:1] == ["newpar"] and held.rows:
                held.gap = "\n\n"
            continue
        if not line.strip():
            if fused is not None:
                raise CorpusError(f"{where}: the sentence ends inside the multiword token '{fused[1]}'")
            fresh = True
            continue
        cells = line.split("\t")
        if len(cells) != 10:
            raise CorpusError(f"{where}: {len(cells)} columns where CoNLL-U has 10, divided by tabs")
        identifier, form, universal, fine = cells[0], cells[1], cells[3], cells[4]
        if fresh:
            held.sentence += 1
            fresh = False
        if "." in identifier:
            continue
        gap = "" if "SpaceAfter=No" in cells[9].split("|") else " "
        first, _, last = identifier.partition("-")
        if not all(n.isdecimal() and len(n) < 10 for n in (first, last or first)):
            raise CorpusError(f"{where}: '{identifier}' is not a word number; CoNLL-U counts 1, 2, 3-4, 5.1")
        if last:
            fused = (int(last), form, gap, [])
        elif fused is not None:
            fused[3].append((form, universal, fine))
            if int(identifier) >= fused[0]:
                held.word(fused[1], fused[3], fused[2])
                fused = None
        else:
            held.word(form, [(form, universal, fine)], gap)
    if held.rows:
        yield held.close()


class GoldTagger:
    """A tagger that knows the texts of its treebanks, as `open_corpus("FILE.conllu")` gives them, and no other."""

    def __init__(self, *paths: Path | str):
        self._known = {gold.text: gold.words for path in paths for gold in read_conllu(path)}
        self._name = "gold-" + "-".join(Path(p).stem for p in paths)

    @property
    def name(self) -> str:
        """Names of the treebanks."""
        return self._name

    def tag(self, texts: Sequence[str]) -> list[Words]:
        """The annotated words of each text; CorpusError for a text of no treebank given."""
        for text in texts:
            if text not in self._known:
                raise CorpusError(f"no gold tags for the text that begins '{text[:40]}'; its treebank was not given")
        return [self._known[text] for text in texts]
