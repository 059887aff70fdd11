"""Gradients cleared once for each update, before backward."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.source import Edit, EditError, called
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """The one way."""
    return [{}]


def zero_grad(script: Script) -> list[Edit]:
    """`optimizer.zero_grad()` before backward, and none between backward and step.

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: It can't be told where backward is called, or how the optimizer is named.
    """
    source, backward = script.statement("backward")
    edits = [edit for edit in (_without(script, e.data) for e in script.sites("zero_grad")) if edit is not None]
    if script.sites("optimizer"):
        lines = [f"{script.stepping}.zero_grad()"]
    else:
        lines = [f"{p.name}.grad = None" for p in script.record.program.parameters if p.name.isidentifier()]
    if not lines:
        raise EditError("the parameters aren't known by their names")
    return [*edits, source.before(backward, lines)]


def _without(script: Script, site: Mapping[str, Any]) -> Edit | None:
    """Takes a call of `zero_grad` away that stands in the training loop."""
    source = script.source(site["file"])
    calls = [c for c in source.nodes(ast.Call, int(site["line"])) if called(c).endswith("zero_grad")]
    statement = source.statement_of(calls[0]) if calls else None
    if not isinstance(statement, ast.Expr) or not source.loops(statement):
        return None
    return source.without(statement)


def treat(training: Training, record: Record) -> None:
    """Refuses, as a `Training` clears gradients itself.

    Raises:
        EditError: Always.
    """
    raise EditError("the training clears gradients before each backward already")
