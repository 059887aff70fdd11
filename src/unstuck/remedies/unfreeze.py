"""Parameters that may learn again."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.source import Edit, EditError, Source
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """The one way."""
    return [{}]


def unfreeze(script: Script) -> list[Edit]:
    """All parameters of the network require gradients: what freezes them is taken away, wherever it stands.

    Where it isn't found they are unfrozen before the optimizer is made, so that one that is given those that require gradients is given
    all.

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: Neither the optimizer nor the network is made by a plain call, or the network has no name.
    """  # noqa: DOC502
    freezing = _freezing(script)
    if freezing:
        return freezing
    return script.before_optimizer([f"{script.model}.requires_grad_(True)"], rank=2)


def _freezing(script: Script) -> list[Edit]:
    """Takes away statements that freeze the network, or a part of it, and do nothing else."""
    source, name = script.place, script.model
    kinds = {str(e.data["root"]) for e in script.sites("module")}
    found = []
    for statement in source.nodes(ast.stmt):
        inside = any(isinstance(outer, ast.ClassDef) and outer.name in kinds for outer in source.around(statement))
        if _freezes(source, statement, "self" if inside else name):
            found.append(statement)
    return [source.without(s) for s in found if not any(outer in found for outer in source.around(s))]


def _freezes(source: Source, statement: ast.stmt, name: str) -> bool:
    """`net.requires_grad_(False)`, or `for p in net.parameters(): p.requires_grad = False`."""
    if isinstance(statement, ast.Expr):
        return _turns_off(source, statement) and source.of(statement).startswith((f"{name}.", f"{name}["))
    if isinstance(statement, ast.For) and not statement.orelse and isinstance(statement.iter, ast.Call):
        of = source.of(statement.iter.func)
        named = of.startswith((f"{name}.", f"{name}[")) and of.endswith(("parameters", "children", "modules"))
        return named and all(_turns_off(source, s) for s in statement.body)
    return False


def _turns_off(source: Source, statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign):
        off = isinstance(statement.value, ast.Constant) and statement.value.value is False
        return off and source.of(statement.targets[0]).endswith(".requires_grad")
    return source.of(statement).replace("requires_grad=", "").endswith(".requires_grad_(False)")


def treat(training: Training, record: Record) -> None:
    """All parameters of the model require gradients, and the optimizer has those that did not.

    Raises:
        EditError: All of them do already.
    """
    from unstuck.remedies._training import given

    frozen = [p for p in training.model.parameters() if not p.requires_grad]
    if not frozen:
        raise EditError("no parameter is frozen")
    training.model.requires_grad_(True)
    given(training, frozen)
