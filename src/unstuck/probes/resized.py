"""Batches of any size, made of the batches that were kept."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from unstuck.errors import MisuseError
from unstuck.probes.bench import Bench
from unstuck.probes.tape import Datum, Tape, _mapped

_ROUNDING = 1e-3  # relative difference of losses, up to which they are the same
_ROUNDING_OF_HALF = 2e-2  # of those of networks whose numbers have 8 or 11 bits


class Resized:
    """The data of a loss with another number of samples: rows of all batches that a bench has, in their order, again and again.

    Args:
        bench: The training.

    Attributes:
        size: Samples in a batch as the training has it.
        count: Different samples at hand.
        reduction: "mean" or "sum" over the batch, as the loss does it.

    Raises:
        MisuseError: It can't be told which axis of the data is the batch's, or the network takes batches of its own size only.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.number = len(bench.tapes) - 1
        bench.tapes[:] = [_with_ranges_as_data(tape) for tape in bench.tapes]
        tape = bench.tapes[-1]
        self.size, batched = _batch_axes(tape, bench.training.batch_size)
        self.counters = [i for i, t in enumerate(tape.data) if _counts(t) and len(t) == self.size]
        self.places = {i: place for i, place in batched.items() if i not in self.counters}
        self._gather()
        known = {*self.places, *self.counters}
        others = {i: place for i, t in enumerate(tape.data) if i not in known and (place := _only(t, self.size))}
        if not self._works() and others:  # such as a first hidden state: a row a sample, and neither input nor target
            self.places |= others
            self._gather()
        if not self._works():
            raise MisuseError(f"the network takes batches of {self.size} samples only")
        self.reduction = self._reduction()

    def _gather(self) -> None:
        """All samples of all batches that are alike but for their number."""
        last = self.bench.tapes[-1]
        alike = [t for t in self.bench.tapes if self._is_like(t, last)]
        self.rows = {i: torch.cat([t.data[i] for t in alike], at) for i, (at, _) in self.places.items()}
        first = next(iter(self.places))
        at, times = self.places[first]
        self.count = self.rows[first].shape[at] // times

    def _is_like(self, tape: Tape, last: Tape) -> bool:
        """Whether the data of a tape can be put behind that of another, each with as many samples."""
        if len(tape.data) != len(last.data):
            return False
        counts = set()
        for i, (at, times) in self.places.items():
            one, other = list(tape.data[i].shape), list(last.data[i].shape)
            if len(one) != len(other) or one[:at] + one[at + 1 :] != other[:at] + other[at + 1 :] or one[at] % times:
                return False
            counts.add(one[at] // times)
        return len(counts) == 1

    def data(self, size: int, first: int = 0) -> list[Tensor]:
        """The data of a batch.

        Args:
            size: Samples in it.
            first: Number of the first of them; behind the last the first comes again.

        Returns:
            As a tape has it.
        """
        made = list(self.bench.tapes[-1].data)
        for i, (at, times) in self.places.items():
            rows = self.rows[i]
            which = (torch.arange(size * times, device=rows.device) + first * times) % rows.shape[at]
            made[i] = rows.index_select(at, which)
        for i in self.counters:
            made[i] = torch.arange(size, dtype=made[i].dtype, device=made[i].device)
        return made

    def loss(self, data: list[Tensor], *, train: bool = True, seed: int = 0) -> Tensor:
        """The loss of a batch, with its graph."""
        return self.bench.forward(self.number, data=data, train=train, seed=seed)[0]

    def gradient(self, size: int, first: int, *, seed: int) -> list[Tensor]:
        """The gradient of a batch by what is learned, zeros where there is none; its size and first sample as in `data`."""
        learned = self.bench.learned
        found = torch.autograd.grad(self.loss(self.data(size, first), seed=seed), learned, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(learned, found, strict=True)]

    def _works(self) -> bool:
        """Whether the network takes twice as many samples, and half as many."""
        sizes = [2 * self.size, *([self.size // 2] if self.size > 1 else [])]
        try:
            with torch.no_grad():
                return all(bool(self.loss(self.data(n), train=False).isfinite()) for n in sizes)
        except (RuntimeError, ValueError, IndexError, AssertionError):  # in the script's own code: it minds the size
            return False
        finally:
            self.bench.restore()

    def _reduction(self) -> str:
        """How the loss comes from those of samples.

        Raises:
            MisuseError: The loss of a batch twice over is neither the same nor twice as large.
        """
        once = self.data(self.size)
        twice = list(once)
        for i, (at, _) in self.places.items():
            twice[i] = torch.cat([once[i], once[i]], at)
        for i in self.counters:
            twice[i] = torch.arange(2 * self.size, dtype=once[i].dtype, device=once[i].device)
        with torch.no_grad():
            values = [float(self.loss(data, train=False)) for data in (once, twice)]
        self.bench.restore()
        rounding = _ROUNDING_OF_HALF if self._is_half else _ROUNDING
        if math.isclose(values[1], values[0], rel_tol=rounding, abs_tol=1e-7):
            return "mean"
        if math.isclose(values[1], 2 * values[0], rel_tol=rounding):
            return "sum"
        raise MisuseError(
            f"the loss of a batch twice over is {values[1] / values[0]:.3g} times that of the batch, neither the same (a mean) nor twice "
            "as large (a sum): samples act on each other"
        )

    @property
    def _is_half(self) -> bool:
        """Whether anything is computed in half precision."""
        tape = self.bench.tapes[-1]
        half = any(t.is_floating_point() and t.itemsize == 2 for t in (*self.bench.tensors, *tape.data))
        return half or (tape.casts and any(call.casts for call in tape.calls))

    @property
    def batch_norms(self) -> list[str]:
        """Names of the batch norms that normalise by the batch at hand."""
        tape = self.bench.tapes[-1]
        self.bench.modes(tape, train=True)
        return [
            name
            for module in self.bench.modules
            for name, part in module.named_modules()
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and (part.training or part.running_mean is None)
        ]


def _batch_axes(tape: Tape, told: int) -> tuple[int, dict[int, tuple[int, int]]]:
    """Samples in a batch; and of all inputs and targets the axis that they lie along, and entries along it a sample.

    Raises:
        MisuseError: It can't be told.
    """
    known = [i for i in (*tape.targets, *tape.inputs) if tape.data[i].dim()]
    sizes = [told, *(len(tape.data[i]) for i in known)]
    for size in dict.fromkeys(sizes):
        placed = {i: _placed(tape.data[i], size) for i in known}
        places = {i: place for i, place in placed.items() if place is not None}
        first = all(at == 0 for at, _ in places.values())
        times = [times for _, times in places.values()]
        if known and len(places) == len(placed) and 1 in times and (first or set(times) == {1}):
            return size, places
    shapes = ", ".join(str(tuple(tape.data[i].shape)) for i in known)
    raise MisuseError(f"it can't be told which axis of the data is the batch's: their shapes are {shapes or 'unknown'}")


def _placed(tensor: Tensor, size: int) -> tuple[int, int] | None:
    """Axis of the batch, and entries along it a sample; None where it can't be told."""
    if tensor.shape[0] == size:
        return 0, 1
    if (only := _only(tensor, size)) is not None:
        return only
    if tensor.shape[0] % size == 0:  # all steps of a sequence, one sample's behind the other's
        return 0, tensor.shape[0] // size
    return None


def _counts(tensor: Tensor) -> bool:
    """Whether these are numbers of samples, 0, 1, 2 and on, as in `outputs[torch.arange(size), labels]`."""
    if tensor.dim() != 1 or tensor.is_floating_point() or tensor.dtype == torch.bool or len(tensor) < 2:
        return False
    return torch.equal(tensor, torch.arange(len(tensor), dtype=tensor.dtype, device=tensor.device))


def _with_ranges_as_data(tape: Tape) -> Tape:
    """The tape with numbers of samples as data, where the script has them as a `range`: `outputs[range(len(labels)), labels]`."""
    data = list(tape.data)
    device = data[0].device if data else None

    def change(value: Any) -> Any:
        if not isinstance(value, range) or value != range(len(value)):
            return value
        data.append(torch.arange(len(value), device=device))
        return Datum(len(data) - 1)

    calls = [
        dataclasses.replace(call, args=_mapped(call.args, change), kwargs=_mapped(call.kwargs, change)) for call in tape.calls
    ]
    return dataclasses.replace(tape, calls=calls, data=data, versions=[t._version for t in data])


def _only(tensor: Tensor, size: int) -> tuple[int, int] | None:
    """The only axis of this length."""
    axes = [i for i, length in enumerate(tensor.shape) if length == size]
    return (axes[0], 1) if len(axes) == 1 else None
