"""Another learning rate."""

from __future__ import annotations

import ast
import math
from typing import TYPE_CHECKING, Any

from unstuck.program import Made, Script
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
_MORE = 0.05  # of the way from chance to perfect, that an experiment must bring to be gone by; the nearest of those is the safest

_MOST = 0.4  # of what the best brings: few updates flatter large steps (Wu et al. 2018), so a smaller one that brings so much comes first
_USUAL = {  # a rate to begin with, where a script's is far from it
    "Adam": 1e-3, "AdamW": 1e-3, "NAdam": 1e-3, "RAdam": 1e-3, "Adamax": 2e-3, "RMSprop": 1e-3, "Adagrad": 1e-2, "SGD": 1e-2,
}  # fmt: skip
_FAR = 100.0  # times it: beyond what the experiments try
_PEAKS = {"OneCycleLR": {"max_lr": 1}, "CyclicLR": {"base_lr": 1, "max_lr": 2}}
_NAMES = ("lr", "learning_rate", "LR", "LEARNING_RATE", "eta", "step_size")


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """Rates to try: those that did best in the experiments, else a tenth and a hundredth, or ten and a hundred times the script's.

    Where the script's is very far from what is usual for its optimizer, that comes first.
    """
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
        most = max(fitting.values(), default=math.nan)
        best = min((f for f in fitting if fitting[f] > most - _MORE), key=lambda f: abs(math.log10(f)), default=0.0)
        if best and not fitting[best] < tried.own + _MORE:
            factors = tuple(sorted({*factors, best}, key=lambda f: abs(math.log10(f / best))))[:3]
            nearer = min(fitting, key=lambda f: abs(math.log10(f / best) + math.copysign(1, math.log10(best))))
            if fitting[nearer] - tried.own > _MOST * (fitting[best] - tried.own):
                factors = (nearer, *(f for f in factors if f != nearer))[:3]
    made = script.record.program.optimizers
    usual = _USUAL.get(made[0].kind, rate) if made else rate
    far = (rate > _FAR * usual and down) or (rate * _FAR < usual and first in _UP)
    rates = [*([usual] if far else []), *(rate * factor for factor in factors)]
    return [{"rate": float(literal(rate))} for rate in rates]


def learning_rate(script: Script, *, rate: float, optimizer: int = 0) -> list[Edit]:
    """The optimizer's rate, or that of an update written by hand.

    A rate means nothing by itself: what suits depends on the optimizer, on the scale of inputs and loss, and on the curvature. Where
    schedules change it, they start from the new one; those that rise to a rate of their own are given another. Where groups of parameters
    have rates of their own, these keep their ratios.

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
        peaks = _peaks(script, rate) if optimizer == 0 else []
        if peaks:
            return peaks
        groups = rates_of_groups(script, made, rate)
        if groups:
            return groups
        given = argument(made.call, "lr", 1)
        number = made.source.constant(given) if given is not None else None
        if number is not None:
            return [made.source.replace(number, literal(rate))]
        if given is None and made.target and any(k.arg is None for k in made.call.keywords):
            lines = [f"for group in {made.target}.param_groups:", f'    group["lr"] = {literal(rate)}']
            return [made.source.after(made.statement, lines)]
        return [made.source.keyword(made.call, "lr", literal(rate), position=1)]
    source, loops = script.loops()
    for place in (*loops, source.tree):
        found = _rate_by_hand(source, place)
        if found is not None:
            return [source.replace(found, literal(rate))]
    raise EditError("it can't be told where the rate is set")


def rates_of_groups(script: Script, made: Made, rate: float) -> list[Edit]:
    """Other rates of groups of parameters that have rates of their own, and of the others; empty where there are none.

    Args:
        script: The script.
        made: The optimizer.
        rate: The new rate of the first group; those of the others keep their ratios to it.

    Returns:
        The edits.

    Raises:
        EditError: The rates aren't plain numbers.
    """
    source, given = made.source, argument(made.call, "params", 0)
    if isinstance(given, ast.Name) and len(assigned := source.assigned(given.id)) == 1:
        given = assigned[0].value
    groups = [g for g in given.elts if isinstance(g, ast.Dict)] if isinstance(given, (ast.List, ast.Tuple)) else []
    own = [_of_key(group, "lr") for group in groups]
    whole = argument(made.call, "lr", 1)
    if not any(own):
        return []
    rates = [value or whole for value in own] + [whole] * (whole is not None)
    numbers = [source.constant(value) if value is not None else None for value in rates]
    first = number_in(numbers[0]) if numbers[0] is not None else None
    if not first or any(number is None for number in numbers):
        raise EditError("the rates of groups of parameters aren't plain numbers")
    edits = [source.replace(n, literal(rate / first * (number_in(n) or 0))) for n in numbers if n is not None]
    return list(dict.fromkeys(edits))


def _of_key(group: ast.Dict, name: str) -> ast.expr | None:
    pairs = zip(group.keys, group.values, strict=True)
    return next((value for key, value in pairs if isinstance(key, ast.Constant) and key.value == name), None)


def _peaks(script: Script, rate: float) -> list[Edit]:
    """Other rates for a schedule that rises to one of its own, whatever the optimizer's is; empty where there is no such schedule.

    Raises:
        EditError: They aren't plain numbers.
    """
    found = [e for e in script.sites("schedule") if e.data.get("name") in _PEAKS]
    usual = script.record.series("lr").median()
    edits: list[Edit] = []
    for made in map(script.made, found[:1]):
        for name, position in _PEAKS[str(made.event["name"])].items():
            given = argument(made.call, name, position)
            number = made.source.constant(given) if given is not None else None
            if number is None or not usual > 0:
                raise EditError("the schedule's own rates aren't plain numbers")
            edits.append(made.source.replace(number, literal(rate / usual * (number_in(number) or 0))))
    return edits


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
    """The optimizer's rate, or of a schedule with rates of its own these; those of further groups in proportion.

    Raises:
        EditError: The optimizer has no rate, or another than the only one is asked for.
    """
    from unstuck.remedies._training import set_rate

    if optimizer:
        raise EditError("there is one optimizer only")
    usual = record.series("lr").median()
    if usual > 0 and any(type(s.scheduler).__name__ in _PEAKS for s in training.schedules):
        rate *= training.optimizer.param_groups[0]["initial_lr"] / usual
    set_rate(training, rate)
