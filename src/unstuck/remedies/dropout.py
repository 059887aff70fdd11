"""More or less dropout."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._text import literal
from unstuck.source import Edit, EditError, argument, called, number_in
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

_MODULES = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout")


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """None where it holds the network back; half where it overfits."""
    return [{"p": 0.5}] if any(f.cause == "overfitting" for f in verdict.findings) else [{"p": 0.0}]


def dropout(script: Script, *, p: float = 0.0) -> list[Edit]:
    """The share of units that every dropout leaves out, layers as well as functions.

    Args:
        script: The script.
        p: The share, from 0 to 1.

    Returns:
        The edits.

    Raises:
        EditError: There is no dropout of another share that is made or called by a plain call.
    """
    calls = [(m.source, m.call, 0) for m in script.modules(*_MODULES)]
    for layer in script.record.program.layers:
        if layer.op == "dropout" and layer.module not in _MODULES:
            source, line = script.at(layer.site)
            named = [c for c in source.nodes(ast.Call, line) if called(c).rpartition(".")[2].endswith("dropout")]
            calls += [(source, c, 1) for c in named if c.args and called(c).partition(".")[0] != "self"]
    edits = []
    for source, call, position in calls:
        given = argument(call, "p", position)
        number = source.constant(given) if given is not None else None
        if number is not None and number_in(number) == p:
            continue
        edits.append(
            source.replace(number, literal(p))
            if number is not None
            else source.keyword(call, "p", literal(p), position=position)
        )
    if not edits:
        raise EditError(f"there is no dropout of another share than {literal(p)}")
    return list(dict.fromkeys(edits))


def treat(training: Training, record: Record, *, p: float = 0.0) -> None:
    """The share of units that every dropout layer leaves out.

    Raises:
        EditError: There is no layer of another share.
    """
    found = [m for m in training.model.modules() if type(m).__name__ in _MODULES and getattr(m, "p", p) != p]
    if not found:
        raise EditError(f"there is no dropout layer of another share than {literal(p)}")
    for module in found:
        setattr(module, "p", p)  # noqa: B010 - of some kind of dropout
