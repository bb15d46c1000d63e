"""Small wrongs done to a formula: one sign, index, comparison, denominator or constant changed in the source.

Read off the syntax tree, so that what is changed is arithmetic and never a text, an annotation or an import.
"""

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass

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
SKIPPED = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)
"""What a person reads, or what is told in a sentence; the formulas are elsewhere."""


@dataclass(frozen=True)
class Mutant:
    """One change at one place."""

    line: int
    column: int
    kind: str
    """sign, product, comparison, negation, denominator, index or constant."""
    before: str
    after: str

    @property
    def name(self) -> str:
        """What it is, in a line."""
        return f"{self.line}: {self.before} -> {self.after} ({self.kind})"


def mutants(source: str) -> list[Mutant]:
    """All mutants of a module, in order."""
    return sorted({m for _, m in _changes(ast.parse(source))}, key=lambda m: (m.line, m.column, m.kind, m.after))


def sample(source: str, n: int, seed: str) -> list[Mutant]:
    """At most `n` mutants at different lines where there are as many, in order."""
    there = mutants(source)
    random.Random(seed).shuffle(there)
    seen: set[int] = set()
    first = [m for m in there if not (m.line in seen or seen.add(m.line))]  # type: ignore[func-returns-value]
    chosen = (first + [m for m in there if m not in first])[:n]
    return sorted(chosen, key=lambda m: (m.line, m.column))


def mutated(source: str, mutant: Mutant) -> str:
    """The module with the change in it."""
    tree = ast.parse(source)
    for change, found in _changes(tree):
        if found == mutant:
            change()
            return ast.unparse(ast.fix_missing_locations(tree))
    raise ValueError(f"no such place: {mutant.name}")


def _changes(tree: ast.AST) -> Iterator[tuple["_Change", Mutant]]:
    for node in list(_formulas(tree)):
        for kind, edit in _edits(node):
            before = ast.unparse(node)
            undo = edit()
            after = ast.unparse(node)
            undo()
            yield edit, Mutant(node.lineno, node.col_offset, kind, before, after)


class _Change:
    """Sets a field of a node; answers with the way back."""

    def __init__(self, node: ast.AST, field: str, value: object):
        self.node, self.field, self.value = node, field, value

    def __call__(self) -> "_Change":
        back = _Change(self.node, self.field, getattr(self.node, self.field))
        setattr(self.node, self.field, self.value)
        return back


def _formulas(node: ast.AST, inside: bool = False) -> Iterator[ast.expr]:
    """Expressions in the bodies of functions, without annotations, defaults, decorators and sentences."""
    if isinstance(node, SKIPPED):
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for part in node.body:
            yield from _formulas(part, True)
        return
    if inside and isinstance(node, ast.expr):
        yield node
    for field, child in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for part in child if isinstance(child, list) else [child]:
            if isinstance(part, ast.AST):
                yield from _formulas(part, inside)


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
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        more = node.value + 1 if isinstance(node.value, int) else node.value * 1.5 or 0.5
        yield "constant", _Change(node, "value", more)
