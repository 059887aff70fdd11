"""Fully connected recurrent network."""

from __future__ import annotations

from collections.abc import Mapping

from unstuck.recurrent.cell import Step, Value, sigmoid, tanh


def fully_connected(step: Step, *, nonlinearity: str = "sigmoid") -> Mapping[str, Value]:
    """Fully connected recurrent network: every unit sees every input and every unit one step before, and any may be an output.

    There is no layer of outputs of its own: the first units are the network's outputs, compared with targets as they are, and the others
    are hidden (`states[..., :num_outputs]`).

    Source:
        Williams and Zipser 1989, eq. 1 and 2.

    Args:
        step: The symbols.
        nonlinearity: sigmoid or tanh.

    Returns:
        The output `h`, all units.
    """
    return {"h": (sigmoid if nonlinearity == "sigmoid" else tanh)(step.gate("h"))}
