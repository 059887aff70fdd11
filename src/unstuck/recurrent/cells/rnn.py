"""Simple recurrent network."""

from __future__ import annotations

from collections.abc import Mapping

from unstuck.errors import MisuseError
from unstuck.recurrent.cell import Step, Value, relu, sigmoid, tanh

_NONLINEARITIES = {"tanh": tanh, "relu": relu, "sigmoid": sigmoid}


def rnn(step: Step, *, nonlinearity: str = "tanh", identity: float | None = None) -> Mapping[str, Value]:
    """Simple recurrent network: the hidden layer sees the input and itself, one step before.

    Source:
        Elman 1990. With a ReLU and recurrent weights that start as the identity it is the IRNN of Le et al. 2015, whose input weights
        start small (0.001).

    Args:
        step: The symbols.
        nonlinearity: tanh, relu or sigmoid.
        identity: Recurrent weights start as this times the identity; orthogonal without, and 1 for a ReLU.

    Returns:
        The output `h`.

    Raises:
        MisuseError: There is no such nonlinearity.
    """
    if nonlinearity not in _NONLINEARITIES:
        raise MisuseError(f"there is no nonlinearity {nonlinearity!r}; there are {', '.join(_NONLINEARITIES)}")
    if identity is None and nonlinearity == "relu":
        identity = 1.0
    step.starts(identity=identity, input_scale=None if identity is None else 1e-3)
    return {"h": _NONLINEARITIES[nonlinearity](step.gate("h"))}
