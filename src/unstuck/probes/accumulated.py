"""Losses of which several go into each update: the loss of an update that is made of one of them, and what losses are divided by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
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
    return dataclasses.replace(
        tape, calls=[*tape.calls, Call(torch.mul, (tape.root, num_batches), {})], root=Result(last, ())
    )


def divided(tape: Tape, num_samples: int, num_batches: int) -> tuple[bool, bool]:
    """Whether a loss was divided by how many samples a batch has, and by how many batches an update, in the calls that lead to it at last.

    Whoever divides by a number of samples, or of targets, is taken to divide by the other one where batches are of another size.

    Args:
        tape: Of one batch, as it was recorded.
        num_samples: In a batch.
        num_batches: That go into an update.

    Returns:
        Both; both are true where it was divided by all samples of an update at once.
    """
    counts = {num_samples, *(tape.data[i].numel() for i in tape.targets)} - {1}
    samples = batches = False
    for divisor in _divisors(tape):
        if num_batches > 1 and not batches and _is_any(divisor, {num_batches}):
            batches = True
        elif (
            num_batches > 1 and not (samples or batches) and _is_any(divisor, {num_batches * count for count in counts})
        ):
            samples = batches = True
        elif not samples and _is_any(divisor, counts):
            samples = True
    return samples, batches


def _is_any(number: float, counts: set[int]) -> bool:
    return any(math.isclose(number, count, rel_tol=_ROUNDING) for count in counts)


def _divisors(tape: Tape) -> Iterator[float]:
    """What the loss was divided by at last, the last first."""
    call = tape.calls[tape.root.call]
    while (found := _scaled(call, tape)) is not None:
        yield 1 / found[1]
        call = tape.calls[found[0].call]


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
