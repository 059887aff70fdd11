"""What a summed loss is divided by on its way to backward, against what it runs over.

A sum that is divided by its samples, its tokens, or what a mask leaves of them is a mean, whoever divides it. One that is divided by
a weight of somebody's choice, or by the batches that make a step, is still a sum: it grows with the batch. The gradient that arrives at
a sum is the inverse of its divisor, whatever else was added to the loss; it is read there, on the device, as a sampled backward comes by.
"""

from __future__ import annotations

import functools
import math
import statistics
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstuck.watcher.recorder import Columns, Sample

_NEAR = 1.25  # how far a divisor may be from the count that is meant: labels shifted by one, an uneven batch
_SAME = 1e-3  # rounding
_MOST_LOOKS = 1000
_MASKS = ("mul", "where")


@dataclass
class Divided:
    """What one sum was seen to be divided by.

    Attributes:
        divisors: At each look.
        counts: At each look, what the sum may be meant to be divided by: first the numbers that it adds up, then those of them that a
            mask leaves, then rows.
    """

    divisors: list[float] = field(default_factory=list)
    counts: list[np.ndarray] = field(default_factory=list)

    @property
    def divisor(self) -> float:
        """What it is divided by, 1 while that isn't known."""
        return statistics.median(self.divisors) if self.divisors else 1.0

    def is_mean(self, batches: float) -> bool:
        """Whether it is divided by what it runs over, or by more.

        Args:
            batches: Calls of backward that make a step; a mean over the step is divided by as many more.
        """
        if not self.divisors:
            return False
        several = max(1, round(batches))
        shares = np.median(self._shares, axis=0)
        meant = any(1 / _NEAR < share / times < _NEAR for share in shares for times in (1, several))
        by_batches = several > 1 and abs(self.divisor / several - 1) < _SAME
        return meant or (shares[0] >= 1 and not by_batches)

    @property
    def of_mean(self) -> float:
        """How large it is relative to its mean over all that it adds up."""
        return float(1 / np.median(self._shares, axis=0)[0]) if self.divisors else 1.0

    @property
    def _shares(self) -> np.ndarray:
        return np.array(self.divisors)[:, None] / np.stack(self.counts)

    def keep(self, rows: tuple[float, ...], columns: Columns, numbers: np.ndarray) -> None:
        """Takes one look: the gradient at the sum, and the counts that had to be made on the device."""
        weight, *counted = map(float, numbers)
        counts = np.array([*counted, *rows])
        if 0 < weight < math.inf and (counts > 0).all() and len(self.divisors) < _MOST_LOOKS:
            self.divisors.append(1 / weight)
            self.counts.append(counts)


def watch(
    node: Any,
    terms: Tensor | int,
    kept: Tensor | float,
    rows: tuple[float, ...],
    *,
    into: Divided,
    sample: Sample,
    scale: Tensor | None,
) -> None:
    """Measures what a sum is divided by as the next backward passes it.

    Args:
        node: The autograd node of the sum.
        terms: Numbers that it adds up.
        kept: Share of them that a mask leaves, from 0 to 1.
        rows: Numbers of rows, of targets and the like, that it may be meant to be averaged over; infinite where unknown.
        into: Takes what is found.
        sample: Takes it to the host.
        scale: What mixed precision multiplies the loss by, None where it doesn't.
    """

    def arrives(grads: tuple[Tensor | None, ...]) -> None:
        handle.remove()
        grad = grads[0]
        if grad is None or grad.numel() != 1:
            return
        weight = grad.detach().float().abs().reshape(())
        weight = weight if scale is None else weight / scale
        device = weight.device
        counted = [_on(device, terms), _on(device, terms) * _on(device, kept)]
        sample.put(("sum", id(into)), torch.stack([weight, *counted]), functools.partial(into.keep, rows))

    handle = node.register_prehook(arrives)


def _on(device: torch.device, number: Tensor | float) -> Tensor:
    return number.detach().float() if isinstance(number, Tensor) else torch.full((), float(number), device=device)


def sum_after(calls: Any, start: Any) -> Any:
    """The first call among these that adds up to one number what was made of `start`; None where there is none."""
    sums = [c for c in calls if c.layer is not None and c.layer.op == "sum" and not c.layer.out_shape]
    return next((c for c in sorted(sums, key=lambda c: c.order) if _draws_on(c, start)), None)


def _draws_on(call: Any, start: Any) -> bool:
    seen, todo = set(), [call]
    while todo:
        one = todo.pop()
        if one is start:
            return True
        if one not in seen and one.order > start.order:
            seen.add(one)
            todo.extend(one.inputs)
    return False


def node_of_call(trace: Any, call: Any) -> Any:
    """The autograd node of what a call gave."""
    return next(node for node, made in trace.producers.items() if made is call)


def terms_of(node: Any, otherwise: int) -> int:
    """How many numbers a call of `sum` adds up, by its autograd node."""
    sizes = getattr(node, "_saved_self_sym_sizes", None)
    return otherwise if sizes is None else math.prod(sizes)


def kept_of(call: Any, start: Any) -> Tensor | float:
    """Share of what a call adds up that is not multiplied by zero on the way from `start`, both included."""
    while call.order >= start.order:
        if call.layer is not None and call.layer.op in _MASKS and call.data:
            return call.data[0].count_nonzero() / max(1, call.data[0].numel())
        if not call.inputs:
            break
        call = call.inputs[0]
    return 1.0
