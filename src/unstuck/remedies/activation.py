"""Another activation between the layers, or one where there is none."""

from __future__ import annotations

import ast
import itertools
from typing import TYPE_CHECKING, Any

from unstuck.evidence import Layer
from unstuck.program import Script
from unstuck.remedies._text import in_sequential, in_torch
from unstuck.rules._depth import LINEAR, NORMS
from unstuck.source import Edit, EditError, called
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

CLASSES = {
    "relu": "ReLU", "leaky_relu": "LeakyReLU", "prelu": "PReLU", "elu": "ELU", "gelu": "GELU", "selu": "SELU", "tanh": "Tanh",
    "silu": "SiLU",
}  # fmt: skip
_REPLACED = frozenset(
    {"sigmoid", "tanh", "hardsigmoid", "hardtanh", "softsign", "relu", "relu6", "softmax", "leaky_relu", "elu"}
)


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """ReLU in place of what squashes; LeakyReLU, then ELU in place of ReLU; ReLU, then tanh where there is none."""
    if any(f.cause == "missing-nonlinearity" for f in verdict.findings):
        return [{"to": "relu", "added": True}, {"to": "tanh", "added": True}]
    ops = [layer.op for layer in _hidden(script.record)]
    if not ops:
        return []
    return (
        [{"to": "leaky_relu"}, {"to": "elu"}] if ops.count("relu") * 2 > len(ops) else [{"to": "relu"}, {"to": "tanh"}]
    )


def activation(script: Script, *, to: str = "relu", added: bool = False) -> list[Edit]:
    """One activation in place of all others between the layers, where modules are made and where functions are called.

    Args:
        script: The script.
        to: relu, leaky_relu, prelu, elu, gelu, selu, silu or tanh.
        added: Where there is none between two linear layers, and not in place of others.

    Returns:
        The edits.

    Raises:
        EditError: There is none between layers, or it can't be told where one is.
    """  # noqa: DOC502
    if added:
        return _between(script, to)
    layers = _others(script.record, to)
    edits: dict[Edit, None] = {}
    for layer in layers:
        edits.update(
            dict.fromkeys(_of_module(script, layer, to) if layer.module in _MODULES else _of_call(script, layer, to))
        )
    return list(edits)


_MODULES = frozenset({*CLASSES.values(), "Sigmoid", "Hardtanh", "Hardsigmoid", "Softsign", "ReLU6", "Softmax"})


def _hidden(record: Record) -> list[Layer]:
    layers = record.program.layers
    weighted = [i for i, layer in enumerate(layers) if layer.parameters]
    last = weighted[-1] if weighted else -1
    return [layer for layer in layers[:last] if layer.op in _REPLACED and layer.role == "hidden"]


def _others(record: Record, to: str) -> list[Layer]:
    """Other activations between the layers.

    Raises:
        EditError: There are none.
    """
    layers = [layer for layer in _hidden(record) if layer.op != to]
    if not layers:
        raise EditError("there is no other activation between layers")
    return layers


def _of_module(script: Script, layer: Layer, to: str) -> list[Edit]:
    made = script.module(layer.name)
    name, imports = in_torch(made.source, f"torch.nn.{CLASSES[to]}")
    prefix = made.callee.rpartition(".")[0]
    return [*imports, made.source.replace(made.call, f"{prefix}.{CLASSES[to]}()" if prefix else f"{name}()")]


def _of_call(script: Script, layer: Layer, to: str) -> list[Edit]:
    if to == "prelu":
        raise EditError("prelu has a weight, and takes a module")
    source, line = script.at(layer.site)
    name, imports = in_torch(source, f"torch.nn.functional.{to}" if to != "tanh" else "torch.tanh")
    edits: list[Edit] = []
    for call in source.nodes(ast.Call, line):
        if not isinstance(call.func, (ast.Attribute, ast.Name)) or _last_name(call.func) not in (
            layer.op,
            f"{layer.op}_",
        ):
            continue
        start, end = source.span(call)
        if call.args:  # F.relu(x); what is beside x was for the other
            _, first = source.span(call.args[0])
            edits.append(source.replace(call.func, name))
            edits += [Edit(source.file, first, end, ")")] * (len(call.args) + len(call.keywords) > 1)
        elif isinstance(call.func, ast.Attribute):  # x.sigmoid(): around x, so that one may stand within another
            _, value = source.span(call.func.value)
            edits += [Edit(source.file, start, start, f"{name}("), Edit(source.file, value, end, ")")]
    if not edits:
        raise EditError(f"it can't be told where {layer.name!r} is computed")
    return [*imports, *edits]


# ---------------------------------------------------------------------- where there is none

_BENDS_NOTHING = frozenset({"bias", "add", "reshape", "flatten", "dropout", "avg_pool", *NORMS})


def _between(script: Script, to: str) -> list[Edit]:
    """Behind linear layers, and their norms, whose output goes on to another linear layer as it is.

    Raises:
        EditError: There are none, or it can't be told where one is.
    """  # noqa: DOC502
    edits: dict[Edit, None] = {}
    for layer in _unbent(script.record):
        edits.update(dict.fromkeys(_behind(script, layer, to)))
    return list(edits)


def _unbent(record: Record) -> list[Layer]:
    """Layers that an activation is missing behind: linear ones, and norms that follow them.

    Raises:
        EditError: There are none.
    """
    found: dict[str, Layer] = {}
    order = [layer for layer in record.program.layers if layer.role != "loss"]
    linked = any(layer.inputs for layer in order)
    before = {b.name: [a] for a, b in itertools.pairwise(order)}
    for layer in (layer for layer in order if layer.op in LINEAR):
        norm, source = None, layer
        for _ in order:
            sources = (
                [record.layers[n] for n in source.inputs if n in record.layers]
                if linked
                else before.get(source.name, [])
            )
            if len(sources) != 1:
                break
            source = sources[0]
            if source.op in LINEAR:
                found[(norm or source).name] = norm or source
            if source.op not in _BENDS_NOTHING:
                break
            norm = source if source.op in NORMS else norm
    if not found:
        raise EditError("there is an activation between all linear layers")
    return list(found.values())


def _behind(script: Script, layer: Layer, to: str) -> list[Edit]:
    """An activation behind a module: around its call in `forward`, else where it is made, beside it in a `Sequential`.

    Raises:
        EditError: What makes it makes the last layer, too.
    """
    made = script.module(layer.name)
    if not in_sequential(made.source, made.call):
        source, line = script.at(layer.site)
        path = layer.name.partition(" after ")[0].rpartition(".")[2]
        for call in source.nodes(ast.Call, line):
            if called(call) == f"self.{path}" and to != "prelu":
                name, imports = in_torch(
                    source, f"torch.{to}" if to in ("relu", "tanh") else f"torch.nn.functional.{to}"
                )
                start, end = source.span(call)  # around it, so that one may stand within another
                return [*imports, Edit(source.file, start, start, f"{name}("), Edit(source.file, end, end, ")")]
    last = [layer for layer in script.record.program.layers if layer.op in LINEAR and layer.role != "loss"][-1]
    if script.module(last.name).call is made.call:
        raise EditError(f"{layer.name!r} and the last layer are made by one call")
    module, imports = in_torch(made.source, f"torch.nn.{CLASSES[to]}")
    if in_sequential(made.source, made.call):
        _, end = made.source.span(made.call)
        return [*imports, Edit(made.source.file, end, end, f", {module}()")]
    chain, more = in_torch(made.source, "torch.nn.Sequential")
    return [*imports, *more, made.source.replace(made.call, f"{chain}({made.source.of(made.call)}, {module}())")]


def _last_name(function: ast.Attribute | ast.Name) -> str:
    return function.attr if isinstance(function, ast.Attribute) else function.id


def treat(training: Training, record: Record, *, to: str = "relu", added: bool = False) -> None:
    """Puts one activation in the place of all others between the layers, or where there is none.

    Raises:
        EditError: There is none, or what it goes by is a function that `forward` calls.
    """  # noqa: DOC502
    from torch import nn

    from unstuck.remedies._training import modules_of, parameters_kept, replace, wrap

    found = modules_of(training, _unbent(record) if added else _others(record, to))
    with parameters_kept(training):  # prelu has a weight
        for module in found:
            new = getattr(nn, CLASSES[to])()
            wrap(training, module, new) if added else replace(training, module, new)
