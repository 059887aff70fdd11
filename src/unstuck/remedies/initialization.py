"""Another initialisation of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._text import in_torch, literal
from unstuck.source import Edit, EditError
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

SCHEMES = ("he", "glorot", "default", "orthogonal", "zero")


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """He's for ReLU, else Glorot's; then torch's own. Zeros where there is one layer alone, which has no symmetry to break."""
    weights = [p for p in script.record.program.parameters if len(p.shape) > 1]
    if len(weights) == 1:
        return [{"scheme": "zero"}, {"scheme": "default"}]
    ops = [layer.op for layer in script.record.program.layers]
    relu = sum(op in ("relu", "leaky_relu", "prelu", "elu", "gelu", "silu") for op in ops)
    first = "he" if relu >= sum(op in ("sigmoid", "tanh") for op in ops) else "glorot"
    return [{"scheme": first}, {"scheme": "default"}]


def initialization(script: Script, *, scheme: str = "he") -> list[Edit]:
    """Weights drawn anew before the optimizer is made: so large that signals keep their size from layer to layer.

    `he` (He et al. 2015) suits ReLU and its kin, `glorot` (Glorot and Bengio 2010) tanh and sigmoid, `orthogonal` (Saxe et al. 2014)
    deep chains of linear layers; biases become zero. `default` is what torch draws if left alone. Weights that the script holds as
    plain tensors are drawn of the same size, from a normal distribution. `zero` suits a single layer, whose loss is convex.

    Args:
        script: The script.
        scheme: he, glorot, orthogonal, default or zero.

    Returns:
        The edits.

    Raises:
        EditError: It can't be told where the weights are made.
    """  # noqa: DOC502
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
        "orthogonal": f"{nn}.orthogonal_(module.weight)", "zero": f"{nn}.zeros_(module.weight)",
    }[scheme]  # fmt: skip
    kinds = [in_torch(source, f"torch.nn.{kind}")[0] for kind in ("Linear", "Conv1d", "Conv2d")]
    lines = [
        f"for module in {model}.modules():", f"    if isinstance(module, ({', '.join(kinds)})):", f"        {draw}",
        "        if module.bias is not None:", f"            {nn}.zeros_(module.bias)",
    ]  # fmt: skip
    return [*imports, *script.before_optimizer(lines, rank=1)]


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
    """Draws the weights anew.

    Raises:
        EditError: The model has no layers of a kind that is drawn so.
    """
    from torch import nn
    from torch.nn import init

    drawn: list[Any] = [m for m in training.model.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]
    if scheme == "default":
        drawn = [m for m in training.model.modules() if hasattr(m, "reset_parameters")]
    if not drawn:
        raise EditError("the model has no layers whose weights could be drawn anew")
    draw: dict[str, Callable[[Any], object]] = {
        "he": lambda m: init.kaiming_normal_(m.weight, nonlinearity="relu"), "glorot": lambda m: init.xavier_uniform_(m.weight),
        "orthogonal": lambda m: init.orthogonal_(m.weight), "zero": lambda m: init.zeros_(m.weight),
        "default": lambda m: m.reset_parameters(),
    }  # fmt: skip
    for module in drawn:
        draw[scheme](module)
        if scheme != "default" and module.bias is not None:
            init.zeros_(module.bias)
