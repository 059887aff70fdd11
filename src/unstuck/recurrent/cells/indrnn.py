"""Independently recurrent network."""

from __future__ import annotations

from collections.abc import Mapping

from unstuck.recurrent.cell import Step, Value, relu, tanh


def indrnn(step: Step, *, nonlinearity: str = "relu", low: float = 0.0, high: float = 1.0) -> Mapping[str, Value]:
    """Independently recurrent network: each unit sees the input and itself, and no other unit.

    Source:
        Li et al. 2018, eq. 2. Units learn of each other in the layers above, so it takes two at least.

    Args:
        step: The symbols.
        nonlinearity: relu or tanh.
        low: Recurrent weights start between this
        high: and this.

    Returns:
        The output `h`.
    """
    mapped = step.input("h") + step.vector("recurrent", low=low, high=high) * step.h
    return {"h": relu(mapped) if nonlinearity == "relu" else tanh(mapped)}
