"""More or less weight decay."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._text import literal
from unstuck.source import Edit, EditError, Source, called
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """None where it holds the network back, some where it overfits."""
    if any(f.cause == "overfitting" for f in verdict.findings):
        return [{"value": 1e-2}, {"value": 1e-3}]
    return [{"value": 0.0}]


def weight_decay(script: Script, *, value: float = 0.0) -> list[Edit]:
    """The weight decay of the optimizer, and where it is set to 0 also penalties that the script adds to its loss.

    Args:
        script: The script.
        value: The new decay.

    Returns:
        The edits.

    Raises:
        EditError: There is neither.
    """
    edits: list[Edit] = []
    made = script.record.program.optimizers
    if script.sites("optimizer") and (value > 0 or (made and float(made[0].settings.get("weight_decay") or 0.0) > 0)):
        call = script.optimizer()
        edits.append(call.source.keyword(call.call, "weight_decay", literal(value)))
    if value == 0:
        edits += _penalties(script)
    if not edits:
        raise EditError("the script has no weight decay")
    return edits


def _penalties(script: Script) -> list[Edit]:
    """Numbers by which something is added to the loss: set to 0."""
    try:
        source, backward = script.statement("backward")
    except EditError:
        return []
    edits: dict[Edit, None] = {}
    for node in ast.walk(source.function(backward)):
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
            if "loss" in source.of(target).lower():
                edits.update(dict.fromkeys(source.replace(number, "0.0") for number in _factors(source, node)))
    return list(edits) or _without(source, backward)


def _without(source: Source, backward: ast.stmt) -> list[Edit]:
    """Takes away what is added to a call of a loss function, where no number tells how much of it."""
    for node in ast.walk(source.function(backward)):
        value = node.value if isinstance(node, (ast.Assign, ast.Expr)) else None
        for sum_ in ast.walk(value) if value is not None else ():
            if not isinstance(sum_, ast.BinOp) or not isinstance(sum_.op, ast.Add):
                continue
            terms = _terms(sum_)
            losses = [
                t
                for t in terms
                if isinstance(t, ast.Call) and re.search("loss|entropy|criterion|crit", called(t).lower())
            ]
            if len(losses) == 1 and all(isinstance(t, ast.Call) for t in terms):
                return [source.replace(sum_, source.of(losses[0]))]
    return []


def _factors(source: Source, node: ast.Assign | ast.AugAssign) -> list[ast.expr]:
    """Numbers that terms beside the loss are multiplied by; where all terms have one the first is the loss."""
    added = isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add)
    terms = [t for t in _terms(node.value) if ".item()" not in source.of(t)]
    products = [t for t in terms if isinstance(t, ast.BinOp) and isinstance(t.op, ast.Mult)]
    found = [source.constant(t.left) or source.constant(t.right) for t in products]
    numbers = [number for number in found if number is not None]
    return numbers if added or len(numbers) < len(terms) else numbers[1:]


def _terms(value: ast.expr) -> list[ast.expr]:
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        return [*_terms(value.left), *_terms(value.right)]
    return [value]


def treat(training: Training, record: Record, *, value: float = 0.0) -> None:
    """The weight decay of the optimizer, and where it is set to 0 no penalty either; groups with another keep theirs unless it is 0.

    Raises:
        EditError: There is neither, or the optimizer takes none.
    """
    optimizer = training.optimizer
    usual = optimizer.defaults.get("weight_decay")
    groups = [g for g in optimizer.param_groups if "weight_decay" in g and (g["weight_decay"] == usual or value == 0)]
    changed = [g for g in groups if g["weight_decay"] != value]
    for group in changed:
        group["weight_decay"] = value
    if not changed and (value > 0 or training.penalty is None):
        raise EditError(
            "the training has no weight decay" if value == 0 else "the optimizer takes no other weight decay"
        )
    if value == 0:
        training.penalty = None
