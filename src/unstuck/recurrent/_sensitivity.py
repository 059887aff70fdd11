"""Derivatives of a layer's states by its parameters, which are carried forward in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from unstuck.recurrent._cotangents import Passed
from unstuck.recurrent._graph import Op
from unstuck.recurrent._influence import Piece
from unstuck.recurrent._programs import Programs

Ends = Mapping[str, Tensor]
"""Gradients by the states after the last step, by name, each `(batch, width)`."""


@runtime_checkable
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


def clear(by_sample: Sequence[Sequence[Tensor]], which: Tensor) -> None:
    """Sets to 0 what belongs to samples where `which` is true."""
    for sample in which.nonzero()[:, 0].tolist():
        for derivatives in by_sample[sample]:
            derivatives.zero_()
