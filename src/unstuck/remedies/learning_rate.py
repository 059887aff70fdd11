"""Another learning rate."""

from __future__ import annotations

import ast
import math
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._text import literal
from unstuck.rules._learning import progress
from unstuck.rules._probes import trial
from unstuck.source import Edit, EditError, Source, argument, number_in
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

_DOWN = frozenset({"learning-rate-too-high", "non-finite", "exploding-gradient", "loss-scale", "batch-too-small"})
_UP = frozenset({"learning-rate-too-low", "undertrained", "vanishing-gradient", "ill-conditioned", "batch-too-large"})
_MORE = 0.05  # of the way from chance to perfect, that an experiment must bring to be gone by

_NAMES = ("lr", "learning_rate", "LR", "LEARNING_RATE", "eta", "step_size")


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """Rates to try: those that did best in the experiments, else a tenth and a hundredth, or ten and a hundred times the script's."""
    rate = script.record.series("lr").median()
    if not rate > 0:
        return []
    first = verdict.findings[0].cause if verdict.findings else ""
    down = first in _DOWN or progress(script.record).broke_at is not None
    factors = (0.1, 0.01, 0.001) if down else (10.0, 100.0, 1000.0) if first in _UP else (10.0, 0.1, 100.0)
    tried = trial(script.record, "from-start") or trial(script.record, "step-sizes")
    if tried is not None:
        fitting = {
            f: q
            for f, q in tried.quality.items()
            if f != 1.0 and math.isfinite(q) and (f in factors or not (down or first in _UP))
        }
        best = max(fitting, key=lambda f: fitting[f], default=0.0)
        if best and not fitting[best] < tried.own + _MORE:
            factors = tuple(sorted({*factors, best}, key=lambda f: abs(math.log10(f / best))))[:3]
    return [{"rate": float(literal(rate * factor))} for factor in factors]


def learning_rate(script: Script, *, rate: float, optimizer: int = 0) -> list[Edit]:
    """The optimizer's rate, or that of an update written by hand.

    A rate means nothing by itself: what suits depends on the optimizer, on the scale of inputs and loss, and on the curvature. Where
    schedules change it, they start from the new one.

    Args:
        script: The script.
        rate: The new rate.
        optimizer: Which of several.

    Returns:
        The edits.

    Raises:
        EditError: It can't be told where the rate is set.
    """
    if script.sites("optimizer"):
        made = script.optimizer(optimizer)
        given = argument(made.call, "lr", 1)
        number = made.source.constant(given) if given is not None else None
        if number is not None:
            return [made.source.replace(number, literal(rate))]
        return [made.source.keyword(made.call, "lr", literal(rate), position=1)]
    source, loops = script.loops()
    for place in (*loops, source.tree):
        found = _rate_by_hand(source, place)
        if found is not None:
            return [source.replace(found, literal(rate))]
    raise EditError("it can't be told where the rate is set")


def _rate_by_hand(source: Source, place: ast.AST) -> ast.expr | None:
    """The number that gradients are multiplied by in an update, without its sign; else a variable that is named like a rate."""
    for node in ast.walk(place):
        factors: list[ast.expr] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            pairs = ((node.left, node.right), (node.right, node.left))
            factors = [number for number, other in pairs if "grad" in source.of(other)]
        elif isinstance(node, ast.keyword) and node.arg == "alpha":
            factors = [node.value]
        for factor in factors:
            found = source.constant(_unsigned(factor))
            if found is not None:
                return _unsigned(found)
    if place is source.tree:
        named = [a.value for name in _NAMES for a in source.assigned(name) if a.value is not None]
        return next((_unsigned(v) for v in named if number_in(v) is not None), None)
    return None


def _unsigned(number: ast.expr) -> ast.expr:
    return number.operand if isinstance(number, ast.UnaryOp) and isinstance(number.op, ast.USub) else number


def treat(training: Training, record: Record, *, rate: float, optimizer: int = 0) -> None:
    """The optimizer's rate; those of further groups in proportion.

    Raises:
        EditError: The optimizer has no rate, or another than the only one is asked for.
    """
    from unstuck.remedies._training import set_rate

    if optimizer:
        raise EditError("there is one optimizer only")
    set_rate(training, rate)
