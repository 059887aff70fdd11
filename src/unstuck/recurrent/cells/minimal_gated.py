"""Minimal gated unit."""

from __future__ import annotations

from collections.abc import Mapping

from unstuck.recurrent.cell import Step, Value, sigmoid, tanh


def minimal_gated(step: Step, *, forget_bias: float = -1.0) -> Mapping[str, Value]:
    """Minimal gated unit: a GRU whose two gates are one.

    Source:
        Zhou et al. 2016, eq. 9 to 11. What their forget gate lets through is replaced, so a bias below 0 keeps.

    Args:
        step: The symbols.
        forget_bias: Where the gate's bias starts.

    Returns:
        The output `h`.
    """
    forget = sigmoid(step.gate("f", bias=forget_bias, keeps=-1))
    new = tanh(step.gate("n", of=forget * step.h))
    return {"h": (1.0 - forget) * step.h + forget * new}
