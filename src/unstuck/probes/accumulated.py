"""Losses of which several go into each update: the loss of an update that is made of one of them, and whether they are averaged."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from unstuck.probes.tape import Call, Datum, Result, Tape

_DIVIDES = frozenset({"div", "div_", "divide", "true_divide", "__truediv__", "__itruediv__"})
_MULTIPLIES = frozenset({"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"})
_ROUNDING = 1e-3  # relative, of a factor


def as_update(tape: Tape, num_batches: int) -> Tape:
    """The tape with the loss of an update whose batches are all alike: that many times the loss of one, as backward adds it up.

    So its gradient is as long as that of the script's updates, whether or not the script divides its losses.

    Args:
        tape: Of one batch.
        num_batches: That go into an update.

    Returns:
        The tape itself for one batch an update.
    """
    if num_batches == 1:
        return tape
    last = len(tape.calls)
    return dataclasses.replace(tape, calls=[*tape.calls, Call(torch.mul, (tape.root, num_batches), {})], root=Result(last, ()))


def averages(tape: Tape, num_batches: int) -> bool:
    """Whether a loss was divided by the number of batches that go into an update, in the last calls that lead to it.

    Args:
        tape: Of one batch, as it was recorded.
        num_batches: That go into an update.

    Returns:
        True where one of the factors that the loss was multiplied with at last is one over that number.
    """
    call = tape.calls[tape.root.call]
    while (found := _scaled(call, tape)) is not None:
        before, factor = found
        if math.isclose(factor, 1 / num_batches, rel_tol=_ROUNDING):
            return True
        call = tape.calls[before.call]
    return False


def _scaled(call: Call, tape: Tape) -> tuple[Result, float] | None:
    """What a call multiplied by a number, and the number; None where it did something else."""
    name = getattr(call.what, "__name__", "")
    if name not in _DIVIDES | _MULTIPLIES or not isinstance(call.args, (tuple, list)) or len(call.args) != 2:
        return None
    one, other = call.args
    if isinstance(other, Result) and name in _MULTIPLIES:
        one, other = other, one
    number = _number(other, tape)
    if not isinstance(one, Result) or not number:
        return None
    return one, 1 / number if name in _DIVIDES else number


def _number(value: Any, tape: Tape) -> float | None:
    if isinstance(value, Datum):
        value = tape.data[value.index]
    if isinstance(value, Tensor):
        return float(value) if value.numel() == 1 else None
    return float(value) if isinstance(value, (int, float)) else None
