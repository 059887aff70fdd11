"""The network in the script's text: by which name it goes where, and where it is evaluated."""

from __future__ import annotations

import ast
import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from unstuck.program import Script
from unstuck.source import EditError, Function, Loop, Source, argument, called

_GRADLESS = frozenset({"no_grad", "inference_mode"})
_TRAINS = frozenset({"backward", "step"})
_DEVICE = re.compile(r"device|cuda|mps|xpu", re.IGNORECASE)


@dataclass(frozen=True)
class Evaluations:
    """Where the network is evaluated.

    Attributes:
        source: The file.
        uses: Where its name stands for what is evaluated: in calls of it, in what functions that evaluate are given, in `net.eval()`.
        statements: That evaluate, or call a function that does, and train nothing; the outermost ones, in the order of the text.
        direct: Those of them that evaluate themselves.
        functions: That evaluate, and the name by which each knows the network.
    """

    source: Source
    uses: tuple[ast.Name, ...]
    statements: tuple[ast.stmt, ...]
    direct: tuple[ast.stmt, ...]
    functions: tuple[tuple[Function, str], ...]


def name_at(script: Script, source: Source, node: ast.AST) -> str:
    """What the network is called where a node is.

    Raises:
        EditError: It isn't known there.
    """
    name, home = script.model, script.place
    head = name.partition(".")[0].partition("[")[0]
    made = script.optimizer() if script.sites("optimizer") else script.root()
    if source is home and _scope(source, node, head) is _scope(home, made.call, head):
        return name
    function = source.function(node)
    if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) and source is home:
        given = {_parameter(source, function, call, name) for call in source.calls(function)}
        if len(given) == 1 and (known := given.pop()):
            return known
    raise EditError(f"it isn't known by which name the network goes on line {getattr(node, 'lineno', 1)}")


def parameters_at(script: Script, source: Source, node: ast.AST) -> str:
    """What the parameters that are trained are called where a node is: those of the network, else what the optimizer holds.

    Raises:
        EditError: Neither is known there.
    """
    if script.is_module:
        try:
            return f"{name_at(script, source, node)}.parameters()"
        except EditError:
            pass
    if script.sites("optimizer"):
        made = script.optimizer()
        given = argument(made.call, "params", 0)
        here = made.source is source and source.function(node) in (source.function(made.call), source.tree)
        if here and isinstance(given, (ast.List, ast.Name)) and "{" not in source.of(given):
            return source.of(given)
        return f'[p for group in {script.stepping}.param_groups for p in group["params"]]'
    names = [p.name for p in script.record.program.parameters if p.name.isidentifier()]
    if not names:
        raise EditError("the parameters aren't known by their names")
    return f"[{', '.join(names)}]"


def device_at(script: Script, source: Source, node: ast.AST) -> str:
    """The device of the network as it may be written where a node is, "" where the script moves nothing to one.

    Raises:
        EditError: It isn't known there.
    """
    moves = [
        c
        for c in source.nodes(ast.Call)
        if isinstance(c.func, ast.Attribute) and c.func.attr in ("to", "cuda", "to_empty")
    ]
    moves = [c for c in moves if c.func.attr == "cuda" or _DEVICE.search(source.of(c))]  # pyright: ignore[reportAttributeAccessIssue]
    if not moves:
        return ""
    for move in moves:
        given = argument(move, "device", 0)
        if isinstance(given, ast.Constant) and isinstance(given.value, str):
            return f'"{given.value}"'
        head = given
        while isinstance(head, ast.Attribute):
            head = head.value
        if isinstance(head, ast.Name) and given is not None and is_bound(source, head, node):
            return source.of(given)
        if given is None and "is_available" not in source.text:
            return '"cuda"'
    with contextlib.suppress(EditError):
        name = name_at(script, source, node)
        made = [s for s in source.binds(name.partition(".")[0]) if source.function(s) is source.function(node)]
        if not made or min(s.lineno for s in made) < node.lineno:  # pyright: ignore[reportAttributeAccessIssue]
            return f"next({name}.parameters()).device"
    raise EditError(f"it isn't known on line {getattr(node, 'lineno', 1)} on which device the network is")


def is_bound(source: Source, name: ast.expr | None, node: ast.AST) -> bool:
    """Whether a name stands for the same where a node is, and has its value there already."""
    if not isinstance(name, ast.Name):
        return False
    scope = _scope(source, node, name.id)
    if scope is not _scope(source, name, name.id):
        return False
    if source.function(node) is not scope:
        return True
    given = [s for s in source.binds(name.id) if source.function(s) is scope]
    return not given or min(s.lineno for s in given) < node.lineno  # pyright: ignore[reportAttributeAccessIssue]


def evaluations(script: Script) -> Evaluations:
    """Where the network is evaluated.

    Raises:
        EditError: It isn't, as far as can be seen, or goes by no plain name.
    """
    name, source = script.model, script.place
    if not name.isidentifier():
        raise EditError(f"the network goes by no plain name, but by {name}")
    made = script.optimizer() if script.sites("optimizer") else script.root()
    home = _scope(source, made.call, name)
    finder = _Finder(script, source, name, home)
    uses: list[ast.Name] = []
    statements: dict[ast.stmt, bool] = {}
    functions: dict[tuple[Function, str], None] = {}
    for use in source.nodes(ast.Name):
        if use.id != name or not isinstance(use.ctx, ast.Load) or _scope(source, use, name) is not home:
            continue
        function = finder.evaluated_by(use)
        if function is None:
            continue
        uses.append(use)
        if isinstance(function, tuple):
            functions[function] = None
        for statement in finder.outermost(use):
            statements[statement] = function is True or statements.get(statement, False)
    if not statements:
        raise EditError("the script evaluates nothing, as far as can be seen")
    ordered = sorted(statements, key=lambda s: s.lineno)
    direct = tuple(s for s in ordered if statements[s])
    return Evaluations(source, tuple(uses), tuple(ordered), direct, tuple(functions))


class _Finder:
    """Tells evaluation from training, in one file."""

    def __init__(self, script: Script, source: Source, name: str, home: ast.AST) -> None:
        self.source, self.name, self.home = source, name, home
        self.place, self.training = script.statement("backward")
        self.end = 0
        try:
            where, loops = script.loops()
            self.end = max(loop.end_lineno or 0 for loop in loops) if where is source else 0
        except EditError:
            pass

    def evaluated_by(self, use: ast.Name) -> tuple[Function, str] | bool | None:
        """The function that evaluates the network and its name there, True where it is evaluated in place; None where it isn't."""
        source = self.source
        outer = source.parents[use]
        function = source.function(use)
        if isinstance(outer, ast.Attribute):
            called_ = source.parents[outer]
            return True if outer.attr == "eval" and isinstance(called_, ast.Call) and called_.func is outer else None
        if isinstance(outer, ast.keyword):
            outer = source.parents[outer]
        if not isinstance(outer, ast.Call):
            return None
        if (
            function is not self.home
            and isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
            and self._evaluates(function)
        ):
            return (function, self.name) if outer.func is use else self._given_to(outer, use)
        gradless = self.is_gradless(use)
        if outer.func is use:
            return True if gradless or self._is_after(use) else None
        known = self._given_to(outer, use)
        return known or (True if gradless else None)

    def _given_to(self, call: ast.Call, use: ast.Name) -> tuple[Function, str] | None:
        for function in self.source.nodes(ast.FunctionDef):
            if isinstance(call.func, ast.Name) and call.func.id == function.name and self._evaluates(function):
                parameter = _parameter(self.source, function, call, use.id)
                return (function, parameter) if parameter else None
        return None

    def _evaluates(self, function: Function) -> bool:
        """Whether a function takes no gradient, and trains nothing."""
        if _calls(function, _TRAINS) or self._trains(function):
            return False
        plain = any(_last(d.func if isinstance(d, ast.Call) else d) in _GRADLESS for d in function.decorator_list)
        return plain or any(_is_gradless(n) for n in ast.walk(function)) or _calls(function, {"eval"})

    def is_gradless(self, node: ast.AST) -> bool:
        """Whether no gradient is taken where a node is, or the network was put into evaluation mode just before, in the same block."""
        inside: ast.AST = node
        for outer in self.source.around(node):
            if _is_gradless(outer):
                return True
            if isinstance(inside, ast.stmt) and self._follows_eval(outer, inside):
                return True
            if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef)):
                return False
            inside = outer
        return False

    def _follows_eval(self, outer: ast.AST, statement: ast.stmt) -> bool:
        if _calls(statement, _TRAINS):
            return False
        for _, block in ast.iter_fields(outer):
            if isinstance(block, list) and statement in block:
                for before in reversed(block[: block.index(statement)]):
                    text = self.source.of(before)
                    if text in (f"{self.name}.eval()", f"{self.name}.train(False)"):
                        return True
                    if text.startswith(f"{self.name}.train(") or _calls(before, _TRAINS):
                        return False
        return False

    def _is_after(self, node: ast.AST) -> bool:
        """Whether a node stands behind the training."""
        last = max(self.end, (self.training.end_lineno or 0) if self.place is self.source else 0)
        return node.lineno > last and bool(self.end) and isinstance(self.source.function(node), (ast.Module, ast.FunctionDef))  # pyright: ignore[reportAttributeAccessIssue]  # fmt: skip

    def outermost(self, use: ast.AST) -> Iterator[ast.stmt]:
        """The outermost statements around a use that train nothing; of a use within a function, those around its calls."""
        function = self.source.function(use)
        if function is not self.home and isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for call in self.source.calls(function):
                yield from self.outermost(call)
            return
        found = self.source.statement_of(use)
        for outer in self.source.around(found):
            if not isinstance(outer, ast.stmt) or isinstance(
                outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            ):
                break
            if self._trains(outer):
                break
            if not (isinstance(outer, ast.If) and "__name__" in self.source.of(outer.test)):
                found = outer
        yield found

    def _trains(self, statement: ast.AST) -> bool:
        """Whether training goes on within a statement, or in a function that is called there."""
        if self.training in ast.walk(statement):
            return True
        function = self.place.function(self.training)
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return False
        inside = [n for n in ast.walk(statement) if isinstance(n, ast.Call)]
        if self.place is not self.source:
            return any(last_name(call) == function.name for call in inside)
        calls = self.source.calls(function)
        return any(call in calls for call in inside)


def see_to_all(script: Script, found: Evaluations) -> None:
    """Sees to it that no evaluation is left out.

    Raises:
        EditError: Something is put into evaluation mode where it isn't known to be the network.
    """
    lines = {use.lineno for use in found.uses}
    within = [range(f.lineno, (f.end_lineno or f.lineno) + 1) for f, _ in found.functions]
    for site in script.sites("eval"):
        line = int(site.data["line"])
        known = os.path.realpath(site.data["file"]) == os.path.realpath(found.source.file)
        if not known or not (line in lines or any(line in span for span in within)):
            raise EditError(f"line {line} evaluates something, and it isn't known what")


def _scope(source: Source, node: ast.AST, name: str) -> ast.AST:
    """The function in which a name is bound that is read at a node, or the module."""
    scope: ast.AST = node
    bound = {id(source.function(s)) for s in source.binds(name)}
    while scope is not source.tree:
        scope = source.function(scope)
        if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            args = scope.args
            if any(a.arg == name for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)) or id(scope) in bound:
                return scope
    return source.tree


def _parameter(source: Source, function: Function, call: ast.Call, given: str) -> str:
    """The parameter of a function that a call gives something by its name, "" where there is none."""
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    if isinstance(source.parents[function], ast.ClassDef):
        names = names[1:]
    for name, value in zip(names, call.args, strict=False):
        if source.of(value) == given:
            return name
    return next((k.arg for k in call.keywords if k.arg and source.of(k.value) == given), "")


def _is_gradless(node: ast.AST) -> bool:
    items = node.items if isinstance(node, (ast.With, ast.AsyncWith)) else []
    return any(isinstance(i.context_expr, ast.Call) and _last(i.context_expr.func) in _GRADLESS for i in items)


def _calls(node: ast.AST, names: frozenset[str] | set[str]) -> bool:
    """Whether one of some methods is called within a node."""
    return any(
        isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr in names for n in ast.walk(node)
    )


def _last(name: ast.expr) -> str:
    return name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else ""


def outermost_loop(script: Script, source: Source, node: ast.AST) -> Loop | None:
    """The outermost loop around a node that training is in as well."""
    _, loops = script.loops()
    around = [loop for loop in source.around(node) if loop in loops]
    return around[-1] if around else None  # pyright: ignore[reportReturnType]


def last_name(call: ast.Call) -> str:
    """The last name of what a call calls."""
    return called(call).rpartition(".")[2]
