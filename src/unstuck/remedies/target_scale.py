"""Labels that are not divided."""

from __future__ import annotations

import ast
from typing import Any

from unstuck.program import Script
from unstuck.remedies._scaling import Scaling, scalings
from unstuck.source import Edit, EditError
from unstuck.verdict import Verdict


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """The one way."""
    return [{}]


def target_scale(script: Script) -> list[Edit]:
    """Labels are left as they are where the script divides them by a number, as it does its inputs.

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: No target is divided by a number.
    """
    edits = [_undone(found) for found in scalings(script.main) if found.of_target]
    if not edits:
        raise EditError("no target is divided by a number where it could be told")
    return edits


def _undone(found: Scaling) -> Edit:
    source = found.source
    if isinstance(found.statement, ast.AugAssign):
        return source.without(found.statement)
    return source.replace(found.expression, source.of(found.of))
