"""Batches of any size, made of the batches that were kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
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
        self.size, batched, self.cut = _batch_axes(tape, bench.training.batch_size)
        self.counters = [i for i, t in enumerate(tape.data) if _counts(t) and len(t) == self.size]
        self.places = {i: place for i, place in batched.items() if i not in self.counters}
        self._gather()
        known = {*self.batched, *self.counters}
        others = {i: place for i, t in enumerate(tape.data) if i not in known and (place := _only(t, self.size))}
        if not self._works() and others:  # such as a first hidden state: a row a sample, and neither input nor target
            self.places |= others
            self._gather()
        if not self._works():
            raise MisuseError(f"the network takes batches of {self.size} samples only")
        self.reduction = self._reduction()

    @property
    def batched(self) -> list[int]:
        """Numbers of the data that a batch has of its own."""
        return [*self.places, *((self.cut.offsets, *self.cut.joined) if self.cut is not None else ())]

    def _gather(self) -> None:
        """All samples of all batches that are alike but for their number."""
        last = self.bench.tapes[-1]
        alike = [t for t in self.bench.tapes if self._is_like(t, last)]
        self.pieces = self.cut.pieces(alike) if self.cut is not None else {}
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
        if self.cut is not None:
            counts.add(len(tape.data[self.cut.offsets]) - self.cut.ends)
        return len(counts) == 1

    def data(self, size: int, first: int = 0) -> list[Tensor]:
        """The data of a batch.

        Args:
            size: Samples in it.
            first: Number of the first of them; behind the last the first comes again.

        Returns:
            As a tape has it.
        """
        return self._of((torch.arange(size) + first) % self.count)

    def _of(self, samples: Tensor) -> list[Tensor]:
        """The data of a batch of these samples, by their numbers."""
        made = list(self.bench.tapes[-1].data)
        for i, (at, times) in self.places.items():
            rows = self.rows[i]
            which = (samples[:, None] * times + torch.arange(times)).flatten()
            made[i] = rows.index_select(at, which.to(rows.device))
        for i in self.counters:
            made[i] = torch.arange(len(samples), dtype=made[i].dtype, device=made[i].device)
        if self.cut is not None:
            self.cut.join(made, self.pieces, samples.tolist())
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
        samples = torch.arange(self.size) % self.count
        with torch.no_grad():
            values = [float(self.loss(self._of(samples.repeat(n)), train=False)) for n in (1, 2)]
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


@dataclass(frozen=True)
class _Cut:
    """Samples of several lengths that lie one behind the other, as `nn.EmbeddingBag` takes them.

    Attributes:
        offsets: Number of the datum that has where each of them begins.
        joined: Numbers of the data in which they lie: words, and maybe a weight of each.
        ends: 1 where the offsets have the end of the last one too, else 0.
    """

    offsets: int
    joined: tuple[int, ...]
    ends: int

    def pieces(self, tapes: Sequence[Tape]) -> dict[int, list[Tensor]]:
        """All samples of some batches, by the datum that they are of."""
        return {i: [piece for tape in tapes for piece in self._pieces(tape, i)] for i in self.joined}

    def _pieces(self, tape: Tape, index: int) -> list[Tensor]:
        whole, starts = tape.data[index], tape.data[self.offsets].tolist()
        return [whole[a:b] for a, b in pairwise(starts if self.ends else [*starts, len(whole)])]

    def join(self, data: list[Tensor], pieces: Mapping[int, Sequence[Tensor]], samples: Sequence[int]) -> None:
        """Puts samples, one behind the other, and where they begin into the data of a batch."""
        for i in self.joined:
            data[i] = torch.cat([pieces[i][k] for k in samples])
        starts = [0, *accumulate(len(pieces[self.joined[0]][k]) for k in samples)]
        old = data[self.offsets]
        data[self.offsets] = torch.tensor(starts if self.ends else starts[:-1], dtype=old.dtype, device=old.device)


def _cut(tape: Tape, size: int) -> _Cut | None:
    """How samples of several lengths lie one behind the other, so many of them; None where they don't."""
    for i in tape.inputs:
        starts = tape.data[i]
        if starts.dim() != 1 or starts.is_floating_point() or len(starts) not in (size, size + 1) or _counts(starts):
            continue
        first, last = int(starts[0]), int(starts[-1])
        if first or bool((starts.diff() < 0).any()):
            continue
        others = [j for j in tape.inputs if j != i and tape.data[j].dim() and len(tape.data[j]) not in (size, size + 1)]
        ends = len(starts) - size
        if others and all(len(tape.data[j]) == len(tape.data[others[0]]) and len(tape.data[j]) >= last for j in others):
            return _Cut(i, tuple(others), ends) if not ends or last == len(tape.data[others[0]]) else None
    return None


def _batch_axes(tape: Tape, told: int) -> tuple[int, dict[int, tuple[int, int]], _Cut | None]:
    """Samples in a batch; of inputs and targets the axis that they lie along, and entries along it a sample; and which are cut otherwise.

    Raises:
        MisuseError: It can't be told.
    """
    known = [i for i in (*tape.targets, *tape.inputs) if tape.data[i].dim()]
    sizes = [told, *(len(tape.data[i]) for i in known)]
    for size in dict.fromkeys(sizes):
        cut = _cut(tape, size)
        whole = known if cut is None else [i for i in known if i not in (cut.offsets, *cut.joined)]
        placed = {i: _placed(tape.data[i], size) for i in whole}
        places = {i: place for i, place in placed.items() if place is not None}
        first = all(at == 0 for at, _ in places.values())
        times = [times for _, times in places.values()]
        if whole and len(places) == len(placed) and 1 in times and (first or set(times) == {1}):
            return size, places, cut
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
        dataclasses.replace(call, args=_mapped(call.args, change), kwargs=_mapped(call.kwargs, change))
        for call in tape.calls
    ]
    return dataclasses.replace(tape, calls=calls, data=data, versions=[t._version for t in data])


def _only(tensor: Tensor, size: int) -> tuple[int, int] | None:
    """The only axis of this length."""
    axes = [i for i, length in enumerate(tensor.shape) if length == size]
    return (axes[0], 1) if len(axes) == 1 else None
