"""Parameters that may learn again."""

from __future__ import annotations

from typing import Any

from unstuck.program import Script
from unstuck.source import Edit
from unstuck.verdict import Verdict


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
