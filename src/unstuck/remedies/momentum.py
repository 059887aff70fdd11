"""Momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._text import literal
from unstuck.source import Edit, EditError, argument
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

_POSITIONS = {"SGD": 2, "RMSprop": 5}


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """0.9 for SGD without any, then Nesterov's; none for SGD with some."""
    made = script.record.program.optimizers
    if not made or made[0].kind != "SGD":
        return []
    if float(made[0].settings.get("momentum") or 0.0) > 0:
        return [{"momentum": 0.0}]
    return [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}]


def momentum(script: Script, *, momentum: float = 0.9, nesterov: bool = False) -> list[Edit]:
    """The momentum of the script's optimizer: steps go on where gradients agree, 1 / (1 - momentum) times as far in the end.

    Args:
        script: The script.
        momentum: From 0 to less than 1.
        nesterov: Take the gradient where the momentum leads to (Sutskever et al. 2013); of SGD alone.

    Returns:
        The edits.

    Raises:
        EditError: The optimizer isn't made by a plain call, or takes no momentum.
    """  # noqa: DOC502
    made = script.optimizer()
    kind = str(made.event.get("name"))
    _check(kind, nesterov)
    given = argument(made.call, "nesterov", 5)
    nesterovs = [made.source.keyword(made.call, "nesterov", "True", position=5)] if nesterov else []
    if momentum == 0 and given is not None:  # it takes some
        nesterovs = [made.source.replace(given, "False")]
    return [made.source.keyword(made.call, "momentum", literal(momentum), position=_POSITIONS[kind]), *nesterovs]


def _check(kind: str, nesterov: bool) -> None:
    """Sees to it that a kind of optimizer takes it.

    Raises:
        EditError: It doesn't.
    """
    if kind not in _POSITIONS:
        raise EditError(f"{kind} takes no momentum")
    if nesterov and kind != "SGD":
        raise EditError(f"{kind} has no momentum of Nesterov's")


def treat(training: Training, record: Record, *, momentum: float = 0.9, nesterov: bool = False) -> None:
    """The momentum of the optimizer.

    Raises:
        EditError: It takes none, or damps it, which Nesterov's doesn't allow.
    """
    kind, groups = type(training.optimizer).__name__, training.optimizer.param_groups
    _check(kind, nesterov)
    if nesterov and any(group["dampening"] for group in groups):
        raise EditError("the momentum is damped, and that of Nesterov's is not")
    for group in groups:
        group["momentum"] = momentum
        if nesterov or (momentum == 0 and kind == "SGD"):
            group["nesterov"] = nesterov
    if kind == "RMSprop":  # makes room for it once, when it first steps
        training.optimizer.state.clear()
