"""Sensitivities unit by unit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unstuck.recurrent._cotangents import Passed, through_diagonal
from unstuck.recurrent._influence import operands, pieces
from unstuck.recurrent._sensitivity import Ends


class Diagonal:
    """Unit by unit: derivatives of a unit's states by its own parameters only, at the cost of a few backward passes.

    Exact where units don't see each other. Elsewhere it is SnAp-1: of each step's Jacobian only what goes from a unit to itself is
    followed. As each unit has its own parameters, one row of ones stands for the gradients by a state of all units.

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
            full = torch.diag_embed(
                own.movedim(3, -1), dim1=2, dim2=4
            )  # (batch, states, hidden, columns, hidden, size)
            found.append(full.flatten(1, 2).flatten(2, 3))
        return found
