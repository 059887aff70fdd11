"""More or less dropout, or some where there is none."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from unstuck.evidence import Layer
from unstuck.program import Script
from unstuck.remedies._text import in_sequential, in_torch, literal
from unstuck.remedies.mode import mode
from unstuck.rules._depth import LINEAR
from unstuck.source import Edit, EditError, argument, called, number_in
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

_MODULES = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout")


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """None where it holds the network back; half where it overfits, then a fifth."""
    return [{"p": 0.5}, {"p": 0.2}] if any(f.cause == "overfitting" for f in verdict.findings) else [{"p": 0.0}]


def dropout(script: Script, *, p: float = 0.0) -> list[Edit]:
    """The share of units that every dropout leaves out, layers as well as functions; where there are none, they are put in.

    They stand behind the activations of dense layers (Srivastava et al. 2014), or behind the last activation where only the output is
    dense. Where the script doesn't tell training from evaluation, that is written with them: dropout is for training alone.

    Args:
        script: The script.
        p: The share, from 0 to 1.

    Returns:
        The edits.

    Raises:
        EditError: There is no dropout of another share that is made or called by a plain call, and none can be put in.
    """
    calls = [(m.source, m.call, 0) for m in script.modules(*_MODULES)]
    for layer in script.record.program.layers:
        if layer.op == "dropout" and layer.module not in _MODULES:
            source, line = script.at(layer.site)
            named = [c for c in source.nodes(ast.Call, line) if called(c).rpartition(".")[2].endswith("dropout")]
            calls += [(source, c, 1) for c in named if c.args and called(c).partition(".")[0] != "self"]
    if not calls and p > 0:
        return _put_in(script, p)
    edits = []
    for source, call, position in calls:
        given = argument(call, "p", position)
        number = source.constant(given) if given is not None else None
        if number is not None and number_in(number) == p:
            continue
        edits.append(
            source.replace(number, literal(p))
            if number is not None
            else source.keyword(call, "p", literal(p), position=position)
        )
    if not edits:
        raise EditError(f"there is no dropout of another share than {literal(p)}")
    return list(dict.fromkeys(edits))


# ---------------------------------------------------------------------- where there is none

_ACTIVATIONS = frozenset(
    {"relu", "leaky_relu", "prelu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "relu6", "mish"}
)


def _put_in(script: Script, p: float) -> list[Edit]:
    """Behind activations, with the modes that it takes.

    Raises:
        EditError: There are none, or it can't be told where they are or how training is told from evaluation.
    """  # noqa: DOC502
    edits: dict[Edit, None] = {}
    for layer in _dense(script.record):
        edits.update(dict.fromkeys(_behind(script, layer, p)))
    if not script.sites("eval"):
        edits.update(dict.fromkeys(mode(script, of="evaluation")))
    elif not script.sites("train"):
        edits.update(dict.fromkeys(mode(script)))
    return list(edits)


def _dense(record: Record) -> list[Layer]:
    """Activations of hidden dense layers; else the last activation before the output.

    Raises:
        EditError: There are none.
    """
    layers = [layer for layer in record.program.layers if layer.role != "loss"]
    weighted = [i for i, layer in enumerate(layers) if layer.op in LINEAR]
    hidden = [i for i, layer in enumerate(layers[: weighted[-1]] if weighted else []) if layer.op in _ACTIVATIONS]
    before = {i: layers[max((w for w in weighted if w < i), default=i)].op for i in hidden}
    if not hidden:
        raise EditError("there is neither dropout nor a hidden activation")
    return [layers[i] for i in hidden if before[i] == "linear"] or [layers[i] for i in hidden[-1:]]


def _behind(script: Script, layer: Layer, p: float) -> list[Edit]:
    """Behind an activation: beside it in a `Sequential`, else around its call in `forward`.

    Raises:
        EditError: It can't be told where that is.
    """
    if script.sites("module") and _is_made(script, layer):
        made = script.module(layer.name)
        beside = isinstance(made.source.parents[made.call], (ast.List, ast.Tuple))  # of what goes into one
        if beside or in_sequential(made.source, made.call):
            name, imports = in_torch(made.source, "torch.nn.Dropout")
            _, end = made.source.span(made.call)
            return [*imports, Edit(made.source.file, end, end, f", {name}({literal(p)})")]
    source, line = script.at(layer.site)
    own = f"self.{layer.name.partition(' after ')[0].rpartition('.')[2]}"
    for call in source.nodes(ast.Call, line):
        if called(call) == own or called(call).rpartition(".")[2].rstrip("_") == layer.op:
            if "self" not in (
                a.arg for f in source.around(call) if isinstance(f, ast.FunctionDef) for a in f.args.args
            ):
                raise EditError(f"it isn't known on line {call.lineno} whether the network is in training")
            name, imports = in_torch(source, "torch.nn.functional.dropout")
            start, end = source.span(call)  # around it, so that one may stand within another
            behind = f", {literal(p)}, self.training)"
            return [*imports, Edit(source.file, start, start, f"{name}("), Edit(source.file, end, end, behind)]
    raise EditError(f"it can't be told where {layer.name!r} is computed")


def _is_made(script: Script, layer: Layer) -> bool:
    try:
        return script.module(layer.name).call is not None
    except EditError:
        return False


def treat(training: Training, record: Record, *, p: float = 0.0) -> None:
    """The share of units that every dropout layer leaves out; where there are none, they are put in.

    Raises:
        EditError: There is no layer of another share, and none can be put in.
    """
    own = [m for m in training.model.modules() if type(m).__name__ in _MODULES]
    functions = [
        layer.name for layer in record.program.layers if layer.op == "dropout" and layer.module not in _MODULES
    ]
    if functions and not own:
        raise EditError(f"{functions[0]!r} is a function that the model calls, and no module whose share could be set")
    if not own and p > 0:
        _put_behind(training, record, p)
        return
    found = [m for m in own if getattr(m, "p", p) != p]
    if not found:
        raise EditError(f"there is no dropout layer of another share than {literal(p)}")
    for module in found:
        setattr(module, "p", p)  # noqa: B010 - of some kind of dropout


def _put_behind(training: Training, record: Record, p: float) -> None:
    """Puts dropout behind activations.

    Raises:
        EditError: There are none, or one is a function, or a module that convolutions have in common with dense layers.
    """
    from torch import nn

    from unstuck.remedies._training import modules_of, wrap

    behind = _dense(record)
    found = modules_of(training, behind)
    others = [layer for layer in record.program.layers if layer.op in _ACTIVATIONS and layer not in behind]
    if {_module_name(layer) for layer in behind} & {_module_name(layer) for layer in others}:
        raise EditError("one activation stands behind several layers, not all of which are to have dropout")
    for module in found:
        dropout = nn.Dropout(p)
        wrap(training, module, dropout)
        dropout.train()  # also in a model that is trained in evaluation mode


def _module_name(layer: Layer) -> str:
    return layer.name.partition(" after ")[0]
