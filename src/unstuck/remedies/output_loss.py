"""A last activation and a loss that belong together."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from unstuck.evidence import Layer, LossCall
from unstuck.program import Script, loss_of
from unstuck.remedies._text import in_sequential, in_torch, reshaped
from unstuck.source import Edit, EditError, Source, called
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

_MODULES = {"sigmoid": "Sigmoid", "softmax": "Softmax", "tanh": "Tanh", "relu": "ReLU", "linear": "Identity"}
_MADE = frozenset({*_MODULES.values(), "LogSoftmax", "LeakyReLU", "ELU", "Hardtanh", "Softplus"})
_FINAL = frozenset(
    {
        "sigmoid",
        "softmax",
        "tanh",
        "relu",
        "log_softmax",
        "relu6",
        "hardtanh",
        "hardsigmoid",
        "logsigmoid",
        "leaky_relu",
        "elu",
        "softplus",
    }
)
_LIMITS = frozenset({"clamp", "clamp_", "clamp_min", "clamp_max", "clip"})
_LOSSES = {
    "cross_entropy": "CrossEntropyLoss", "binary_cross_entropy": "BCELoss",
    "binary_cross_entropy_with_logits": "BCEWithLogitsLoss", "mse_loss": "MSELoss",
}  # fmt: skip
_OF_FLOATS = frozenset(
    {"binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss", "l1_loss", "smooth_l1_loss"}
)
KEEP = "keep"


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """By the targets: logits with cross-entropy for classes, a sigmoid with binary cross-entropy for bits, a linear output for numbers."""
    loss, record = script.loss, script.record
    kind, chain = loss.target_kind, loss.chain[-1:]
    wide = len(loss.output_shape) > 1 and loss.output_shape[1] > 1
    by_hand = loss.name == "hand-written"
    if kind in ("class index", "one-hot", "probability") and wide:
        found = [{"output": "linear", "loss": "cross_entropy"}]
        if chain != ("softmax",):
            found.insert(0 if by_hand else 1, {"output": "softmax", "loss": KEEP})
        return found
    if kind in ("binary", "multi-label"):
        sigmoid = chain == ("sigmoid",)
        return [
            {"output": KEEP if sigmoid else "sigmoid", "loss": "binary_cross_entropy"},
            *([{"output": "linear", "loss": "binary_cross_entropy_with_logits"}] if by_hand else []),
            *([] if sigmoid else [{"output": "sigmoid", "loss": KEEP}]),
        ]
    if record.program.task.kind == "regression":
        return [{"output": "linear", "loss": KEEP}, {"output": "linear", "loss": "mse_loss"}]
    return []


def output_loss(script: Script, *, output: str = KEEP, loss: str = KEEP) -> list[Edit]:
    """Another last activation, another loss function, or both.

    Args:
        script: The script.
        output: linear, sigmoid, softmax, tanh, relu, or keep.
        loss: cross_entropy, binary_cross_entropy, binary_cross_entropy_with_logits, mse_loss, or keep.

    Returns:
        The edits.

    Raises:
        EditError: It can't be told where the output or the loss is computed.
    """
    edits: list[Edit] = []
    if output != KEEP:
        edits += _output(script, output)
    if loss != KEEP and loss != script.loss.name:
        edits += _loss(script, loss)
    if not edits:
        raise EditError("output and loss are of that kind already")
    return edits


# ---------------------------------------------------------------------- the output


def _output(script: Script, to: str) -> list[Edit]:
    final = _final_activation(script)
    if final is None:
        return [] if to == "linear" else _added(script, to)
    if final.op == to and not (to == "softmax" and script.loss.output_shape[-1:] == (1,)):
        return []
    if final.module in _MADE:
        made = script.module(final.name)
        if to == "linear" and in_sequential(made.source, made.call, first=False):
            return [_without(made.source, made.call)]
        name, imports = in_torch(made.source, f"torch.nn.{_MODULES[to]}")
        return [*imports, made.source.replace(made.call, f"{name}({'dim=1' if to == 'softmax' else ''})")]
    source, line = script.at(final.site)
    for call in source.nodes(ast.Call, line):
        if called(call).rpartition(".")[2] == final.op:
            inner = call.args[0] if call.args else call.func.value if isinstance(call.func, ast.Attribute) else None
            if inner is not None:
                text, imports = _wrapped(source, source.of(inner), to)
                return [*imports, source.replace(call, text)]
    raise EditError(f"it can't be told where {final.name!r} is computed")


def _without(source: Source, call: ast.Call) -> Edit:
    """An argument taken away, with its line where it has that for itself."""
    outer = source.parents[call]
    assert isinstance(outer, ast.Call)
    (start, end), at = source.span(call), outer.args.index(call)
    lines = source.text.rfind("\n", 0, start) + 1, source.text.find("\n", end) + 1
    if not source.text[lines[0] : start].strip() and source.text[end : lines[1]].partition("#")[0].strip() == ",":
        return Edit(source.file, *lines, "")
    return Edit(source.file, source.span(outer.args[at - 1])[1], end, "")


def _final_activation(script: Script) -> Layer | None:
    layers = script.record.layers
    layer = layers.get(script.loss.layer)
    while layer is not None and layer.op in _LIMITS and len(layer.inputs) == 1:  # of a logarithm that is taken by hand
        layer = layers.get(layer.inputs[0])
    return layer if layer is not None and layer.op in _FINAL else None


def _wrapped(source: Source, text: str, to: str) -> tuple[str, list[Edit]]:
    if to == "linear":
        return text, []
    name, imports = in_torch(source, f"torch.{to}")
    return f"{name}({text}{', dim=1' if to == 'softmax' else ''})", imports


def _added(script: Script, to: str) -> list[Edit]:
    """An activation behind the last layer: at the end of a Sequential, around what `forward` returns, or around what the loss is given."""
    root = script.root()
    source = root.source
    if (
        root.callee.rpartition(".")[2] == "Sequential"
        and root.call.args
        and not isinstance(root.call.args[-1], ast.Starred)
    ):
        name, imports = in_torch(source, f"torch.nn.{_MODULES[to]}")
        _, end = source.span(root.call.args[-1])
        return [*imports, Edit(source.file, end, end, f", {name}({'dim=1' if to == 'softmax' else ''})")]
    for node in source.nodes(ast.ClassDef):
        if node.name != root.callee.rpartition(".")[2]:
            continue
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "forward":
                returns = [r for r in ast.walk(method) if isinstance(r, ast.Return) and r.value is not None]
                if (
                    len(returns) == 1
                    and returns[0].value is not None
                    and not isinstance(returns[0].value, (ast.Tuple, ast.Dict))
                ):
                    text, imports = _wrapped(source, source.of(returns[0].value), to)
                    return [*imports, source.replace(returns[0].value, text)]
    torch, imports = _wrapped(source, "output", to)
    return [
        *imports,
        *script.before_optimizer(
            [f"{script.model}.register_forward_hook(lambda module, args, output: {torch})"], rank=5
        ),
    ]


# ---------------------------------------------------------------------- the loss


def _loss(script: Script, to: str) -> list[Edit]:
    call = script.loss
    if call.name == "hand-written":
        return _instead_of_by_hand(script, to)
    source, node = script.loss_call()
    if len(node.args) < 2:
        raise EditError("the loss isn't computed by a call of two arguments")
    first, second = node.args[:2]
    edits: list[Edit] = []
    converted = _target(call, source.of(first), source.of(second), to)
    criteria = [
        m
        for m in script.modules(*_LOSSES.values(), "NLLLoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "KLDivLoss")
        if m.target == called(node)
    ]
    if criteria:
        name, imports = in_torch(criteria[0].source, f"torch.nn.{_LOSSES[to]}")
        edits = [*imports, criteria[0].source.replace(criteria[0].call, f"{name}()")]
        if converted != source.of(second):
            edits.append(source.replace(second, converted))
        return edits
    name, imports = in_torch(source, f"torch.nn.functional.{to}")
    return [*imports, source.replace(node, f"{name}({source.of(first)}, {converted})")]


def _target(call: LossCall, output: str, target: str, to: str) -> str:
    """Targets as the loss takes them."""
    if to == "cross_entropy":
        if call.target_kind in ("one-hot", "probability"):
            return target  # cross-entropy takes probabilities
        flat = f"{target}.reshape(-1)" if len(call.target_shape) > 1 and call.target_shape[-1] == 1 else target
        return flat if call.name == "nll_loss" else f"{flat}.long()"
    same = target if call.output_shape == call.target_shape else reshaped(target, output, call.output_shape)
    return same if call.name in _OF_FLOATS else f"{same}.float()"


def _instead_of_by_hand(script: Script, to: str) -> list[Edit]:
    source, whole, output, target = script.loss_by_hand()
    name, imports = in_torch(source, f"torch.nn.functional.{to}")
    out, converted = source.of(output), _target(script.loss, source.of(output), source.of(target), to)
    return [*imports, source.replace(whole, f"{name}({out}, {converted})")]


def treat(training: Training, record: Record, *, output: str = KEEP, loss: str = KEEP) -> None:
    """Another last activation, another loss function, or both.

    Raises:
        EditError: Both are of that kind already, or the last activation is a function that `forward` calls.
    """
    call, old = loss_of(record), training.loss
    changed = output != KEEP and _give(training, record, call, output)
    if loss not in (KEEP, call.name):
        training.loss = _Loss(loss, call)
    if not changed and training.loss is old:
        raise EditError("output and loss are of that kind already")


def _give(training: Training, record: Record, call: LossCall, to: str) -> bool:
    """Another last activation of the model; whether that is a change.

    Raises:
        EditError: The one that there is is a function that `forward` calls.
    """
    import torch
    from torch import nn

    from unstuck.remedies._training import Output, module_of, replace

    settings = {"dim": 1} if to == "softmax" else {}
    final = record.layers.get(call.layer)
    if final is None or final.op not in _FINAL:
        if to == "linear":
            return False
        if type(training.model) is nn.Sequential:
            training.model.append(getattr(nn, _MODULES[to])(**settings))
        else:
            training.model.register_forward_hook(Output(getattr(torch, to), **settings))
        return True
    if final.op == to and not (to == "softmax" and call.output_shape[-1:] == (1,)):
        return False
    if final.module not in _MADE:
        raise EditError(f"{final.name!r} is a function that the model calls, and no module that could be replaced")
    replace(training, module_of(training, final), getattr(nn, _MODULES[to])(**settings))
    return True


class _Loss:
    """One of torch's losses, that takes the targets of another.

    Args:
        name: The function.
        call: What the targets were given to.
    """

    def __init__(self, name: str, call: LossCall) -> None:
        self.name, self.call = name, call

    def __call__(self, outputs: Any, targets: Any) -> Any:
        from torch.nn import functional

        return getattr(functional, self.name)(outputs, self._taken(outputs, targets))

    def _taken(self, outputs: Any, targets: Any) -> Any:
        """Targets as the loss takes them, as `_target` writes it."""
        call = self.call
        if self.name == "cross_entropy":
            if call.target_kind in ("one-hot", "probability"):
                return targets
            return (targets.reshape(-1) if targets.dim() > 1 and targets.shape[-1] == 1 else targets).long()
        same = targets if call.output_shape == call.target_shape else targets.reshape(outputs.shape)
        return same if call.name in _OF_FLOATS else same.float()
