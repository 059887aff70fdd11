"""Derivatives of a layer's states by its parameters, carried forward in time, in three ways.

Each way has `advance`, which takes them over some steps that were run forward and gives the gradient by the parameters of what depends
on these steps' outputs; and `reset`, which begins again for some of the samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from unstuck.recurrent._cotangents import Back, Passed, through_apart, through_diagonal, through_shared
from unstuck.recurrent._graph import Op
from unstuck.recurrent._influence import Piece, operands, pieces
from unstuck.recurrent._programs import Programs

Ends = Mapping[str, Tensor]
"""Gradients by the states after the last step, by name, each `(batch, width)`."""


class Sensitivity(Protocol):
    """Derivatives of the states by the parameters.

    Attributes:
        cut: The pieces that parameters are kept in.
    """

    cut: list[Piece]

    def advance(self, passed: Passed, grads: Tensor | None, ends: Ends) -> list[Tensor]:
        """Goes on over some steps.

        Args:
            passed: The steps.
            grads: Gradient by the outputs, `(time, batch, width)`; None where there is no loss.
            ends: Gradients by the last states.

        Returns:
            The gradient by the parameters, in pieces `(width, size)`, summed over samples.
        """
        ...

    def reset(self, which: Tensor) -> None:
        """Begins again for samples where `which`, `(batch,)`, is true."""
        ...

    def held(self) -> list[Tensor]:
        """All tensors that are kept."""
        ...

    def by_unit(self) -> list[Tensor]:
        """Derivatives in pieces, `(batch, units of all states, width, size)`."""
        ...


def is_unit_by_unit(programs: Programs) -> bool:
    """Whether new states of a unit depend on other units by linear maps of states alone."""
    graph = programs.cell.graph
    averages = any(graph.nodes[p].op is Op.MEAN for p in graph.reachable(programs.cell.states.values()))
    return programs.levels == 1 and not averages and programs.cell.projection is None


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
        _clear(self._of, which)

    def held(self) -> list[Tensor]:
        """See `Sensitivity`."""
        return [t for found in (*self._of, self._spare, self._room) for t in found]

    def by_unit(self) -> list[Tensor]:
        """See `Sensitivity`."""
        return [torch.stack(samples)[:, :, :-1].permute(0, 2, 3, 1) for samples in zip(*self._of, strict=True)]


def _clear(by_sample: Sequence[Sequence[Tensor]], which: Tensor) -> None:
    for sample in which.nonzero()[:, 0].tolist():
        for derivatives in by_sample[sample]:
            derivatives.zero_()


class Diagonal:
    """Unit by unit: derivatives of a unit's states by its own parameters only, at the cost of a few backward passes.

    Exact where units don't see each other. Elsewhere it is SnAp-1: of each step's Jacobian only what goes from a unit to itself is followed.
    As each unit has its own parameters, one row of ones stands for the gradients by a state of all units.

    Source:
        Menick et al. 2021 (SnAp-1); Irie et al. 2023 (element-wise recurrence), with the steps gone through backwards.
    """

    def __init__(self, passed: Passed) -> None:
        self._states, self._hidden = list(passed.widths), passed.loop.units
        self.cut = pieces(passed.loop)
        rows = (passed.batch, len(self._states))
        self._of = [passed.loop.x.new_zeros(*rows, p.width, p.size) for p in self.cut]
        self._spare = [torch.empty_like(derivatives) for derivatives in self._of]

    def advance(self, passed: Passed, grads: Tensor | None, ends: Ends) -> list[Tensor]:
        """See `Sensitivity`."""
        mapped, empty = operands(passed), passed.loop.x.new_empty
        for n, name in enumerate(self._states):
            ones = {state: empty(passed.batch, self._hidden).fill_(float(state == name)) for state in self._states}
            self._row(passed, ones, None, mapped, [new[:, n] for new in self._spare])
        found = [empty(passed.batch, p.width, p.size) for p in self.cut]
        if grads is None and not ends:
            found = [f.zero_() for f in found]
        else:
            zeros = passed.loop.x.new_zeros(passed.batch, self._hidden)
            last = {state: ends[state].clone() if state in ends else zeros.clone() for state in self._states}
            self._row(passed, last, grads, mapped, found)
        self._of, self._spare = self._spare, self._of
        return [f.sum(0) for f in found]

    def _row(
        self, passed: Passed, carry: dict[str, Tensor], grads: Tensor | None, mapped: Mapping[str, Tensor], into: list[Tensor]
    ) -> None:  # fmt: skip
        """Takes a row of each sample back, and puts what it is by the parameters, old derivatives included, into `into`."""
        rows = passed.time * passed.batch
        outer = passed.loop.x.new_zeros(1, self._hidden).expand(rows, -1) if grads is None else grads.reshape(rows, -1)
        back = through_diagonal(passed, carry, outer)
        for piece, old, new in zip(self.cut, self._of, into, strict=True):
            source = piece.source(back).view(passed.time, passed.batch, piece.width).permute(1, 2, 0)
            new.copy_(torch.bmm(source, mapped[piece.mapped].transpose(0, 1)))
            by_unit, before = (t.unflatten(-2, (-1, self._hidden)) for t in (new, old))
            for n, name in enumerate(self._states):
                by_unit.addcmul_(carry[name][:, None, :, None], before[:, n])

    def reset(self, which: Tensor) -> None:
        """See `Sensitivity`."""
        for derivatives in self._of:
            derivatives[which] = 0

    def held(self) -> list[Tensor]:
        """See `Sensitivity`."""
        return [*self._of, *self._spare]

    def by_unit(self) -> list[Tensor]:
        """See `Sensitivity`."""
        found = []
        for derivatives in self._of:
            own = derivatives.unflatten(2, (-1, self._hidden))
            full = torch.diag_embed(own.movedim(3, -1), dim1=2, dim2=4)  # (batch, states, hidden, columns, hidden, size)
            found.append(full.flatten(1, 2).flatten(2, 3))
        return found


class Stepwise:
    """Exact, step by step: the matrices that map a state are combined to one by hidden x hidden numbers that are gates' derivatives.

    What a parameter does at once is on the diagonal, since it belongs to one unit.

    Source:
        Williams and Zipser 1989.
    """

    def __init__(self, passed: Passed) -> None:
        self._states, self._hidden = list(passed.widths), passed.loop.units
        self.cut = pieces(passed.loop)
        units = len(self._states) * self._hidden
        # By sample and piece.
        self._of = [self._new(passed, units) for _ in range(passed.batch)]
        self._spare = self._new(passed, units)
        for derivatives in self._of:
            for one in derivatives:
                one.zero_()

    def _new(self, passed: Passed, units: int) -> list[Tensor]:
        return [passed.loop.x.new_empty(units, p.width * p.size) for p in self.cut]

    def advance(self, passed: Passed, grads: Tensor | None, ends: Ends) -> list[Tensor]:
        """See `Sensitivity`."""
        gates, direct = self._local(passed)
        mapped, some = operands(passed), passed.loop.x
        found = [some.new_zeros(p.width * p.size) for p in self.cut]
        for t in range(passed.time):
            for b in range(passed.batch):
                row = t * passed.batch + b
                jacobians, own = self._jacobians(passed, gates, direct, row)
                for n, piece in enumerate(self.cut):
                    self._step(b, n, jacobians, own)
                    factors = torch.stack([piece.source(back)[row] for back in gates])
                    self._immediate(self._of[b][n], piece, factors, mapped[piece.mapped][t, b])
                    if grads is not None:
                        found[n] += grads[t, b] @ self._of[b][n][: self._hidden]
        for b in range(passed.batch if ends else 0):
            wanted = torch.cat([ends[s][b] if s in ends else some.new_zeros(self._hidden) for s in self._states])
            for n, total in enumerate(found):
                total += wanted @ self._of[b][n]
        return [f.view(p.width, p.size) for f, p in zip(found, self.cut, strict=True)]

    def _local(self, passed: Passed) -> tuple[list[Back], dict[tuple[int, int], Tensor]]:
        """Derivatives of each new state of a unit by its columns and by its own states, at each step."""
        rows, gates, direct = passed.time * passed.batch, [], {}
        outer = passed.loop.x.new_zeros(1, self._hidden).expand(rows, -1)
        for new, name in enumerate(self._states):
            carry = {s: passed.loop.x.new_full((rows, self._hidden), float(s == name)) for s in self._states}
            gates.append(through_apart(passed, carry, outer))
            direct |= {(new, old): carry[s] for old, s in enumerate(self._states)}
        return gates, direct

    def _jacobians(
        self, passed: Passed, gates: list[Back], direct: dict[tuple[int, int], Tensor], row: int
    ) -> tuple[dict[int, Tensor], dict[tuple[int, int], Tensor]]:
        """Of all new states by each state that is mapped, `(states * hidden, hidden)`; and by those that aren't, unit by unit."""
        loop, units = passed.loop, self._hidden
        own = {pair: d[row] for pair, d in direct.items() if self._states[pair[1]] in loop.programs.carried}
        slab = torch.stack([back.slab[row] for back in gates]).unflatten(-1, (-1, units))
        found: dict[int, Tensor] = {}
        for group, span in zip(loop.cell.groups, loop.programs.groups, strict=True):
            weight = loop.given.weights[f"weight_{group.name}"].view(-1, units, units)
            whole = torch.einsum("scu,cuv->suv", slab[:, span.start : span.stop], weight[list(span.rows)])
            old = self._states.index(group.state or "")
            for new in range(len(self._states)):
                if (new, old) in own:
                    whole[new].diagonal().add_(own.pop((new, old)))
            found[old] = whole.flatten(0, 1)
        return found, own

    def _step(
        self, sample: int, piece: int, jacobians: dict[int, Tensor], direct: dict[tuple[int, int], Tensor]
    ) -> None:
        """What old derivatives are after a step."""
        before, after, units = self._of[sample][piece], self._spare[piece], self._hidden
        for n, (old, jacobian) in enumerate(jacobians.items()):
            torch.addmm(after, jacobian, before[old * units : (old + 1) * units], beta=float(n > 0), out=after)
        if not jacobians:
            after.zero_()
        for (new, old), factor in direct.items():
            after[new * units : (new + 1) * units].addcmul_(before[old * units : (old + 1) * units], factor[:, None])
        self._of[sample][piece], self._spare[piece] = after, before

    def _immediate(self, into: Tensor, piece: Piece, factors: Tensor, mapped: Tensor) -> None:
        """Adds what parameters do to their own unit at this step."""
        states, units = len(self._states), self._hidden
        own = into.view(states, units, -1, units, piece.size).diagonal(dim1=1, dim2=3)  # (states, columns, size, hidden)
        own.add_(factors.view(states, -1, 1, units) * mapped[:, None])

    def reset(self, which: Tensor) -> None:
        """See `Sensitivity`."""
        _clear(self._of, which)

    def held(self) -> list[Tensor]:
        """See `Sensitivity`."""
        return [t for found in (*self._of, self._spare) for t in found]

    def by_unit(self) -> list[Tensor]:
        """See `Sensitivity`."""
        parts = [torch.stack(samples) for samples in zip(*self._of, strict=True)]
        return [d.unflatten(-1, (p.width, p.size)) for d, p in zip(parts, self.cut, strict=True)]
