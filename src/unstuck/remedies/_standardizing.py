"""Where a script standardises data by numbers that it found in data: a scaler of scikit-learn, or mean and deviation by hand."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from unstuck.source import Source, called, number_in

_STATISTIC = re.compile(
    r"(?<![a-z])(mean|mu|std|stdev|deviation|sigma|var|variance|min|max|amin|amax|low|high|ptp|median|quantile|norm|centre|center)(?![a-z])"
)
_OWN = re.compile(r"(standardi[sz]e|normali[sz]e)\w*$")


@dataclass(frozen=True)
class Standardizing:
    """An expression that standardises data.

    Attributes:
        source: The file.
        statement: The statement that it is in.
        expression: The expression; of `x -= mean` the statement's value.
        of: What is standardised.
        name: The variable that holds it.
    """

    source: Source
    statement: ast.stmt
    expression: ast.expr
    of: ast.expr
    name: str

    @property
    def whole(self) -> bool:
        """Whether all rows are standardised, and not those of one batch, or some that are cut out for it."""
        return not isinstance(self.of, ast.Subscript) or self._of_part

    @property
    def by_itself(self) -> bool:
        """Whether the numbers come from the very data, in the same expression."""
        return self.name in self._kept or self._fits_anew

    @property
    def rebinds(self) -> bool:
        """Whether the variable is another one after it."""
        if isinstance(self.statement, ast.AugAssign):
            return True
        return self.statement in self.source.binds(self.name)

    @property
    def given(self) -> set[str]:
        """Variables that hold what it standardises by: a scaler, a mean."""
        return self._kept - {self.name}

    def of_other(self, name: str) -> str:
        """The same done to another variable, by the same numbers, as a statement."""
        of = self.source.of(self.of)
        other = re.sub(rf"\b{re.escape(self.name)}\b", name, of)
        held = re.sub(rf"\b{re.escape(self.name)}\b", name, of) if self._of_part else name
        if isinstance(self.statement, ast.AugAssign):
            start, _ = self.source.span(self.of)
            _, end = self.source.span(self.statement)
            return f"{other}{self.source.text[start:end][len(of) :]}"
        start, end = self.source.span(self.expression)
        at, until = self.source.span(self.of)
        text = self.source.text[start:at] + other + self.source.text[until:end]
        if self._scaler is not None:
            scaler = self.source.of(self._scaler)
            scaler = f"{scaler}.fit({of})" if self._fits_anew else scaler
            text = f"{scaler}.transform({other})"
        return f"{held} = {text}"

    @property
    def fits(self) -> bool:
        """Whether a scaler that has a name learns its numbers here."""
        return self._scaler is not None and not self._fits_anew

    @property
    def _fits_anew(self) -> bool:
        """Whether the scaler is made in the expression, which nothing else can use."""
        return isinstance(self._scaler, ast.Call)

    @property
    def _scaler(self) -> ast.expr | None:
        """What learns its numbers here and standardises by them at once."""
        call = self.expression
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "fit_transform":
            return call.func.value
        return None

    @property
    def _of_part(self) -> bool:
        """Whether some columns are standardised in their place: `table[columns] = scaler.fit_transform(table[columns])`."""
        targets = getattr(self.statement, "targets", [])
        return isinstance(self.of, ast.Subscript) and [self.source.of(t) for t in targets] == [self.source.of(self.of)]

    @property
    def _kept(self) -> set[str]:
        inside = set(ast.walk(self.of))
        return {n.id for n in ast.walk(self.expression) if isinstance(n, ast.Name) and n not in inside}


def standardizings(source: Source) -> list[Standardizing]:
    """All in a file, in the order of its text."""
    found: list[Standardizing] = []
    for node in source.within(source.tree):
        of = _standardized(source, node)
        if of is None or isinstance(source.parents.get(node), ast.BinOp):
            continue
        expression = node.value if isinstance(node, ast.AugAssign) else node
        name = next((n.id for n in ast.walk(of) if isinstance(n, ast.Name)), "")
        if name and isinstance(expression, ast.expr):
            found.append(Standardizing(source, source.statement_of(node), expression, of, name))
    return found


def _standardized(source: Source, node: ast.AST) -> ast.expr | None:
    """What is standardised by a call or an arithmetic expression, if it is one that does."""
    if isinstance(node, ast.AugAssign):
        scales = isinstance(node.op, (ast.Sub, ast.Div)) and _is_statistic(source, node.value)
        return node.target if scales and isinstance(node.target, ast.Name) else None
    if isinstance(node, ast.Call) and node.args:
        by_scaler = isinstance(node.func, ast.Attribute) and node.func.attr in ("transform", "fit_transform")
        by_own = isinstance(node.func, ast.Name) and _OWN.search(called(node)) and len(node.args) == 1
        return node.args[0] if by_scaler or by_own else None
    inner, statistics = node, 0
    while isinstance(inner, ast.BinOp) and isinstance(inner.op, (ast.Div, ast.Mult, ast.Sub)):
        is_statistic = _is_statistic(source, inner.right)
        if not is_statistic and number_in(inner.right) is None:
            return None
        inner, statistics = inner.left, statistics + is_statistic
    return inner if statistics and isinstance(inner, ast.expr) else None


def _is_statistic(source: Source, expression: ast.expr) -> bool:
    """Whether an expression tells of data where they lie or how far they spread, by its words or by those that gave it its name."""
    texts = [source.of(expression)]
    names = {n.id for n in ast.walk(expression) if isinstance(n, ast.Name)}
    if isinstance(expression, (ast.Name, ast.BinOp)):
        given = [s for name in names for s in source.binds(name)]
        texts += [source.of(s) for s in given if isinstance(s, (ast.Assign, ast.AnnAssign))]
    return any(_STATISTIC.search(text.replace("_", " ")) for text in texts)
