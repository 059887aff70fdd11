"""Sensitivities that are moved over many steps at once."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from unstuck.recurrent._cotangents import Passed, through_shared
from unstuck.recurrent._influence import operands, pieces
from unstuck.recurrent._sensitivity import Ends, clear


class Block:
    """Exact, all steps at once: gradients by all units of the states after them go back together.

    What they give by the parameters, D, and by the states before, J, make the new derivatives D + J S of the old ones S. The loss
    goes back with them as one more row, which then is its gradient by the parameters.

    Source:
        Schmidhuber 1992, with all outer products of the steps as one matrix product.
    """

    def __init__(self, passed: Passed) -> None:
        self._widths = passed.widths
        self._units = sum(self._widths.values())
        self.cut = pieces(passed.loop)
        # By sample and piece, `(size, units + 1, width)`, in which products are fastest; the last row is the loss's.
        self._of = [[new.zero_() for new in self._new(passed)] for _ in range(passed.batch)]
        self._spare = self._new(passed)
        self._room = passed.loop.x.new_empty(0), passed.loop.x.new_empty(0)

    def _new(self, passed: Passed) -> list[Tensor]:
        return [passed.loop.x.new_empty(p.size, self._units + 1, p.width) for p in self.cut]

    def advance(self, passed: Passed, grads: Tensor | None, ends: Ends) -> list[Tensor]:
        """See `Sensitivity`."""
        mapped = operands(passed)
        found = [passed.loop.x.new_zeros(p.size, p.width) for p in self.cut]
        for sample, old in enumerate(self._of):
            new, carry = self._spare, self._rows(passed, sample, ends)
            self._direct(passed, sample, carry, grads, mapped, new)
            by_state = torch.cat([carry[name] for name in self._widths], -1)
            for direct, before, total in zip(new, old, found, strict=True):
                torch.baddbmm(direct, by_state.expand(len(direct), -1, -1), before[:, :-1], out=direct)
                total += direct[:, -1]
            self._of[sample], self._spare = new, old
        return [f.t() for f in found]

    def _direct(
        self, passed: Passed, sample: int, carry: dict[str, Tensor], grads: Tensor | None, mapped: Mapping[str, Tensor], into: list[Tensor]
    ) -> None:  # fmt: skip
        """Takes the rows back, and puts what they are by the parameters into `into`."""
        rows = self._units + 1
        most = max(32, *(p.size for p in self.cut))  # so that what rows leave needs no more room than derivatives
        for stop in range(passed.time, 0, -most):
            steps = slice(max(0, stop - most), stop)
            part = passed.part(steps)
            slab, outer = self._rooms(part)
            outer[:, -1] = 0.0 if grads is None else grads[steps, sample]
            back = through_shared(part, sample, carry, outer.flatten(0, 1), slab)
            for piece, sums in zip(self.cut, into, strict=True):
                source = piece.source(back).reshape(part.time, rows * piece.width)
                total, what = sums.view(piece.size, rows * piece.width), mapped[piece.mapped][steps, sample]
                torch.addmm(total, what.t(), source, beta=float(stop < passed.time), out=total)

    def _rooms(self, part: Passed) -> tuple[Tensor, Tensor]:
        """Room for gradients by the columns, and gradients by the outputs; kept, as fresh memory takes as long as the work itself."""
        rows, width = self._units + 1, next(iter(self._widths.values()))
        columns = len(part.loop.programs.columns) * part.loop.units
        if len(self._room[0]) < part.time * rows:
            like = part.loop.x
            self._room = like.new_empty(part.time * rows, columns), like.new_zeros(part.time, rows, width)
        return self._room[0][: part.time * rows], self._room[1][: part.time]

    def _rows(self, passed: Passed, sample: int, ends: Ends) -> dict[str, Tensor]:
        """A one for each unit of each state, and the loss below."""
        found, first = {}, 0
        for name, width in self._widths.items():
            found[name] = passed.loop.x.new_zeros(self._units + 1, width)
            found[name][first : first + width].fill_diagonal_(1.0)
            if name in ends:
                found[name][-1] = ends[name][sample]
            first += width
        return found

    def reset(self, which: Tensor) -> None:
        """See `Sensitivity`."""
        clear(self._of, which)

    def held(self) -> list[Tensor]:
        """See `Sensitivity`."""
        return [t for found in (*self._of, self._spare, self._room) for t in found]

    def by_unit(self) -> list[Tensor]:
        """See `Sensitivity`."""
        return [torch.stack(samples)[:, :, :-1].permute(0, 2, 3, 1) for samples in zip(*self._of, strict=True)]


class EachStep:
    """The block way with blocks of one step, for cells that have no simpler one."""

    def __init__(self, passed: Passed) -> None:
        self._block = block = Block(passed)
        self.cut, self.reset, self.held, self.by_unit = block.cut, block.reset, block.held, block.by_unit

    def advance(self, passed: Passed, grads: Tensor | None, ends: Ends) -> list[Tensor]:
        """See `Sensitivity`."""
        found = [
            self._block.advance(
                passed.part(slice(t, t + 1)),
                None if grads is None else grads[t, None],
                ends if t == passed.time - 1 else {},
            )
            for t in range(passed.time)
        ]
        return [functools.reduce(torch.add, parts) for parts in zip(*found, strict=True)]
