"""Outputs and targets of one shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from unstuck.program import Script, loss_of
from unstuck.remedies._text import reshaped
from unstuck.source import Edit, EditError
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """The one way."""
    return [{}]


def shape(script: Script) -> list[Edit]:
    """Targets in the shape of the outputs they are compared with, so that nothing is broadcast.

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: It can't be told what the loss compares, or outputs and targets are of different size.
    """
    loss = script.loss
    if math.prod(loss.output_shape) != math.prod(loss.target_shape):
        raise EditError(f"outputs {loss.output_shape} and targets {loss.target_shape} are of different size")
    if loss.name == "hand-written":
        source, whole, output, target = script.loss_by_hand()
        same = [n for n in source.within(whole) if isinstance(n, type(target)) and source.of(n) == source.of(target)]
        text = reshaped(source.of(target), source.of(output), loss.output_shape)
        return [source.replace(n, text) for n in same]
    source, call = script.loss_call()
    if len(call.args) < 2:
        raise EditError("the loss isn't computed by a call of two arguments")
    first, second = call.args[:2]
    return [source.replace(second, reshaped(source.of(second), source.of(first), loss.output_shape))]


def treat(training: Training, record: Record) -> None:
    """Targets in the shape of the outputs that the loss compares them with.

    Raises:
        EditError: They are of different size, or of one shape already.
    """
    from unstuck.remedies._training import Changed

    loss = loss_of(record)
    if math.prod(loss.output_shape) != math.prod(loss.target_shape):
        raise EditError(f"outputs {loss.output_shape} and targets {loss.target_shape} are of different size")
    if loss.output_shape == loss.target_shape:
        raise EditError("outputs and targets are of one shape already")
    training.loss = Changed(training.loss, _like)


def _like(outputs: Any, targets: Any) -> Any:
    return targets.reshape(outputs.shape)
