"""Small faults that can be put into Python source; ``mutants.py`` draws from them.

A mutation swaps an operator, changes a comparison or a constant, or drops a statement. It replaces the text of one node
and leaves the rest of the file unchanged. Code without behaviour is left out: docstrings, annotations, decorators,
``__all__``, ``assert``, ``zip(strict=True)``, code for type checkers, formatted strings, and texts for people (messages
of exceptions and of logs, and any text with a space between two words).
"""

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

KINDS = ("operator", "comparison", "constant", "statement")

OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.Pow: "*",
    ast.MatMult: "*",
    ast.LShift: ">>",
    ast.RShift: "<<",
    ast.BitAnd: "|",
    ast.BitOr: "&",
    ast.BitXor: "&",
    ast.And: "or",
    ast.Or: "and",
}
COMPARISONS: dict[type[ast.AST], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
TEXT_FOR_PEOPLE = re.compile(r"[A-Za-z,;:.] [A-Za-z]")
LOGGING = re.compile(r"\b(log|logger|logging|warnings)\.\w+$|(Error|Warning|Exception)$")


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Args:
        path: the file's path, from the root of the checkout.
        line: where the change begins, from 1.
        text: that line, without its indentation.
        kind: one of ``KINDS``.
        before: the source that is replaced.
        after: the source that replaces it.
        start: where ``before`` begins in the file, in characters.
        at_import: whether the line runs when the module is imported.
        key: identifies the mutant as long as its line stays the same, whatever happens to other lines.
    """

    path: str
    line: int
    text: str
    kind: str
    before: str
    after: str
    start: int
    at_import: bool
    key: str = ""

    def apply(self, source: str) -> str:
        """The file's source with the change."""
        end = self.start + len(self.before)
        assert source[self.start : end] == self.before, f"{self.path} has changed since the mutants were drawn"
        return source[: self.start] + self.after + source[end:]

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        del values["start"], values["at_import"]
        return values


def mutants_of(path: Path, root: Path) -> list[Mutant]:
    """Every mutant of a file."""
    source = path.read_text(encoding="utf-8")
    name = path.relative_to(root).as_posix()
    seen: Counter[tuple[str, ...]] = Counter()
    mutants = []
    for kind, line, start, before, after, at_import in sorted(_Reader(source).read(), key=lambda mutant: mutant[2]):
        text = source.split("\n")[line - 1].strip()
        what = (name, text, before, after)
        seen[what] += 1
        key = hashlib.sha256("\0".join([*what, str(seen[what])]).encode()).hexdigest()[:16]
        mutants.append(Mutant(name, line, text, kind, before, after, start, at_import, key))
    return mutants


def draw(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """Draw equally from all kinds, as far as there are mutants. The seed and each mutant's own line decide which ones.

    A change elsewhere in the code, or a larger ``count``, therefore leaves most of the draw unchanged.
    """
    ranked = sorted(mutants, key=lambda mutant: hashlib.sha256(f"{seed} {mutant.key}".encode()).digest())
    queues = {kind: [mutant for mutant in ranked if mutant.kind == kind] for kind in KINDS}
    drawn: list[Mutant] = []
    while len(drawn) < count and any(queues.values()):
        for queue in queues.values():
            if queue and len(drawn) < count:
                drawn.append(queue.pop(0))
    return drawn


Change = tuple[str, int, int, str, str, bool]


class _Reader:
    """Walks a module, and leaves out code without behaviour."""

    def __init__(self, source: str) -> None:
        self.source, self.tree = source, ast.parse(source)
        self.lines = source.split("\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)

    def read(self) -> Iterator[Change]:
        yield from self._walk(self.tree, at_import=True, in_message=False)

    def _place(self, line: int, column: int) -> int:
        """A character's place in the source; ``ast`` counts columns in bytes."""
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

    def _span(self, node: Any) -> tuple[int, int]:
        return self._place(node.lineno, node.col_offset), self._place(node.end_lineno, node.end_col_offset)

    def _walk(self, node: ast.AST, *, at_import: bool, in_message: bool) -> Iterator[Change]:
        if _has_no_behaviour(node):
            return
        in_message = in_message or isinstance(node, ast.Raise) or _is_message(node)
        for kind, line, start, before, after in self._changes(node, in_message):
            yield kind, line, start, before, after, at_import
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            inside = at_import and not (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and field == "body"
            )
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from self._walk(child, at_import=inside, in_message=in_message)

    def _changes(self, node: ast.AST, in_message: bool) -> Iterator[tuple[str, int, int, str, str]]:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                yield self._between("operator", left, right, OPERATORS[type(op)])
            case ast.BoolOp(values=values, op=op):
                yield self._between("operator", values[0], values[1], OPERATORS[type(op)])
            case ast.AugAssign(target=target, op=op, value=value):
                yield self._between("operator", target, value, OPERATORS[type(op)] + "=")
                yield self._whole("statement", node, "pass")
            case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
                start = self._span(node)[0]
                sign = re.compile(r"not\b ?|[-~]").match(self.source, start)
                assert sign is not None
                yield "operator", node.lineno, start, sign.group(), ""
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                for before, compared, after in zip([left, *comparators], ops, comparators, strict=False):
                    yield self._between("comparison", before, after, COMPARISONS[type(compared)])
            case ast.Constant(value=value) if not (isinstance(value, str) and in_message):
                if (changed := _other_constant(value)) is not None:
                    yield self._whole("constant", node, changed)
            case ast.Return(value=value) if value is not None and ast.unparse(value) != "None":
                yield self._whole("statement", node, "return None")
            case ast.Assign() | ast.Delete() | ast.Raise() | ast.Break() | ast.Continue():
                yield self._whole("statement", node, "pass")
            case ast.Expr(value=value) if not isinstance(value, ast.Constant):
                yield self._whole("statement", node, "pass")

    def _whole(self, kind: str, node: Any, after: str) -> tuple[str, int, int, str, str]:
        start, end = self._span(node)
        return kind, node.lineno, start, self.source[start:end], after

    def _between(self, kind: str, left: Any, right: Any, after: str) -> tuple[str, int, int, str, str]:
        """The operator between two nodes: ``ast`` does not give its place, so it is the first text except brackets."""
        begin, end = self._span(left)[1], self._span(right)[0]
        between = re.sub(r"#[^\n]*", lambda comment: " " * len(comment.group()), self.source[begin:end])
        match = re.search(r"[^\s()\\]+(\s+(in|not)\b)?", between)
        assert match is not None, f"no operator in {between!r}"
        start = begin + match.start()
        return kind, self.source.count("\n", 0, start) + 1, start, match.group(), after


def _has_no_behaviour(node: ast.AST) -> bool:
    match node:
        case ast.If(test=test):
            return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")
        case ast.Assign(targets=[ast.Name(id=name)]) if name == "__all__" or name.startswith("__slots__"):
            return True
        case ast.Assign(value=ast.Call(func=function)):
            return ast.unparse(function) in ("TypeVar", "NewType", "logging.getLogger")
        case ast.Expr(value=ast.Constant()) | ast.Assert() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Call(func=function)):
            return bool(LOGGING.search(ast.unparse(function)))
        case ast.Subscript(value=ast.Name(id="Literal" | "Annotated" | "Callable")):
            return True
        case ast.keyword(arg="strict", value=ast.Constant()):
            return True
    return False


def _is_message(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and bool(LOGGING.search(ast.unparse(node.func)))


def _other_constant(value: object) -> str | None:
    """The source of another constant of the same type; None for constants that are left alone."""
    match value:
        case bool():
            return str(not value)
        case int():
            return str(value + 1)
        case float():
            return repr(value * 2 + 1)
        case str():
            return None if TEXT_FOR_PEOPLE.search(value) else repr(f"x{value}x")
        case bytes():
            return repr(b"x" + value + b"x")
    return None
