"""Rare classes that count for more in the loss."""

from __future__ import annotations

import ast
import copy
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from unstuck.program import Script, loss_of
from unstuck.remedies._network import device_at
from unstuck.remedies._text import in_torch, literals
from unstuck.source import Edit, EditError, Source
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training

_BINARY = frozenset({"binary_cross_entropy_with_logits"})
_CLASSES = {
    "cross_entropy": "CrossEntropyLoss",
    "nll_loss": "NLLLoss",
    "binary_cross_entropy_with_logits": "BCEWithLogitsLoss",
}


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """By the inverse of how often a class comes, and by the root of that."""
    shares = np.asarray(script.record.program.task.label_share)
    if len(shares) < 2 or not (shares > 0).all():
        return []
    return [
        {"weights": [round(float(w), 4) for w in (1 / shares) ** power / ((1 / shares) ** power).mean()]}
        for power in (1.0, 0.5)
    ]


def class_weights(script: Script, *, weights: list[float]) -> list[Edit]:
    """Weights by class in cross-entropy; of two classes with one output the weight of the second over that of the first.

    Args:
        script: The script.
        weights: By class.

    Returns:
        The edits.

    Raises:
        EditError: The loss takes no weights, or isn't computed by a plain call.
    """
    name = script.loss.name
    if name not in _CLASSES:
        raise EditError(f"{name} takes no weights by class")

    keyword, numbers = ("pos_weight", [weights[1] / weights[0]]) if name in _BINARY else ("weight", weights)
    criteria = script.modules(_CLASSES[name])
    source, call = (criteria[0].source, criteria[0].call) if criteria else script.loss_call()
    position = None if name in _BINARY else 0 if criteria else 2
    tensor, imports = in_torch(source, "torch.tensor")
    text = f"{tensor}({literals(numbers)}{_device(script, source, call, of_target=not criteria)})"
    return [*imports, source.keyword(call, keyword, text, position=position)]


def _device(script: Script, source: Source, call: ast.Call, *, of_target: bool) -> str:
    """The argument that makes weights where the network is: on the device of the targets, where these are at hand.

    Raises:
        EditError: It isn't known on which device that is.
    """
    target = call.args[1] if of_target and len(call.args) > 1 else None
    try:
        device = device_at(script, source, call)
    except EditError:
        if not isinstance(target, ast.Name):
            raise
        device = f"{target.id}.device"
    if device.startswith("next(") and isinstance(target, ast.Name):
        device = f"{target.id}.device"
    return f", device={device}" if device else ""


def treat(training: Training, record: Record, *, weights: list[float]) -> None:
    """Weights by class in the loss, where that is one of torch's.

    Raises:
        EditError: The loss takes no weights, or is a function of the user's own.
    """
    import torch

    name, loss = loss_of(record).name, training.loss
    if name not in _CLASSES:
        raise EditError(f"{name} takes no weights by class")
    keyword, numbers = ("pos_weight", [weights[1] / weights[0]]) if name in _BINARY else ("weight", weights)
    tensor = torch.tensor(numbers, device=training.device)
    if isinstance(loss, getattr(torch.nn, _CLASSES[name])):
        training.loss = copy.deepcopy(loss)  # a criterion may be shared by several trainings
        setattr(training.loss, keyword, tensor)
    elif getattr(torch.nn.functional, name) in (loss, getattr(loss, "func", None)):
        training.loss = functools.partial(loss, **{keyword: tensor})
    else:
        raise EditError("the loss is a function of its own, which takes no weights by class")
