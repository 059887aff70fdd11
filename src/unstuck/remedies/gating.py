"""Gated recurrent cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._text import in_torch
from unstuck.source import Edit, EditError, argument
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


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


def treat(training: Training, record: Record, *, to: str = "GRU") -> None:
    """A GRU in place of each simple recurrent layer, or an LSTM's forget gates opened.

    Raises:
        EditError: There is none, or a simple one has another nonlinearity than tanh.
    """
    from torch import nn

    from unstuck.remedies._training import parameters_kept, replace

    if to == "open":
        biases = [p for name, p in training.model.named_parameters() if "bias_ih" in name]
        for bias in biases:
            size = len(bias) // 4
            bias.data[size : 2 * size] = 1.0
        if not biases:
            raise EditError("there is no LSTM whose gates have a bias")
        return
    found = [m for m in training.model.modules() if isinstance(m, (nn.RNN, nn.RNNCell))]
    if not found:
        raise EditError("there is no simple recurrent layer")
    if any(m.nonlinearity != "tanh" for m in found):
        raise EditError("a nonlinearity is chosen for the recurrent layer, which a gated one doesn't have")
    with parameters_kept(training):
        for m in found:
            if isinstance(m, nn.RNNCell):
                replace(training, m, nn.GRUCell(m.input_size, m.hidden_size, bias=m.bias))
                continue
            kept = ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
            replace(training, m, nn.GRU(m.input_size, m.hidden_size, **{name: getattr(m, name) for name in kept}))
