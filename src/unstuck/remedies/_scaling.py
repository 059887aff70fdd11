"""Where a script scales data by numbers: `x_train = x_train / 255`, `x_train, y_train = x_train / 255, y_train`, `x_train /= 255`."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from unstuck.source import Source, number_in

_TARGET = re.compile(r"^(y|ys|t|labels?|targets?)(_|$)|(_|^)(y|labels?|targets?)$")


@dataclass(frozen=True)
class Scaling:
    """A number that data are divided by, multiplied by, or lessened by.

    Attributes:
        source: The file.
        statement: The statement.
        name: The variable that holds the data, before and after.
        expression: What scales it; of `x /= 255` the statement's value.
        of: What is scaled.
    """

    source: Source
    statement: ast.stmt
    name: str
    expression: ast.expr
    of: ast.expr

    @property
    def of_target(self) -> bool:
        """Whether the variable goes by the name of a target, and not of an input."""
        return is_target(self.name)

    def of_other(self, name: str) -> str:
        """The same scaling of another variable, as a statement."""
        if isinstance(self.statement, ast.AugAssign):
            start, _ = self.source.span(self.statement.target)
            _, end = self.source.span(self.statement)
            text = self.source.text[start:end]
        else:
            text = f"{self.name} = {self.source.of(self.expression)}"
        return re.sub(rf"\b{re.escape(self.name)}\b", name, text)


def is_target(name: str) -> bool:
    """Whether a variable goes by the name of a target, and not of an input."""
    return bool(_TARGET.search(name.lower()))


def scalings(source: Source) -> list[Scaling]:
    """All in a file, in the order of its text."""
    found: list[Scaling] = []
    for statement in source.nodes(ast.stmt):
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            if isinstance(statement.op, (ast.Div, ast.Mult, ast.Sub)) and source.constant(statement.value) is not None:
                found.append(Scaling(source, statement, statement.target.id, statement.value, statement.target))
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0], statement.value
            several = (
                isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts)
            )
            pairs = zip(target.elts, value.elts, strict=True) if several else [(target, value)]  # pyright: ignore[reportAttributeAccessIssue]
            for name, expression in pairs:
                scaled = _scaled(source, expression)
                if isinstance(name, ast.Name) and scaled is not None:
                    found.append(Scaling(source, statement, name.id, expression, scaled))
    return found


def _scaled(source: Source, expression: ast.expr) -> ast.expr | None:
    """What an expression scales by a number: `x` of `x / 255`, `(x - 0.5) / 0.5` and `x.astype("float32") / 255`."""
    inner, scaled = expression, False
    while isinstance(inner, ast.BinOp) and isinstance(inner.op, (ast.Div, ast.Mult, ast.Sub)):
        if number_in(inner.right) is None and source.constant(inner.right) is None:
            return None
        inner, scaled = inner.left, True
    names = [n for n in ast.walk(inner) if isinstance(n, ast.Name)]
    return inner if scaled and names else None
