"""The mean over the batch instead of the sum."""

from __future__ import annotations

import ast
import copy
import functools
import math
from typing import TYPE_CHECKING, Any

from unstuck.program import Script, loss_of
from unstuck.source import Edit, EditError, Source, argument, called
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import LossCall, Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """The one way."""
    return [{}]


def reduction(script: Script) -> list[Edit]:
    """The loss is the mean over samples: by the argument of the loss function, else divided by their number.

    A mean that is added up over several calls of backward before a step is divided by how many these are.

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: It can't be told where the loss is computed, or over how many samples.
    """  # noqa: DOC502
    for made in script.modules(
        "MSELoss", "L1Loss", "CrossEntropyLoss", "NLLLoss", "BCELoss", "BCEWithLogitsLoss", "SmoothL1Loss"
    ):
        if _is_sum(argument(made.call, "reduction")):
            return [made.source.keyword(made.call, "reduction", '"mean"')]
    if script.loss.name != "hand-written":
        source, call = script.loss_call()
        if _is_sum(argument(call, "reduction")):
            return [source.keyword(call, "reduction", '"mean"')]
    source, line = script.at(script.loss.site)
    sums = [n for n in ast.walk(source.statement(line)) if isinstance(n, ast.Call) and _sums_all(source, n)]
    if len(sums) == 1:
        _, end = source.span(sums[0].func)
        return [Edit(source.file, end - 3, end, "mean")]
    if script.loss.reduction == "mean":
        return _accumulated(script)
    return script.loss_over(str(_count(script.record, script.loss)))


def _count(record: Record, call: LossCall) -> int:
    """Over how many samples the loss is.

    Raises:
        EditError: It isn't known.
    """
    size = record.series("batch_size").median()
    count = math.prod(call.output_shape) if call.output_shape else int(size) if size > 0 else 1
    if count == 1:
        raise EditError("it isn't known over how many samples the loss is")
    return count


def _is_sum(given: ast.expr | None) -> bool:
    return given is not None and not (isinstance(given, ast.Constant) and given.value in ("mean", "none"))


def _accumulated(script: Script) -> list[Edit]:
    """A mean over the calls of backward before a step.

    Raises:
        EditError: There is one, or they are divided already.
    """
    made = script.record.program.optimizers
    calls = round(made[0].backwards_per_step) if made else 1
    _, backward = script.statement("backward")
    if calls < 2 or any(isinstance(n, ast.Div) for n in ast.walk(backward)):
        raise EditError("the loss is a mean already")
    return script.loss_over(str(calls))


def _sums_all(source: Source, call: ast.Call) -> bool:
    """Whether a call is `x.sum()` or `torch.sum(x)`, over all of x."""
    of_torch = bool(call.args) and called(call) == f"{source.alias('torch')}.sum"
    return (
        isinstance(call.func, ast.Attribute)
        and call.func.attr == "sum"
        and not call.keywords
        and len(call.args) == of_torch
    )


def treat(training: Training, record: Record) -> None:
    """The loss is the mean over samples: by its argument, else divided by their number.

    Raises:
        EditError: It is already, or it isn't known over how many samples it is.
    """
    from unstuck.remedies._training import Over

    loss, call = training.loss, loss_of(record)
    if getattr(loss, "reduction", "mean") != "mean":
        training.loss = copy.deepcopy(loss)  # a criterion may be shared by several trainings
        setattr(training.loss, "reduction", "mean")  # noqa: B010 - of some kind of loss
        return
    if isinstance(loss, functools.partial) and "reduction" in loss.keywords:
        training.loss = functools.partial(loss, reduction="mean")
        return
    if call.reduction == "mean":
        raise EditError("the loss is a mean already")
    count = _count(record, call)
    training.on_loss.append(Over(count))
