"""A penalty on the size of the weights that makes many of them zero."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._network import parameters_at
from unstuck.remedies._text import literal, trained_loss
from unstuck.source import Edit
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """A small one where it overfits."""
    return [{"value": 1e-3}, {"value": 1e-4}] if any(f.cause == "overfitting" for f in verdict.findings) else []


def l1(script: Script, *, value: float = 1e-4) -> list[Edit]:
    """The sum of the weights' magnitudes is added to the loss that is trained (Tibshirani 1996), so that what isn't needed becomes zero.

    Args:
        script: The script.
        value: How much of it.

    Returns:
        The edits.

    Raises:
        EditError: It can't be told what backward is called on.
    """  # noqa: DOC502
    source, statement = script.statement("backward")
    loss = trained_loss(source, statement)
    penalty = f"{literal(value)} * sum(p.abs().sum() for p in {parameters_at(script, source, statement)})"
    if isinstance(loss, (ast.Name, ast.Attribute)):
        name = source.of(loss)
        return [source.before(statement, [f"{name} = {name} + {penalty}"])]
    return [source.replace(loss, f"({source.of(loss)} + {penalty})")]


def treat(training: Training, record: Record, *, value: float = 1e-4) -> None:
    """The sum of the weights' magnitudes is added to the loss that is trained."""
    training.on_loss.append(_L1(value))


class _L1:
    """Adds it.

    Args:
        value: How much of it.
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, training: Training, loss: Tensor) -> Tensor:
        return loss + self.value * sum(p.abs().sum() for p in training.model.parameters())
