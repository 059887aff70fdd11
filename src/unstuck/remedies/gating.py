"""Gated recurrent cells."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from unstuck.program import Made, Script
from unstuck.remedies._text import in_torch
from unstuck.source import Edit, EditError
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from torch import nn

    from unstuck.evidence import Record
    from unstuck.training import Training

_OURS = "unstuck.recurrent.layers"
_KEPT = ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
_KEPT_OF_OURS = (*_KEPT, "variational", "recurrent_dropout", "zoneout", "horizon", "backend")


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """GRU, then LSTM in place of a simple recurrence; open forget gates for an LSTM, then by the length of what it is to remember."""
    ops = {layer.op for layer in script.record.program.layers}
    found = [{"to": "GRU"}, {"to": "LSTM"}] if ops & {"rnn", "rnn_cell"} else []
    return found + ([{"to": "open"}, {"to": "chrono"}] if ops & {"lstm", "lstm_cell"} else [])


def gating(script: Script, *, to: str = "GRU") -> list[Edit]:
    """A gated cell in place of a simple recurrent layer, or an LSTM's forget gates opened.

    A GRU (Cho et al. 2014) is called like the simple layer; an LSTM (Hochreiter and Schmidhuber 1997) where nothing but its output is
    made use of, as its state is another. A forget gate with a bias of 1 keeps what it has (Gers et al. 2000, Jozefowicz et al. 2015), so
    that gradients get through from the start. By the chrono rule (Tallec and Ollivier 2018) gates forget over all spans of time up to the
    sequences' length.

    Args:
        script: The script.
        to: GRU, LSTM, open, or chrono.

    Returns:
        The edits.

    Raises:
        EditError: There is no such layer that is made by a plain call.
    """
    if to == "chrono":
        return _chrono(script)
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
        if to == "LSTM":
            _only_output(script, made)
        edits += _without_nonlinearity(made)
        kind = str(made.event["name"]).replace("RNN", to)
        name, imports = _other(made, kind)
        edits += [*imports, made.source.replace(made.call.func, name)]
    if not edits:
        raise EditError("there is no simple recurrent layer")
    return edits


def _other(made: Made, kind: str) -> tuple[str, list[Edit]]:
    """What a layer of another kind is called, from where the simple one is from, and the import it takes."""
    prefix = made.callee.rpartition(".")[0]
    if prefix:
        return f"{prefix}.{kind}", []
    if made.source.alias(f"{_OURS}.{made.event['name']}") == made.callee:
        return kind, made.source.imports(kind, f"from {_OURS} import {kind}")
    return in_torch(made.source, f"torch.nn.{kind}")


def _without_nonlinearity(made: Made) -> list[Edit]:
    """Takes away the argument that a gated layer doesn't have.

    Raises:
        EditError: It is among arguments that have no names.
    """
    source, call = made.source, made.call
    if any(k.arg is None for k in call.keywords) or any(isinstance(a, ast.Starred) for a in call.args):
        raise EditError("a nonlinearity may be among the arguments that the recurrent layer is given as a whole")
    if len(call.args) > 3 and str(made.event["name"]) == "RNN":
        raise EditError("the recurrent layer is given its nonlinearity by its place")
    given = next((k for k in call.keywords if k.arg == "nonlinearity"), None)
    if given is None:
        return []
    before = [*call.args, *(k.value for k in call.keywords[: call.keywords.index(given)])]
    return [Edit(source.file, source.span(before[-1])[1], source.span(given)[1], "")]


def _only_output(script: Script, made: Made) -> None:
    """Sees to it that of what a layer gives only the output is made use of, and that it is given no state.

    Raises:
        EditError: It isn't so, or it can't be told.
    """
    source = made.source
    calls = [c for c in source.nodes(ast.Call) if made.target and source.of(c.func) == made.target]
    for call in calls:
        outer = source.parents[call]
        first = isinstance(outer, ast.Subscript) and source.of(outer.slice) == "0"
        target = outer.targets[0] if isinstance(outer, ast.Assign) else None
        state = target.elts[1] if isinstance(target, ast.Tuple) and len(target.elts) == 2 else None
        read = {
            n.id for n in ast.walk(source.function(call)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
        }
        unused = isinstance(state, ast.Name) and state.id not in read
        if len(call.args) != 1 or not (first or unused):
            raise EditError("the state of the recurrent layer is made use of, and that of an LSTM is another")
    if not calls or str(made.event["name"]) != "RNN":
        raise EditError("it isn't known where the recurrent layer is called")


def _chrono(script: Script) -> list[Edit]:
    """Biases of the forget gates drawn by the length of the sequences, those of the input gates against them.

    Raises:
        EditError: There is no LSTM, or the length of the sequences isn't known.
    """  # noqa: DOC502
    length = _length(script.record)
    log, imports = in_torch(script.place, "torch.log")
    rand = log.removesuffix("log") + "rand"
    lines = [
        f"for name, parameter in {script.model}.named_parameters():", '    if "bias_ih" in name:', "        size = len(parameter) // 4",
        f"        forget = {log}(1 + {max(1, length - 2)} * {rand}(size, device=parameter.device))",
        "        parameter.data[size : 2 * size] = forget", "        parameter.data[:size] = -forget",
    ]  # fmt: skip
    return [*imports, *script.before_optimizer(lines, rank=1)]


def _length(record: Record) -> int:
    """Of the sequences that an LSTM is given: by its output, or by how many steps back it was asked for its gradient.

    Raises:
        EditError: There is no LSTM, or it isn't known.
    """
    layers = [layer for layer in record.program.layers if layer.op == "lstm"]
    shapes = [layer.out_shape for layer in layers if len(layer.out_shape) == 3]
    if shapes:
        return shapes[0][1] if shapes[0][0] == record.series("batch_size").median() else shapes[0][0]
    lags = [len(vector.values) for layer in layers for vector in record.vectors("lag_grad", layer.name)]
    if not lags:
        raise EditError("there is no LSTM that gives sequences of a known length")
    return max(lags)


def treat(training: Training, record: Record, *, to: str = "GRU") -> None:
    """A gated layer in place of each simple recurrent one, or an LSTM's gates opened.

    An LSTM gives its hidden state where the simple layer did, and keeps its cell's to itself.

    Raises:
        EditError: There is none, or a simple one has another nonlinearity than tanh, or is called step by step.
    """
    from torch import nn

    from unstuck.recurrent import layers
    from unstuck.remedies._training import parameters_kept, replace

    if to in ("open", "chrono"):
        _open(training.model, _length(record) if to == "chrono" else None)
        return
    found = [m for m in training.model.modules() if isinstance(m, (nn.RNN, nn.RNNCell, layers.RNN))]
    if not found:
        raise EditError("there is no simple recurrent layer")
    if any((m.settings["nonlinearity"] if isinstance(m, layers.RNN) else m.nonlinearity) != "tanh" for m in found):
        raise EditError("a nonlinearity is chosen for the recurrent layer, which a gated one doesn't have")
    if to == "LSTM" and any(isinstance(m, nn.RNNCell) for m in found):
        raise EditError("the state of the recurrent layer is made use of, and that of an LSTM is another")
    with parameters_kept(training):
        for m in found:
            if isinstance(m, nn.RNNCell):
                replace(training, m, nn.GRUCell(m.input_size, m.hidden_size, bias=m.bias))
                continue
            room, kept = (layers, _KEPT_OF_OURS) if isinstance(m, layers.RNN) else (nn, _KEPT)
            new = getattr(room, to)(m.input_size, m.hidden_size, **{name: getattr(m, name) for name in kept})
            if to == "LSTM":
                new.register_forward_hook(_hidden_alone)
            replace(training, m, new)


def _hidden_alone(module: nn.Module, args: Any, output: Any) -> Any:
    return output[0], output[1][0]


def _open(model: nn.Module, length: int | None) -> None:
    """Biases of an LSTM's forget gates of 1, or drawn by the length of the sequences.

    Raises:
        EditError: There is no LSTM whose gates have a bias.
    """
    import torch
    from torch import nn

    from unstuck.recurrent import layers

    gated = [m for m in model.modules() if isinstance(m, (nn.LSTM, nn.LSTMCell))]
    gated += [m for m in model.modules() if isinstance(m, layers.LSTM) and len(m.cell.inputs) == 4]
    biases = [p for m in gated for name, p in m.named_parameters() if "bias_ih" in name]
    if not biases:
        raise EditError("there is no LSTM whose gates have a bias")
    for bias in biases:
        size = len(bias) // 4
        if length is None:
            bias.data[size : 2 * size] = 1.0
        else:
            forget = torch.log(1 + max(1, length - 2) * torch.rand(size, device=bias.device))
            bias.data[size : 2 * size] = forget
            bias.data[:size] = -forget
