"""Parameters that may learn again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.source import Edit, EditError
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """The one way."""
    return [{}]


def unfreeze(script: Script) -> list[Edit]:
    """All parameters of the network require gradients when the optimizer is made, so that one that is given those that do is given all.

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: Neither the optimizer nor the network is made by a plain call, or the network has no name.
    """  # noqa: DOC502
    return script.before_optimizer([f"{script.model}.requires_grad_(True)"], rank=2)


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
