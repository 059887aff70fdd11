"""A user's source file, and changes to it: spans of text that are replaced, lines that are added. Never imports torch.

A `Source` is read once and never changes; an `Edit` is a span of its text and what stands there instead. Everything else stays
as it was written, so that a changed script is the user's script. Edits of several remedies are put together by `edited`; where
two want to change the same place they can't be combined. `compiled` gives changed code whose lines are numbered as those of the
original, so that whatever is recorded of it is named as it was before.
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import TypeVar

from unstuck.errors import UnstuckError

_N = TypeVar("_N", bound=ast.AST)
Loop = ast.For | ast.While
Function = ast.FunctionDef | ast.AsyncFunctionDef
_BOM = "\ufeff"
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


class EditError(UnstuckError, ValueError):
    """A change can't be made: the place isn't written in a way that is understood, or two changes are of the same place."""


@dataclass(frozen=True, order=True)
class Edit:
    """A span of a file's text, and what stands there instead.

    Attributes:
        file: Path of the file.
        start, end: Offsets of the span in the original text, in characters; equal where text is only added.
        text: What stands there.
        rank: Of several additions at the same place, the lower come first.
    """

    file: str
    start: int
    end: int
    text: str
    rank: int = 0


class Source:
    """A file of Python, with its syntax tree.

    Args:
        file: Its path.
        text: Its text.

    Attributes:
        text: The text, its lines ended by line feeds whatever ends them in the file; `edited` gives them back their own ends.

    Raises:
        EditError: It is no Python.
    """

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.newline = "\r\n" if 0 < text.count("\n") == text.count("\r\n") else "\n"
        self.text = text.replace("\r\n", "\n").replace("\r", "\n")
        try:
            self.tree = ast.parse(self.text.removeprefix(_BOM))
        except (SyntaxError, ValueError) as error:
            raise EditError(f"{file}: line {getattr(error, 'lineno', 1)} is no Python: {error}") from None
        self._bytes = _LINE.findall(self.text.removeprefix(_BOM))
        self._lines = [len(self.text) - len(self.text.removeprefix(_BOM))]
        for line in self._bytes:
            self._lines.append(self._lines[-1] + len(line))
        self.parents: dict[ast.AST, ast.AST] = {
            child: parent for parent in ast.walk(self.tree) for child in ast.iter_child_nodes(parent)
        }

    @property
    def digest(self) -> str:
        """Tells whether the file is the one that edits are of."""
        return digest_of(self.text)

    @classmethod
    def read(cls, path: str | Path) -> Source:
        """The source of a file.

        Raises:
            EditError: It can't be read, or is no Python.
        """
        try:
            return cls(str(path), Path(path).read_bytes().decode("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise EditError(f"{path} can't be read: {error}") from None

    # ------------------------------------------------------------------ text

    def _offset(self, line: int, column: int) -> int:
        """Offset in characters of a place that the syntax tree gives in bytes."""
        if line > len(self._bytes):
            return len(self.text)
        whole = self._bytes[line - 1]
        return self._lines[line - 1] + (
            column if whole.isascii() else len(whole.encode()[:column].decode(errors="ignore"))
        )

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Where a node stands."""
        return (
            self._offset(node.lineno, node.col_offset),  # pyright: ignore[reportAttributeAccessIssue]
            self._offset(node.end_lineno, node.end_col_offset),  # pyright: ignore[reportAttributeAccessIssue]
        )

    def of(self, node: ast.AST) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.text[start:end]

    def indent(self, statement: ast.stmt) -> str:
        """What a statement is indented by."""
        line = self._bytes[statement.lineno - 1]
        return line[: len(line) - len(line.lstrip())]

    # ------------------------------------------------------------------ places

    def nodes(self, kind: type[_N], line: int | None = None) -> list[_N]:
        """Nodes of a kind, those that span a line, the innermost last."""
        found = [n for n in ast.walk(self.tree) if isinstance(n, kind)]
        if line is not None:
            found = [n for n in found if n.lineno <= line <= (n.end_lineno or n.lineno)]  # pyright: ignore[reportAttributeAccessIssue]
        return sorted(found, key=lambda n: (n.lineno, n.col_offset, -(n.end_lineno or 0)))  # pyright: ignore[reportAttributeAccessIssue]

    def statement(self, line: int) -> ast.stmt:
        """The innermost statement on a line.

        Raises:
            EditError: There is none.
        """
        found = [
            s
            for s in self.nodes(ast.stmt, line)
            if not isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or s.lineno == line
        ]
        if not found:
            raise EditError(f"{self.file}: there is no statement on line {line}")
        return min(found, key=lambda s: ((s.end_lineno or s.lineno) - s.lineno, -s.col_offset))

    def statement_of(self, node: ast.AST) -> ast.stmt:
        """The innermost statement that a node is in, or is."""
        return next(n for n in (node, *self.around(node)) if isinstance(n, ast.stmt))

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """What a node is in, from inside out."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def within(self, node: ast.AST) -> list[ast.AST]:
        """A node and what is in it, in the order of the text."""
        placed = [n for n in ast.walk(node) if hasattr(n, "lineno")]
        return sorted(placed, key=lambda n: self.span(n)[0])

    def loops(self, node: ast.AST) -> list[Loop]:
        """Loops that a node is in, from inside out, through the functions of this file that it is in, where these are called in a loop."""
        return self._loops(node, frozenset())

    def _loops(self, node: ast.AST, seen: frozenset[ast.AST]) -> list[Loop]:
        found: list[Loop] = []
        for outer in self.around(node):
            if isinstance(outer, (ast.For, ast.While)):
                found.append(outer)
            if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if outer in seen:
                    return found
                chains = [self._loops(call, seen | {outer}) for call in self.calls(outer)]
                return found + (chains[0] if chains and all(chain == chains[0] for chain in chains) else [])
        return found

    def calls(self, function: Function) -> list[ast.Call]:
        """Calls of a function or method of this file, and those that it is handed to, as a closure is; not those of its own."""
        method, found = isinstance(self.parents[function], ast.ClassDef), []
        for call in self.nodes(ast.Call):
            named = called(call).rpartition(".")[2] == function.name and isinstance(call.func, ast.Attribute) == method
            handed = any(isinstance(a, ast.Name) and a.id == function.name for a in call.args)
            if (named or handed) and function not in self.around(call):
                found.append(call)
        return found

    def function(self, node: ast.AST) -> ast.AST:
        """The function that a node is in, or the module."""
        return next(
            (a for a in self.around(node) if isinstance(a, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))),
            self.tree,
        )

    def assigned(self, name: str) -> list[ast.Assign | ast.AnnAssign]:
        """Assignments to a name alone."""
        found: list[ast.Assign | ast.AnnAssign] = []
        for node in self.nodes(ast.stmt):
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
                found.append(node)
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and node.target.id == name
                and node.value
            ):
                found.append(node)
        return found

    def binds(self, name: str) -> list[ast.stmt]:
        """Statements that give a name a value in any way but by adding to it: alone, as one of several, in the head of a loop."""
        stored = [n for n in self.nodes(ast.Name) if n.id == name and isinstance(n.ctx, ast.Store)]
        return [s for s in map(self.statement_of, stored) if not isinstance(s, ast.AugAssign)]

    def free(self, *names: str) -> str:
        """The first of some names that the file doesn't use; the last with an underscore where it uses all."""
        used = {n.id for n in self.nodes(ast.Name)} | {n.arg for n in self.nodes(ast.arg)}
        return next((name for name in names if name not in used), f"{names[-1]}_")

    def constant(self, expression: ast.expr) -> ast.expr | None:
        """The number that an expression is: itself, or what the name that it is was given, once and as a number.

        Or the entry of a dict that is written down, once: `config["lr"]`.
        A function's argument is what its only call gives, or its default where no call gives any.
        """
        return self._constant(expression, frozenset())

    def _constant(self, expression: ast.expr, seen: frozenset[ast.AST]) -> ast.expr | None:
        if number_in(expression) is not None:
            return expression
        if isinstance(expression, ast.Subscript):
            return self._entry(expression)
        if not isinstance(expression, ast.Name):
            return None
        scope: ast.AST = expression
        while scope is not self.tree:
            scope = self.function(scope)
            if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and _has(scope, expression.id):
                return None if scope in seen else self._given(scope, expression.id, seen | {scope})
            made = [s for s in self.binds(expression.id) if self.function(s) is scope]
            if made:
                alone = [s for s in self.assigned(expression.id) if s in made]
                value = alone[0].value if len(made) == len(alone) == 1 else None
                return value if value is not None and number_in(value) is not None else None
        return None

    def _entry(self, expression: ast.Subscript) -> ast.expr | None:
        """The number that the entry of a dict is, where the dict is written down once and the entry never changed."""
        held, key = expression.value, expression.slice
        if not isinstance(held, ast.Name) or not isinstance(key, ast.Constant):
            return None
        given = [a.value for a in self.assigned(held.id)]
        changed = any(
            isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == held.id
            for node in self.nodes(ast.Subscript)
        )
        if changed or len(given) != 1 or len(self.binds(held.id)) != 1 or not isinstance(given[0], ast.Dict):
            return None
        for name, value in zip(given[0].keys, given[0].values, strict=True):
            if isinstance(name, ast.Constant) and name.value == key.value and number_in(value) is not None:
                return value
        return None

    def _given(self, function: Function | ast.Lambda, name: str, seen: frozenset[ast.AST]) -> ast.expr | None:
        """The number that an argument of a function is."""
        if isinstance(function, ast.Lambda):
            return None
        args = function.args
        placed, method = [*args.posonlyargs, *args.args], isinstance(self.parents[function], ast.ClassDef)
        at = next((i for i, a in enumerate(placed) if a.arg == name), None)
        defaults = dict(zip([a.arg for a in reversed(placed)], reversed(args.defaults), strict=False))
        defaults |= {a.arg: d for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d is not None}
        calls = self.calls(function)
        given = [argument(c, name, None if at is None else at - method) for c in calls]
        if not any(given):
            return defaults[name] if name in defaults and number_in(defaults[name]) is not None else None
        return self._constant(given[0], seen) if len(calls) == 1 and given[0] is not None else None

    # ------------------------------------------------------------------ edits

    def replace(self, node: ast.AST, text: str) -> Edit:
        """Another text in place of a node."""
        start, end = self.span(node)
        return Edit(self.file, start, end, text)

    def before(self, statement: ast.stmt, lines: Sequence[str], *, rank: int = 0) -> Edit:
        """Lines before a statement, indented as it is; on its line where others stand before it there.

        Raises:
            EditError: They can't stand on one line, and must.
        """  # noqa: DOC502
        start, _ = self.span(statement)
        if self.text[self._lines[statement.lineno - 1] : start].strip():
            return Edit(self.file, start, start, "".join(f"{line}; " for line in self._simple(statement, lines)), rank)
        first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))])
        at = self._lines[first - 1]
        return Edit(self.file, at, at, self._indented(statement, lines), rank)

    def after(self, statement: ast.stmt, lines: Sequence[str], *, rank: int = 0) -> Edit:
        """Lines after a statement, indented as it is; on its line where it shares that with others.

        Raises:
            EditError: They can't stand on one line, and must.
        """  # noqa: DOC502
        start, end = self.span(statement)
        at = self._lines[statement.end_lineno or statement.lineno]
        rest = self.text[end:at].strip()
        if self.text[self._lines[statement.lineno - 1] : start].strip() or (rest and rest[0] != "#"):
            return Edit(self.file, end, end, "".join(f"; {line}" for line in self._simple(statement, lines)), rank)
        text = self._indented(statement, lines)
        if not self.text[:at].endswith("\n"):  # the file's last line has no end
            text = "\n" + text.removesuffix("\n")
        return Edit(self.file, at, at, text, rank)

    def without(self, statement: ast.stmt) -> Edit:
        """A statement taken away, its lines as well where nothing else is on them; `pass` where its block needs one."""
        start, end = self.span(statement)
        first, last = self._lines[statement.lineno - 1], self._lines[statement.end_lineno or statement.lineno]
        blocks = [b for _, b in ast.iter_fields(self.parents[statement]) if isinstance(b, list) and statement in b]
        shared = self.text[first:start].strip() or self.text[end:last].partition("#")[0].strip()
        if shared or len(blocks[0]) == 1:
            return self.replace(statement, "pass")
        return Edit(self.file, first, last, "")

    def _indented(self, statement: ast.stmt, lines: Sequence[str]) -> str:
        indent = self.indent(statement)
        return "".join(f"{indent}{line}\n" if line else "\n" for line in lines)

    def _simple(self, statement: ast.stmt, lines: Sequence[str]) -> Sequence[str]:
        """Lines, if they may stand beside a statement on one.

        Raises:
            EditError: They may not.
        """
        if any(line.endswith(":") or line[:1].isspace() for line in lines):
            raise EditError(f"{self.file}: line {statement.lineno} holds several statements")
        return [line for line in lines if line]

    def keyword(self, call: ast.Call, name: str, text: str, *, position: int | None = None) -> Edit:
        """A keyword argument of a call, given or changed.

        Args:
            call: The call.
            name: Of the argument.
            text: Its value.
            position: Where it may be given without its name.

        Returns:
            The edit.

        Raises:
            EditError: It may be among arguments that are given as a whole, by `*` or `**`.
        """
        given = argument(call, name, position)
        if given is not None:
            return self.replace(given, text)
        starred = position is not None and any(isinstance(a, ast.Starred) for a in call.args)
        if starred or any(k.arg is None for k in call.keywords):
            raise EditError(f"{name} may be among arguments that line {call.lineno} gives as a whole")
        _, end = self.span(call)
        arguments = [*call.args, *(k.value for k in call.keywords)]
        if not arguments:
            return Edit(self.file, end - 1, end - 1, f"{name}={text}")
        last = max(self.span(a)[1] for a in arguments)
        if last == end:
            raise EditError(f"line {call.lineno} gives nothing but a generator")
        closing = re.match(r"(?:\s*\))*", self.text[last:end])
        brackets = closing.group() if closing else ""  # around the last argument, and the call's own
        last += len(brackets[:-1].rstrip() if last + len(brackets) == end else brackets)
        return Edit(self.file, last, last, f", {name}={text}")

    def imports(self, name: str, line: str) -> list[Edit]:
        """The import of a name, where the file doesn't have it at its top; `line` is put behind the imports that it begins with."""
        for node in self.tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                for alias in node.names:
                    if (alias.asname or alias.name.partition(".")[0]) == name:
                        return []
        head = list(itertools.takewhile(_may_lead, self.tree.body))
        return [self.after(head[-1], [line], rank=-9) if head else self.before(self.tree.body[0], [line], rank=-9)]

    def alias(self, module: str) -> str:
        """The name by which a module goes in this file, "" where it isn't imported: "nn" for `torch.nn`."""
        for node in self.nodes(ast.stmt):
            if self.function(node) is not self.tree:
                continue
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name == module and (alias.asname or "." not in module):
                        return alias.asname or alias.name
            if isinstance(node, ast.ImportFrom) and node.module == module.rpartition(".")[0] and not node.level:
                for alias in node.names:
                    if alias.name == module.rpartition(".")[2]:
                        return alias.asname or alias.name
        parent, _, name = module.rpartition(".")
        outer = self.alias(parent) if parent else ""
        return f"{outer}.{name}" if outer else ""


def own_files(script: str | Path) -> list[Path]:
    """A script and the files beside it that it imports, and those that they import, as far as imports can be read from their text."""
    found, waiting = dict[Path, None](), [Path(script)]
    folder = Path(script).parent
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found[path] = None
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                start = [node.module] if node.module else []
                names = [".".join([*start, a.name]) for a in node.names] + start
            begin = path.parent if isinstance(node, ast.ImportFrom) and node.level else folder
            for name in names:
                parts = name.split(".")
                waiting += [begin.joinpath(*parts).with_suffix(".py"), begin.joinpath(*parts, "__init__.py")]
    return list(found)


def digest_of(text: str) -> str:
    """Of a file's text, whatever its lines are ended by."""
    return hashlib.sha256(text.replace("\r\n", "\n").replace("\r", "\n").encode()).hexdigest()


def called(call: ast.Call) -> str:
    """The dotted name that a call calls, "" where it isn't one: "torch.optim.SGD"."""
    parts: list[str] = []
    node: ast.expr = call.func
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    elif not parts:
        return ""
    else:
        parts.append("")
    return ".".join(reversed(parts))


def argument(call: ast.Call, name: str, position: int | None = None) -> ast.expr | None:
    """An argument of a call by its name or position, None where it isn't given."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    if position is not None and position < len(call.args) and not any(isinstance(a, ast.Starred) for a in call.args):
        return call.args[position]
    return None


def _has(function: Function | ast.Lambda, name: str) -> bool:
    """Whether a function has an argument of a name."""
    args = function.args
    return any(a.arg == name for a in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg) if a)


def _may_lead(statement: ast.stmt) -> bool:
    """Whether a statement may stand at the top of a file before imports are over: it is one, or the file's docstring."""
    words = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return words or isinstance(statement, (ast.Import, ast.ImportFrom))


def number_in(expression: ast.expr) -> float | None:
    """The number that a literal is, or a power, product or quotient of some; None where it is none."""
    try:
        value = ast.literal_eval(expression)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        if (
            isinstance(expression, ast.BinOp)
            and isinstance(expression.op, (ast.Pow, ast.Div, ast.Mult))
            and (left := number_in(expression.left)) is not None
            and (right := number_in(expression.right)) is not None
        ):
            try:
                value = (
                    left**right
                    if isinstance(expression.op, ast.Pow)
                    else left / right
                    if isinstance(expression.op, ast.Div)
                    else left * right
                )
            except (ArithmeticError, ValueError):
                return None
        else:
            return None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


# ---------------------------------------------------------------------- putting edits together


def edited(source: Source, edits: Iterable[Edit]) -> str:
    """The text with all edits of this file made.

    Raises:
        EditError: Two of them are of the same place, or what they make is no Python.
    """  # noqa: DOC502
    text, _ = _put_together(source, _in_order(edits))
    _parsed(source, text)
    return text.replace("\n", source.newline)


def diff(source: Source, text: str, *, name: str) -> str:
    """A unified diff from a file to what `edited` made of it, with the line ends of each, as `patch -p1` takes it.

    Args:
        source: The file.
        text: What `edited` made of it.
        name: The file's path in the diff.
    """
    before, after = ([*map(_ended, _LINE.findall(t))] for t in (source.text.replace("\n", source.newline), text))
    return "".join(difflib.unified_diff(before, after, f"a/{name}", f"b/{name}"))


def _ended(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def compiled(source: Source, edits: Iterable[Edit], *, filename: str | None = None) -> CodeType:
    """The changed file as code, its lines numbered as in the original; added lines have the number of the one they follow.

    Raises:
        EditError: Two edits are of the same place, or what they make is no Python.
    """  # noqa: DOC502
    text, lines = _put_together(source, _in_order(edits))
    tree = _parsed(source, text)
    for node in ast.walk(tree):
        if hasattr(node, "lineno"):
            for name in ("lineno", "end_lineno"):
                setattr(node, name, lines[min(getattr(node, name) or 1, len(lines)) - 1])
            if node.end_lineno == node.lineno and node.end_col_offset < node.col_offset:  # pyright: ignore[reportAttributeAccessIssue]
                node.end_col_offset = node.col_offset  # pyright: ignore[reportAttributeAccessIssue]
    return compile(tree, filename or source.file, "exec", dont_inherit=True)


def _parsed(source: Source, text: str) -> ast.Module:
    try:
        return ast.parse(text.removeprefix(_BOM))
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise EditError(f"{source.file}: the changed line {error.lineno} is no Python: {line}") from None


def _in_order(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    return tuple(sorted(dict.fromkeys(edits), key=lambda e: (e.start, e.end, e.rank)))


@functools.lru_cache(maxsize=64)
def _put_together(source: Source, edits: tuple[Edit, ...]) -> tuple[str, list[int]]:
    """The text, and the original line of each of its lines.

    Raises:
        EditError: Two edits are of the same place.
    """
    parts: list[str] = []
    lines: list[int] = []
    at = line = 0  # line: number of line ends so far in the original

    def add(text: str, *, ours: bool) -> None:
        nonlocal line
        parts.append(text)
        follows = ours and edit.start == edit.end and source.text[: edit.start].endswith("\n")
        for _ in range(text.count("\n")):
            lines.append(max(1, line if follows else line + 1))
            if not ours:
                line += 1

    for edit in edits:
        if edit.file != source.file:
            continue
        if edit.start < at:
            raise EditError(f"{source.file}: two changes are of the same place, around line {line + 1}")
        add(source.text[at : edit.start], ours=False)
        before = line
        add(edit.text, ours=True)
        line = before + source.text[edit.start : edit.end].count("\n")
        at = edit.end
    add(source.text[at:], ours=False)
    lines.append(line + 1)
    return "".join(parts), lines
