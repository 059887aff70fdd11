"""Training in training mode."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.source import Edit, EditError, Loop, Source
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """The one way."""
    return [{}]


def mode(script: Script) -> list[Edit]:
    """`model.train()` at the start of every pass, where dropout and batch norm are to do their work.

    In a script that evaluates in the midst of a pass it is at the start of every step.

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: Backward is called in no loop, or the network's name isn't known.
    """  # noqa: DOC502
    source, loops = script.loops()
    inner, *outer = loops
    loop = outer[0] if outer and _of_passes(script, source, inner, outer[0]) else inner
    return [source.before(loop.body[0], [f"{script.model}.train()"])]


def _of_passes(script: Script, source: Source, inner: Loop, outer: Loop) -> bool:
    """Whether the outer of two loops is beside the inner, and no mode is changed within that."""
    modes = [e.data for e in script.sites("eval") if os.path.realpath(e.data["file"]) == os.path.realpath(source.file)]
    within = any(inner in source.loops(source.statement(int(mode["line"]))) for mode in modes)
    return not within and source.function(outer) is source.function(inner)


def treat(training: Training, record: Record) -> None:
    """The model is trained in training mode.

    Raises:
        EditError: It is already.
    """
    if all(module.training for module in training.model.modules()):
        raise EditError("the model is in training mode already")
    training.model.train()
