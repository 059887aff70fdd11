"""Targets of mean 0 and deviation 1 for the network, and predictions in their own units."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from unstuck.program import Script, loss_of
from unstuck.remedies._text import literal
from unstuck.source import Edit, EditError
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

_LINEAR = frozenset({"l1_loss", "smooth_l1_loss", "huber_loss"})


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """Where there are real targets."""
    task = script.record.program.task
    known = task.kind == "regression" and math.isfinite(task.target_std) and task.target_std > 0
    return [{"mean": float(literal(task.target_mean)), "std": float(literal(task.target_std))}] if known else []


def standardize_target(script: Script, *, mean: float, std: float) -> list[Edit]:
    """The network's output is scaled and shifted to the targets' units, and the loss is scaled back.

    To the network that is as if the targets were standardised; predictions, and what is made of them, stay in their units.

    Args:
        script: The script.
        mean: Of the training targets.
        std: Their deviation.

    Returns:
        The edits.

    Raises:
        EditError: There is no module, or it can't be told where the loss is computed.
    """
    if not script.is_module:
        raise EditError("the network is no module")
    shifted = f"output * {literal(std)} {'-' if mean < 0 else '+'} {literal(abs(mean))}"
    hook = f"{script.model}.register_forward_hook(lambda module, args, output: {shifted})"
    scale = std if script.loss.name in _LINEAR else std * std
    return [*script.before_optimizer([hook], rank=4), *script.loss_over(literal(scale))]


def treat(training: Training, record: Record, *, mean: float, std: float) -> None:
    """The model's output is scaled and shifted to the targets' units, and the loss is scaled back."""
    from unstuck.remedies._training import Output, Over

    training.model.register_forward_hook(Output(_in_units, mean=mean, std=std))
    training.on_loss.append(Over(std if loss_of(record).name in _LINEAR else std * std))


def _in_units(output: Any, *, mean: float, std: float) -> Any:
    return output * std + mean
