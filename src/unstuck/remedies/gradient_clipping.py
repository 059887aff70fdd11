"""Gradients that are cut to a size before each step."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import numpy as np

from unstuck.program import Script
from unstuck.remedies._text import in_torch, literal
from unstuck.source import Edit, EditError, argument, called
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """A norm of 1, and a usual one of the run where that is another; where gradients explode their values, too."""
    norms = script.record.series("grad_norm").finite.values
    usual = float(np.percentile(norms, 50)) if len(norms) else 1.0
    found = [{"norm": 1.0}, *([{"norm": float(literal(usual))}] if 0 < usual < 0.3 or usual > 3 else [])]
    largest = [script.record.series("grad_max", place).finite.values for place in script.record.places("grad_max")]
    values = np.concatenate(largest) if largest else np.zeros(0)
    if any(f.cause == "exploding-gradient" for f in verdict.findings) and (values > 0).any():
        found.append({"value": float(literal(float(np.percentile(values, 50))))})
    return found


def gradient_clipping(script: Script, *, norm: float = 1.0, value: float = 0.0) -> list[Edit]:
    """The gradient's norm cut to a limit before each step (Pascanu et al. 2013), so that a rare large one can't throw the weights off.

    Gradients that are scaled for half precision are brought to their own size first.

    Args:
        script: The script.
        norm: The limit of the L2 norm over all parameters.
        value: The limit of each number instead of the norm (Mikolov 2012); 0 for the norm.

    Returns:
        The edits.

    Raises:
        EditError: It can't be told where the optimizer steps.
    """  # noqa: DOC502
    name, limit = ("clip_grad_value_", literal(value)) if value else ("clip_grad_norm_", literal(norm))
    if not script.sites("optimizer"):
        return _by_hand(script, name, limit)
    source, statement = script.statement("step")
    made = script.optimizer()
    given = argument(made.call, "params", 0)
    text = made.source.of(given) if given is not None else ""
    if (
        made.source is not source
        or not text.endswith(".parameters()")
        or source.function(made.call) is not source.function(statement)
    ):
        text = f'[p for group in {script.stepping}.param_groups for p in group["params"]]'
    clip, imports = in_torch(source, f"torch.nn.utils.{name}")
    line = f"{clip}({text}, {limit})"
    step = next((c for c in ast.walk(statement) if isinstance(c, ast.Call) and called(c).endswith(".step")), None)
    if (
        step is not None
        and step.args
        and script.record.program.optimizers
        and script.record.program.optimizers[0].closure
    ):
        _, backward = script.statement("backward")  # within what the step calls
        return [*imports, source.after(backward, [line])]
    scaler = called(step).removesuffix(".step") if step is not None and "scal" in called(step).lower() else ""
    scaled = scaler and f"{scaler}.unscale_(" not in source.text
    return [*imports, source.before(statement, [*[f"{scaler}.unscale_({script.stepping})"] * bool(scaled), line])]


def _by_hand(script: Script, name: str, limit: str) -> list[Edit]:
    """Behind backward, where the update is written by hand.

    Raises:
        EditError: The parameters have no names.
    """
    source, backward = script.statement("backward")
    if script.is_module:
        given = f"{script.model}.parameters()"
    else:
        names = [p.name for p in script.record.program.parameters if p.name.isidentifier()]
        given = f"[{', '.join(names)}]"
        if not names:
            raise EditError("the parameters aren't known by their names")
    clip, imports = in_torch(source, f"torch.nn.utils.{name}")
    return [*imports, source.after(backward, [f"{clip}({given}, {limit})"])]


def treat(training: Training, record: Record, *, norm: float = 1.0, value: float = 0.0) -> None:
    """The gradient's norm, or each number of it, cut to a limit before each step; a lower limit of the norm that there is stays."""
    if value:
        training.on_gradients.append(_Cut(value))
    else:
        training.clip = norm if training.clip is None else min(norm, training.clip)


class _Cut:
    """Cuts each number of the gradients.

    Args:
        value: The limit.
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, training: Training) -> None:
        from torch.nn.utils import clip_grad_value_

        clip_grad_value_([p for group in training.optimizer.param_groups for p in group["params"]], self.value)
