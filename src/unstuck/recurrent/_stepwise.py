"""Sensitivities that are moved over one step after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from unstuck.recurrent._cotangents import Back, Passed, through_apart
from unstuck.recurrent._influence import Piece, operands, pieces
from unstuck.recurrent._sensitivity import Ends, clear


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
        own = into.view(states, units, -1, units, piece.size).diagonal(
            dim1=1, dim2=3
        )  # (states, columns, size, hidden)
        own.add_(factors.view(states, -1, 1, units) * mapped[:, None])

    def reset(self, which: Tensor) -> None:
        """See `Sensitivity`."""
        clear(self._of, which)

    def held(self) -> list[Tensor]:
        """See `Sensitivity`."""
        return [t for found in (*self._of, self._spare) for t in found]

    def by_unit(self) -> list[Tensor]:
        """See `Sensitivity`."""
        parts = [torch.stack(samples) for samples in zip(*self._of, strict=True)]
        return [d.unflatten(-1, (p.width, p.size)) for d, p in zip(parts, self.cut, strict=True)]
