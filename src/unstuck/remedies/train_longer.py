"""More steps."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.source import Edit, EditError, Source, called, number_in
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

_QUICK = 0.5  # seconds of training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """Three times as long, and ten times; a hundred times where steps take next to no time."""
    record = script.record
    seconds = record.steps * record.series("step_seconds").median()  # the first steps take longer than all others
    return [{"times": 10}, {"times": 100}] if 0 < seconds < _QUICK else [{"times": 3}, {"times": 10}]


def train_longer(script: Script, *, times: float = 3) -> list[Edit]:
    """The outermost loop around backward, several times as often.

    Args:
        script: The script.
        times: How many times as long.

    Returns:
        The edits.

    Raises:
        EditError: There is no loop that counts.
    """
    source, loops = script.loops()
    for loop in reversed(loops):
        bound = bound_of(loop)
        if bound is not None:
            return [_more(source, bound, times)]
    raise EditError("training is in no loop that counts up to a number")


def bound_of(loop: ast.For | ast.While) -> ast.expr | None:
    """What a loop counts up to."""
    if isinstance(loop, ast.While):
        test = loop.test
        less = (
            isinstance(test, ast.Compare)
            and len(test.ops) == 1
            and isinstance(test.ops[0], (ast.Lt, ast.LtE, ast.NotEq))
        )
        return test.comparators[0] if less and isinstance(test, ast.Compare) and not _of_data(test) else None
    for node in ast.walk(loop.iter):
        if (
            isinstance(node, ast.Call)
            and called(node).rpartition(".")[2] in ("range", "trange")
            and 1 <= len(node.args) <= 3
            and not _of_data(node)
        ):
            return node.args[min(len(node.args) - 1, 1)]
    return None


def _of_data(node: ast.AST) -> bool:
    """Whether a bound is the number of samples or batches, of which there are no more."""
    calls = [called(n).rpartition(".")[2] for n in ast.walk(node) if isinstance(n, ast.Call)]
    return bool({"len", "size"} & {*calls}) or any(
        isinstance(n, ast.Attribute) and n.attr == "shape" for n in ast.walk(node)
    )


def _more(source: Source, bound: ast.expr, times: float) -> Edit:
    number = source.constant(bound)
    if number is not None:
        return source.replace(number, str(round(times * (number_in(number) or 0))))
    text = source.of(bound)
    plain = isinstance(bound, (ast.Name, ast.Attribute, ast.Call, ast.Subscript))
    product = f"{times:g} * {text if plain else f'({text})'}"
    return source.replace(bound, product if float(times).is_integer() else f"round({product})")


def treat(training: Training, record: Record, *, times: float = 3) -> None:
    """More epochs."""
    training.epochs = max(1, round(times * training.epochs))
