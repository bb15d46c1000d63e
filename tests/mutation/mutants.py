"""Small wrongs done to a formula: one sign, index, comparison, denominator or constant changed in the source.

Read off the syntax tree, so that what is changed is arithmetic and never a text, an annotation or an import.
"""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
LONG = 80
"""Characters of the expression that a changed constant is shown in, at most."""
SKIPPED = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)
"""What a person reads, or what is told in a sentence; the formulas are elsewhere."""


@dataclass(frozen=True)
class Mutant:
    """One change at one place, named by its function and not by its line, which moves with every edit above it."""

    function: str
    line: int
    column: int
    kind: str
    """sign, product, comparison, negation, denominator, index or constant."""
    before: str
    after: str
    number: int = 1
    """Which one, where a function has the same expression more than once."""

    @property
    def name(self) -> str:
        """What it is, in a line."""
        which = f" {self.number}" if self.number > 1 else ""
        return f"{self.function}: {self.before} -> {self.after} ({self.kind}{which})"


def mutants(source: str) -> list[Mutant]:
    """All mutants of a module, in order."""
    found = {m for _, m in _changes(ast.parse(source))}
    seen: Counter[str] = Counter()
    numbered = []
    for mutant in sorted(found, key=lambda m: (m.line, m.column, m.kind, m.after)):
        seen[mutant.name] += 1
        numbered.append(replace(mutant, number=seen[mutant.name]))
    return numbered


def sample(source: str, n: int, seed: str) -> list[Mutant]:
    """At most `n` mutants at different lines where there are as many, in order.

    Drawn by the hash of seed and name, so that an edit elsewhere in the module leaves the sample as it is.
    """
    there = sorted(mutants(source), key=lambda m: hashlib.sha256(f"{seed}:{m.name}".encode()).digest())
    seen: set[int] = set()
    first = [m for m in there if not (m.line in seen or seen.add(m.line))]  # type: ignore[func-returns-value]
    chosen = (first + [m for m in there if m not in first])[:n]
    return sorted(chosen, key=lambda m: (m.line, m.column))


def mutated(source: str, mutant: Mutant) -> str:
    """The module with the change in it."""
    tree = ast.parse(source)
    for change, found in _changes(tree):
        if replace(found, number=mutant.number) == mutant:
            change()
            return ast.unparse(ast.fix_missing_locations(tree))
    raise ValueError(f"no such place: {mutant.name}")


def _changes(tree: ast.AST) -> Iterator[tuple["_Change", Mutant]]:
    for function, node, around in list(_formulas(tree)):
        if isinstance(around, ast.Subscript) and around.slice is node:
            continue  # an index, which is changed there
        shown = around if isinstance(node, ast.Constant) and len(ast.unparse(around)) <= LONG else node
        for kind, edit in _edits(node):
            before = ast.unparse(shown)
            undo = edit()
            after = ast.unparse(shown)
            undo()
            yield edit, Mutant(function, node.lineno, node.col_offset, kind, before, after)


class _Change:
    """Sets a field of a node; answers with the way back."""

    def __init__(self, node: ast.AST, field: str, value: object):
        self.node, self.field, self.value = node, field, value

    def __call__(self) -> "_Change":
        back = _Change(self.node, self.field, getattr(self.node, self.field))
        setattr(self.node, self.field, self.value)
        return back


def _formulas(
    node: ast.AST, place: str = "", around: ast.expr | None = None
) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    """Expressions in the bodies of functions, each with the name of its function and the expression it stands in.

    Without annotations, defaults, decorators and sentences.
    """
    if isinstance(node, SKIPPED):
        return
    if isinstance(node, DEFINITIONS):
        for part in node.body:
            if isinstance(node, ast.ClassDef) and not isinstance(part, DEFINITIONS):
                continue
            yield from _formulas(part, f"{place}.{node.name}".lstrip("."))
        return
    if isinstance(node, ast.expr):
        if place:
            yield place, node, around or node
        around = node
    for field, child in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for part in child if isinstance(child, list) else [child]:
            if isinstance(part, ast.AST):
                yield from _formulas(part, place, around)


def _edits(node: ast.expr) -> Iterator[tuple[str, _Change]]:
    if isinstance(node, ast.BinOp) and not isinstance(node.left, ast.Constant | ast.JoinedStr | ast.List):
        if type(node.op) in OPERATORS:
            sign = isinstance(node.op, ast.Add | ast.Sub)
            yield "sign" if sign else "product", _Change(node, "op", OPERATORS[type(node.op)]())
        if isinstance(node.op, ast.Div):
            one = ast.BinOp(node.right, ast.Add(), ast.Constant(1))
            yield "denominator", _Change(node, "right", one)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "negation", _Change(node, "op", ast.UAdd())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield "comparison", _Change(node, "ops", [COMPARISONS[type(node.ops[0])](), *node.ops[1:]])
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and type(node.slice.value) is int:
        yield "index", _Change(node, "slice", ast.Constant(node.slice.value + 1))
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        more = node.value + 1 if isinstance(node.value, int) else node.value * 1.5 or 0.5
        yield "constant", _Change(node, "value", more)
