"""Gated recurrent cells."""

from __future__ import annotations

from typing import Any

from unstuck.program import Script
from unstuck.remedies._text import in_torch
from unstuck.source import Edit, EditError, argument
from unstuck.verdict import Verdict


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """GRU in place of a simple recurrence; open forget gates for an LSTM."""
    ops = {layer.op for layer in script.record.program.layers}
    found = [{"to": "GRU"}] if ops & {"rnn", "rnn_cell"} else []
    return found + ([{"to": "open"}] if ops & {"lstm", "lstm_cell"} else [])


def gating(script: Script, *, to: str = "GRU") -> list[Edit]:
    """A GRU (Cho et al. 2014) in place of a simple recurrent layer, which it is called like; or an LSTM's forget gates opened.

    A forget gate with a bias of 1 keeps what it has (Gers et al. 2000, Jozefowicz et al. 2015), so that gradients get through from the
    start.

    Args:
        script: The script.
        to: GRU, or open.

    Returns:
        The edits.

    Raises:
        EditError: There is no such layer that is made by a plain call.
    """
    if to == "open":
        lines = [
            f"for name, parameter in {script.model}.named_parameters():",
            '    if "bias_ih" in name:',
            "        size = len(parameter) // 4",
            "        parameter.data[size : 2 * size] = 1.0",
        ]
        return script.before_optimizer(lines, rank=1)
    edits: list[Edit] = []
    for made in script.modules("RNN", "RNNCell"):
        if argument(made.call, "nonlinearity") is not None:
            raise EditError("a nonlinearity is chosen for the recurrent layer, which a gated one doesn't have")
        kind = made.callee.rpartition(".")[2].replace("RNN", to)
        name, imports = in_torch(made.source, f"torch.nn.{kind}")
        prefix = made.callee.rpartition(".")[0]
        edits += [*imports, made.source.replace(made.call.func, f"{prefix}.{kind}" if prefix else name)]
    if not edits:
        raise EditError("there is no simple recurrent layer")
    return edits
