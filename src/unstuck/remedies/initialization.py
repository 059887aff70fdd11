"""Another initialisation of the weights."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._network import device_at
from unstuck.remedies._text import in_torch, literal
from unstuck.source import Edit, EditError, Source
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unstuck.evidence import Record
    from unstuck.training import Training

SCHEMES = ("he", "glorot", "lecun", "default", "orthogonal", "identity", "lsuv", "zero")
_RECURRENT = frozenset({"rnn", "lstm", "gru", "rnn_cell", "lstm_cell", "gru_cell"})
_BATCH = 256  # samples that weights are scaled by


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """He's for ReLU, LeCun's for SELU, else Glorot's; then torch's own, then by the data. Orthogonal or identity where it recurs.

    Zeros where there is one layer alone, which has no symmetry to break.
    """
    weights = [p for p in script.record.program.parameters if len(p.shape) > 1]
    if len(weights) == 1:
        return [{"scheme": "zero"}, {"scheme": "default"}]
    ops = [layer.op for layer in script.record.program.layers]
    if _RECURRENT & {*ops}:
        recurs = ["orthogonal", *["identity"] * bool({"rnn", "rnn_cell"} & {*ops}), "default"]
        return [{"scheme": scheme} for scheme in recurs]
    relu = sum(op in ("relu", "leaky_relu", "prelu", "elu", "gelu", "silu") for op in ops)
    first = "lecun" if "selu" in ops else "he" if relu >= sum(op in ("sigmoid", "tanh") for op in ops) else "glorot"
    by_data = [{"scheme": "lsuv"}] * any(f.cause == "bad-initialization" for f in verdict.findings)
    return [{"scheme": first}, {"scheme": "default"}, *by_data]


def initialization(script: Script, *, scheme: str = "he") -> list[Edit]:
    """Weights drawn anew before the optimizer is made: so large that signals keep their size from layer to layer.

    `he` (He et al. 2015) suits ReLU and its kin, `glorot` (Glorot and Bengio 2010) tanh and sigmoid, `lecun` (LeCun et al. 1998) SELU,
    `orthogonal` (Saxe et al. 2014) deep chains of linear layers; biases become zero. Where the network recurs, `orthogonal` is what a
    hidden state is multiplied by from step to step, gate by gate, and `identity` (Le et al. 2015) leaves it as it is. `lsuv` (Mishkin and
    Matas 2016, without their orthogonal start) divides weights by the deviation of what they give of a batch, layer by layer. `default`
    is what torch draws if left alone. Weights that the script holds as plain tensors are drawn of the same size, from a normal
    distribution. `zero` suits a single layer, whose loss is convex.

    Args:
        script: The script.
        scheme: he, glorot, lecun, orthogonal, identity, lsuv, default or zero.

    Returns:
        The edits.

    Raises:
        EditError: It can't be told where the weights are made.
    """  # noqa: DOC502
    if _is_of_recurrence(script.record, scheme):
        return _of_recurrence(script, scheme)
    if scheme == "lsuv":
        return _by_data(script)
    if script.is_module:
        return _of_modules(script, scheme)
    return _of_tensors(script, scheme)


def _of_modules(script: Script, scheme: str) -> list[Edit]:
    source, model = script.place, script.model
    if scheme == "default":
        lines = [
            f"for module in {model}.modules():",
            '    if hasattr(module, "reset_parameters"):',
            "        module.reset_parameters()",
        ]
        return script.before_optimizer(lines, rank=1)
    nn, imports = in_torch(source, "torch.nn.init")
    draw = {
        "he": f'{nn}.kaiming_normal_(module.weight, nonlinearity="relu")', "glorot": f"{nn}.xavier_uniform_(module.weight)",
        "lecun": f'{nn}.kaiming_normal_(module.weight, nonlinearity="linear")',
        "orthogonal": f"{nn}.orthogonal_(module.weight)", "zero": f"{nn}.zeros_(module.weight)",
    }[scheme]  # fmt: skip
    kinds = [in_torch(source, f"torch.nn.{kind}")[0] for kind in ("Linear", "Conv1d", "Conv2d")]
    lines = [
        f"for module in {model}.modules():", f"    if isinstance(module, ({', '.join(kinds)})):", f"        {draw}",
        "        if module.bias is not None:", f"            {nn}.zeros_(module.bias)",
    ]  # fmt: skip
    return [*imports, *script.before_optimizer(lines, rank=1)]


def _is_of_recurrence(record: Record, scheme: str) -> bool:
    recurs = any(layer.op in _RECURRENT for layer in record.program.layers)
    return scheme == "identity" or (scheme == "orthogonal" and recurs)


def _of_recurrence(script: Script, scheme: str) -> list[Edit]:
    """What a hidden state is multiplied by from step to step: orthogonal, or the identity and no bias.

    Raises:
        EditError: There is no recurrent layer, or one with gates, whose state the identity would not keep.
    """
    if not script.is_module:
        raise EditError("there is no recurrent layer")
    _check_recurrence(script.record, scheme)
    nn, imports = in_torch(script.place, "torch.nn.init")
    lines = [f"for name, parameter in {script.model}.named_parameters():", '    if "weight_hh" in name:']
    if scheme == "identity":
        lines += [f"        {nn}.eye_(parameter)", '    elif "bias_" in name:', f"        {nn}.zeros_(parameter)"]
    else:
        lines += [
            "        for gate in parameter.data.split(parameter.shape[1]):",
            f"            {nn}.orthogonal_(gate)",
        ]
    return [*imports, *script.before_optimizer(lines, rank=1)]


def _check_recurrence(record: Record, scheme: str) -> None:
    """Sees to it that there are recurrent layers that are drawn so.

    Raises:
        EditError: There is none, or one with gates, whose state the identity would not keep.
    """
    ops = {layer.op for layer in record.program.layers} & _RECURRENT
    if not ops:
        raise EditError("there is no recurrent layer")
    if scheme == "identity" and not ops <= {"rnn", "rnn_cell"}:
        raise EditError("the identity is for recurrent layers without gates")


def _by_data(script: Script) -> list[Edit]:
    """Weights and biases divided, layer by layer, by the deviation of what they give of a batch.

    Raises:
        EditError: The network is no module, or no samples are known where the optimizer is made.
    """
    if not script.is_module:
        raise EditError("the network is no module")
    source, statement = script.place, (script.optimizer() if script.sites("optimizer") else script.root()).statement
    device = device_at(script, source, statement)
    samples = _samples(script, source, statement) + (f".to({device})" if device else "")
    kinds = ", ".join(in_torch(source, f"torch.nn.{kind}")[0] for kind in ("Linear", "Conv1d", "Conv2d"))
    no_grad, imports = in_torch(source, "torch.no_grad")
    layers = f"for m in {script.model}.modules() if isinstance(m, ({kinds}))"
    lines = [
        "def rescale(module, args, output):", "    for parameter in module.parameters():",
        "        parameter /= output.std()", "    return output / output.std()", "",
        f"with {no_grad}():", f"    hooks = [m.register_forward_hook(rescale) {layers}]",
        f"    {script.model}({samples})", "for hook in hooks:", "    hook.remove()",
    ]  # fmt: skip
    return [*imports, *script.before_optimizer(lines, rank=5)]


def _samples(script: Script, source: Source, statement: ast.stmt) -> str:
    """A batch of inputs that is known before a statement: of the variable that holds them, else the loader's first.

    Raises:
        EditError: There is none.
    """
    name = next((str(e.data["variable"]) for e in script.record.happened("inputs")), "")
    given = [s for s in source.binds(name) if s.lineno < statement.lineno] if name and source is script.main else []
    if given and source.function(given[-1]) is source.tree:
        return f"{name}[:{_BATCH}]"
    made = script.loader()
    near = source.function(made.statement) in (source.function(statement), source.tree)
    if (
        made.source is not source
        or not made.target.isidentifier()
        or not near
        or made.statement.lineno > statement.lineno
    ):
        raise EditError("no samples are known where the optimizer is made")
    return f"next(iter({made.target}))[0]"


def _of_tensors(script: Script, scheme: str) -> list[Edit]:
    source, loops = script.loops()
    gain = math.sqrt(2) if scheme == "he" else 1.0
    lines = []
    for p in script.record.program.parameters:
        if len(p.shape) < 2 or not p.name.isidentifier() or not source.assigned(p.name):
            continue
        fan_in = p.shape[0]  # x @ w
        drawn = f"normal_(0, {literal(gain / math.sqrt(fan_in))})"
        lines.append(f"    {p.name}.{'zero_()' if scheme == 'zero' else drawn}")
    if not lines:
        return _of_optimizer(script, 0.0 if scheme == "zero" else gain)
    torch, imports = in_torch(source, "torch.no_grad")
    return [*imports, source.before(loops[-1], [f"with {torch}():", *lines], rank=1)]


def _of_optimizer(script: Script, gain: float) -> list[Edit]:
    """Whatever the optimizer holds: matrices that inputs are multiplied by from the left.

    Raises:
        EditError: The optimizer has no name.
    """
    made = script.optimizer()
    if not made.target:
        raise EditError("no weights of the script's own are known by their names")
    torch, imports = in_torch(made.source, "torch.no_grad")
    lines = [
        f"with {torch}():", f"    for group in {made.target}.param_groups:", '        for weight in group["params"]:',
        "            if weight.dim() == 2:", f"                weight.normal_(0, {literal(gain)} / weight.shape[0] ** 0.5)",
    ]  # fmt: skip
    return [*imports, made.source.after(made.statement, lines, rank=1)]


def treat(training: Training, record: Record, *, scheme: str = "he") -> None:
    """Draws the weights anew, or scales them by what they give of a batch.

    Raises:
        EditError: The model has no layers of a kind that is drawn so.
    """
    from torch import nn
    from torch.nn import init

    if _is_of_recurrence(record, scheme):
        _check_recurrence(record, scheme)
        _draw_recurrence(training.model, scheme)
        return
    drawn: list[Any] = [m for m in training.model.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]
    if scheme == "default":
        drawn = [m for m in training.model.modules() if hasattr(m, "reset_parameters")]
    if not drawn:
        raise EditError("the model has no layers whose weights could be drawn anew")
    if scheme == "lsuv":
        _scale_by_data(training, drawn)
        return
    draw: dict[str, Callable[[Any], object]] = {
        "he": lambda m: init.kaiming_normal_(m.weight, nonlinearity="relu"), "glorot": lambda m: init.xavier_uniform_(m.weight),
        "lecun": lambda m: init.kaiming_normal_(m.weight, nonlinearity="linear"), "orthogonal": lambda m: init.orthogonal_(m.weight),
        "zero": lambda m: init.zeros_(m.weight), "default": lambda m: m.reset_parameters(),
    }  # fmt: skip
    for module in drawn:
        draw[scheme](module)
        if scheme != "default" and module.bias is not None:
            init.zeros_(module.bias)


def _draw_recurrence(model: nn.Module, scheme: str) -> None:
    from torch.nn import init

    for name, parameter in model.named_parameters():
        if "weight_hh" in name and scheme == "identity":
            init.eye_(parameter)
        elif "weight_hh" in name:
            for gate in parameter.data.split(parameter.shape[1]):
                init.orthogonal_(gate)
        elif scheme == "identity" and "bias_" in name:
            init.zeros_(parameter)


def _scale_by_data(training: Training, layers: list[Any]) -> None:
    """Weights and biases divided by the deviation of what they give of the first batch, which is drawn without a trace."""
    import torch

    from unstuck._batches import copied_batches, numbers_kept

    hooks = [layer.register_forward_hook(_rescaled) for layer in layers]
    try:
        with numbers_kept(), torch.no_grad():
            training.forward(training.model, next(iter(copied_batches(training.batches, {}))))
    finally:
        for hook in hooks:
            hook.remove()


def _rescaled(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
    std = output.std()
    for parameter in layer.parameters():
        parameter /= std
    return output / std
