"""How often each class is a label, and how often it is the answer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unstuck.watcher.losses import _LIMIT, MOST_CLASSES, LossState, _count, _thin, _threshold


def evaluated_labels(trace: Any, main: LossState | None, batch: list[Tensor]) -> Tensor | None:
    """Labels and predictions by class of an evaluated forward pass, shape `(2, classes)`; None when they are unknown."""
    if main is None or main.kind not in ("class index", "one-hot", "binary", "multi-label"):
        return None
    seen = next((s for s in trace.losses if s.name == main.name and s.target is not None), None)
    if seen is not None:
        return label_counts(main, seen.output, seen.target)
    if trace.compared and main.kind == "class index":
        guess, truth, _ = trace.compared[-1]
        whole = not (guess.is_floating_point() or truth.is_floating_point())
        if whole and guess.shape == truth.shape and guess.numel() > 1:
            return _counts(truth.reshape(-1), guess.reshape(-1), main.num_classes, -100)
    output, target = next(iter(trace.root_outputs), None), batch[-1] if batch else None
    if not isinstance(output, Tensor) or target is None or not (output.dim() and target.dim()):
        return None
    same = output.shape[0] == target.shape[0] and output.device == target.device
    return label_counts(main, output, target) if same else None


def label_counts(main: LossState, output: Tensor, target: Tensor) -> Tensor | None:
    """How often each class (0 and 1 for bits) is a label, and is predicted; None where shapes don't fit."""
    if main.kind in ("binary", "multi-label"):
        if output.numel() != target.numel():
            return None
        middle = 0.0 if main.target.get("min", 0.0) < 0 else 0.5
        truth = _thin(target) > middle
        return _counts(truth.long(), (_thin(output) > _threshold(main)).long(), 2, -100)
    if not 1 < main.num_classes <= MOST_CLASSES or output.dim() < 2 or output.shape[1] != main.num_classes:
        return None
    if main.kind == "one-hot" and target.shape == output.shape:
        target = target.argmax(1)
    if target.is_floating_point() or target.dim() != output.dim() - 1:
        return None
    rows = max(1, 4 * _LIMIT * output.shape[0] // max(1, output.numel()))
    truth, guess = target[:rows].reshape(-1), output[:rows].argmax(1).reshape(-1)
    if truth.shape != guess.shape:
        return None
    return _counts(truth, guess, main.num_classes, int(main.settings.get("ignore_index", -100)))


def _counts(truth: Tensor, guess: Tensor, classes: int, ignored: int) -> Tensor:
    return torch.stack([_count(truth, classes, truth, ignored), _count(guess, classes, truth, ignored)])
