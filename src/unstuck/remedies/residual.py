"""Connections past the layers."""

from __future__ import annotations

import ast
import itertools
from typing import TYPE_CHECKING, Any

from unstuck.evidence import Layer, Record
from unstuck.program import Script
from unstuck.remedies._text import in_torch, literal
from unstuck.rules._depth import LINEAR
from unstuck.source import Edit, EditError, Source, called
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from torch import nn

    from unstuck.training import Training

_WEIGHTED = frozenset({"Linear", "Conv1d", "Conv2d", "Conv3d"})
_FOLLOW = frozenset({
    "ReLU", "LeakyReLU", "PReLU", "ELU", "SELU", "GELU", "SiLU", "Mish", "Tanh", "Sigmoid", "Softsign", "Softplus", "ReLU6", "Dropout",
    "Dropout2d", "BatchNorm1d", "BatchNorm2d", "LayerNorm", "GroupNorm",
})  # fmt: skip
_MANY = 4  # layers, from which on what each adds is less


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """The one way."""
    return [{}]


def residual(script: Script) -> list[Edit]:
    """Every hidden layer that gives as much as it takes adds to its input instead of replacing it: x + f(x) (He et al. 2016).

    So there is a way for signal and gradient past all of them, however many they are. In `forward` that is `x + ` before what the layer
    and its activation give; in a `Sequential` they go into a small class of their own. Linear layers that are made otherwise, as in a
    loop, are given a hook: the input is added before the activation. Of many such layers each gives less, by the root of their number,
    so that what passes doesn't grow with depth (Hayou et al. 2021).

    Args:
        script: The script.

    Returns:
        The edits.

    Raises:
        EditError: There is no such layer, or it can't be told where it is made or called.
    """
    layers = _square(script.record)
    edits: dict[Edit, None] = {}
    try:
        for layer in layers:
            edits.update(dict.fromkeys(_around_call(script, layer) or _around_modules(script, layer)))
    except EditError:
        if not _can_be_hooked(script, layers):
            raise
        return _by_hooks(script, layers)
    return list(edits)


def _can_be_hooked(script: Script, layers: list[Layer]) -> bool:
    """Whether the layers are all linear modules of the network that give as much as they take."""
    square = {
        one.name for one in script.record.program.layers if one.op in LINEAR and _has_square_weight(script.record, one)
    }
    return script.is_module and square == {one.name for one in layers} and all(one.module == "Linear" for one in layers)


def _has_square_weight(record: Record, layer: Layer) -> bool:
    """Whether a layer has a weight, and the first has as many outputs as inputs."""
    shapes = [record.parameters[name].shape for name in layer.parameters if name in record.parameters]
    weights = [shape for shape in shapes if len(shape) >= 2]
    return bool(weights) and weights[0][0] == weights[0][1]


def _by_hooks(script: Script, layers: list[Layer]) -> list[Edit]:
    linear, imports = in_torch(script.place, "torch.nn.Linear")
    share = f"{literal(len(layers) ** -0.5)} * " if len(layers) > _MANY else ""
    lines = [
        f"for module in {script.model}.modules():",
        f"    if isinstance(module, {linear}) and module.in_features == module.out_features:",
        f"        module.register_forward_hook(lambda module, args, output: args[0] + {share}output)",
    ]
    return [*imports, *script.before_optimizer(lines, rank=2)]


def _square(record: Record) -> list[Layer]:
    """Hidden layers with a weight of as many outputs as inputs, and an output of its input's shape.

    Raises:
        EditError: There are none.
    """
    weighted = [layer for layer in record.program.layers if layer.op in LINEAR and layer.role != "loss"]
    found = []
    for layer in weighted[:-1]:
        known = [record.layers[name].out_shape for name in layer.inputs if name in record.layers]
        same = all(shape == layer.out_shape for shape in known)
        if (
            _has_square_weight(record, layer)
            and (layer.inputs or layer.op == "linear")
            and same
            and not _is_passed(record, layer)
        ):
            found.append(layer)
    if not found:
        raise EditError("no hidden layer gives as much as it takes")
    return found


def _is_passed(record: Record, layer: Layer) -> bool:
    """Whether something is added to a layer's output already, before the next layer with weights."""
    todo, seen = [layer.name], set()
    while todo:
        name = todo.pop()
        for other in record.program.layers:
            if name in other.inputs and other.name not in seen:
                seen.add(other.name)
                if other.op == "add" and len(other.inputs) > 1:
                    return True
                if other.op not in LINEAR:
                    todo.append(other.name)
    return False


# ---------------------------------------------------------------------- in forward


def _around_call(script: Script, layer: Layer) -> list[Edit]:
    """`x = x + f(x)` where it is `x = f(x)`; empty where the layer isn't called so."""
    source, line = script.at(layer.site)
    statement = source.statement(line)
    if (
        not isinstance(statement, ast.Assign)
        or len(statement.targets) != 1
        or not isinstance(statement.targets[0], ast.Name)
    ):
        return []
    name, value = statement.targets[0].id, statement.value
    if not isinstance(value, ast.Call) or source.of(value.func) == script.model:
        return []
    function = source.function(statement)
    if not isinstance(function, ast.FunctionDef) or function.name != "forward" or _innermost(value) != name:
        return []
    _all_square(script, source, statement)
    start, _ = source.span(value)
    return [Edit(source.file, start, start, f"{name} + ")]


def _innermost(value: ast.expr) -> str:
    """The name that calls around each other are at last given: "x" of `F.relu(self.fc(x))`."""
    while isinstance(value, ast.Call):
        own = isinstance(value.func, ast.Attribute) and isinstance(value.func.value, ast.Call)
        if isinstance(value.func, ast.Attribute) and own:
            value = value.func.value
        elif value.args:
            value = value.args[0]
        else:
            break
    return value.id if isinstance(value, ast.Name) else ""


def _all_square(script: Script, source: Source, statement: ast.stmt) -> None:
    """Sees to it that a statement calls no layer that changes the size, in a loop over layers or one around another.

    Raises:
        EditError: It calls one.
    """
    square = {layer.name for layer in _square(script.record)}
    lines = range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
    for layer in script.record.program.layers:
        if layer.op not in LINEAR or layer.name in square:
            continue
        where, line = script.at(layer.site)
        if where is source and line in lines:
            raise EditError(f"{layer.name!r} is called where {sorted(square)[0]!r} is, and changes the size")


# ---------------------------------------------------------------------- in a Sequential


def _around_modules(script: Script, layer: Layer) -> list[Edit]:
    """A layer and the activation, norm and dropout behind it within a class that adds its input.

    Raises:
        EditError: They don't stand beside each other.
    """
    made = script.module(layer.name)
    source, outer = made.source, made.source.parents[made.call]
    beside = outer.args if isinstance(outer, ast.Call) and called(outer).endswith("Sequential") else []
    beside = outer.elts if isinstance(outer, (ast.List, ast.Tuple)) else beside
    if made.call not in beside:
        raise EditError(f"{layer.name!r} stands in no Sequential, and is not called as in `x = f(x)`")
    for other in script.record.program.layers:  # the same call may make others
        if other.op in LINEAR and other is not layer and other.name not in {s.name for s in _square(script.record)}:
            try:
                same = script.module(other.name).call is made.call
            except EditError:
                continue
            if same:
                raise EditError(f"{layer.name!r} is made where {other.name!r} is, which changes the size")
    last = made.call
    for one in beside[beside.index(made.call) + 1 :]:
        if not isinstance(one, ast.Call) or called(one).rpartition(".")[2] not in _FOLLOW:
            break
        last = one
    start, end = source.span(made.call)[0], source.span(last)[1]
    chain, imports = in_torch(source, "torch.nn.Sequential")
    name = source.free("Residual", "ResidualBlock")
    home = _top(source, made.call)
    lines = [
        *_blank(source, home),
        f"class {name}({chain}):",
        "    def forward(self, x):",
        "        return x + super().forward(x)",
        "",
        "",
    ]
    return [
        *imports, source.before(home, lines, rank=-1), Edit(source.file, start, start, f"{name}("), Edit(source.file, end, end, ")"),
    ]  # fmt: skip


def _top(source: Source, node: ast.AST) -> ast.stmt:
    """The statement of the module that a node is in."""
    around = [node, *source.around(node)]
    return next(s for s in reversed(around) if isinstance(s, ast.stmt))


def _blank(source: Source, statement: ast.stmt) -> list[str]:
    """Blank lines that are missing for two before a statement."""
    before = source.before(statement, [""]).start
    text = source.text[:before]
    return [""] * (2 - min(2, len(text) - len(text.rstrip("\n")) - 1)) if text.strip() else []


def treat(training: Training, record: Record) -> None:
    """Every hidden layer in a `Sequential` that gives as much as it takes adds to its input, with what follows it up to the next layer.

    Raises:
        EditError: There is no such layer, or one stands in no `Sequential`: what `forward` does with it can't be changed.
    """
    from unstuck.remedies._training import modules_of

    for module in modules_of(training, _square(record)):
        if not _add_to_input(training, module):
            path = next(path for path, known in training.places.items() if known is module)
            raise EditError(f"{path!r} stands in no Sequential, and what is done with its output can't be changed")


def _add_to_input(training: Training, layer: nn.Module) -> bool:
    """Puts a layer and what follows it in a `Sequential` into one that adds its input; whether it stands in one."""
    from torch import nn

    from unstuck.remedies._training import Residual

    for parent in list(training.model.modules()):
        if type(parent) is nn.Sequential and layer in (children := list(parent)):
            start = children.index(layer)
            behind = itertools.takewhile(lambda m: type(m).__name__ in _FOLLOW, children[start + 1 :])
            run = [layer, *behind]
            children[start : start + len(run)] = [Residual(*run)]
            parent._modules = {str(i): child for i, child in enumerate(children)}
            return True
    return False
