"""Gated recurrent unit."""

from __future__ import annotations

from collections.abc import Mapping

from unstuck.recurrent.cell import Step, Value, sigmoid, tanh


def gru(step: Step, *, reset_after: bool = True, update_bias: float = 1.0) -> Mapping[str, Value]:
    """Gated recurrent unit: one gate mixes what was and what is new, another says how much of what was the new one sees.

    Source:
        Cho et al. 2014. With `reset_after` as in cuDNN and torch.nn.GRU: the state's linear map is reset, not the state.

    Args:
        step: The symbols.
        reset_after: Whether the map is reset instead of the state.
        update_bias: Where the bias of the gate that keeps starts; torch.nn.GRU's is near 0, so that a new one forgets half at each step.

    Returns:
        The output `h`.
    """
    reset = sigmoid(step.gate("r"))
    keep = sigmoid(step.gate("z", bias=update_bias, keeps=1))
    new = tanh(step.input("n") + reset * step.hidden("n")) if reset_after else tanh(step.gate("n", of=reset * step.h))
    return {"h": (1.0 - keep) * new + keep * step.h}
