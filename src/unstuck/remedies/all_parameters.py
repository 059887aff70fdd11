"""Every parameter in the optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.source import Edit, EditError, argument
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """The one way."""
    return [{}]


def all_parameters(script: Script) -> list[Edit]:
    """The optimizer is given all parameters of the network.

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: It can't be told what the optimizer is given, or how the network is named there.
    """
    made = script.optimizer()
    given = argument(made.call, "params", 0)
    if given is None:
        raise EditError("it can't be told what the optimizer is given")
    whole = f"{script.model}.parameters()"
    if made.source.of(given) == whole:
        raise EditError("the optimizer is given all parameters of the network already")
    return [made.source.replace(given, whole)]


def treat(training: Training, record: Record) -> None:
    """Gives the optimizer all parameters of the model.

    Raises:
        EditError: It has them already.
    """
    from unstuck.remedies._training import given

    if not given(training, list(training.model.parameters())):
        raise EditError("the optimizer is given all parameters of the network already")
