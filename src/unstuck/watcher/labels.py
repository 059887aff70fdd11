"""How often each class is a label, and how often it is the answer."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstuck.watcher.loss_calls import class_axis
from unstuck.watcher.loss_state import LOOKED_AT, LossState, thin
from unstuck.watcher.recorder import Columns, Sample

MOST_CLASSES = 4096


def count_classes(state: LossState, output: Tensor, target: Tensor, sample: Sample) -> None:
    """Counts labels and predictions of a sampled step by class, where the loss takes classes.

    Args:
        state: The loss; keeps the labels of all steps.
        output: Its outputs.
        target: Its targets.
        sample: Takes the counts.
    """
    if state.kind not in ("class index", "one-hot") or not 1 < state.num_classes <= MOST_CLASSES:
        return
    rows = _enough_rows(output)
    some, output = target[:rows], output[:rows]
    truth = some if state.kind == "class index" else some.argmax(class_axis(some))
    guess = output.argmax(class_axis(output)) if output.dim() > 1 else output.round().long()
    truth, guess = truth.reshape(-1), guess.reshape(-1)
    every = thin(target) if state.kind == "class index" else truth  # outputs are large, targets are not
    ignored = int(state.settings.get("ignore_index", -100))
    counts = [_count(of, state.num_classes, by, ignored) for of, by in ((truth, truth), (guess, truth), (every, every))]
    sample.put(("labels", state.site), torch.stack(counts), functools.partial(_keep_classes, state))


def _keep_classes(state: LossState, columns: Columns, numbers: np.ndarray) -> None:
    columns.vectors.append(("label_count", "", numbers[0].copy()))
    columns.vectors.append(("prediction_count", "", numbers[1].copy()))
    state.labels = numbers[2].astype(np.float64) + (state.labels if state.labels is not None else 0.0)
    state.unique.update(np.flatnonzero(numbers[0]).tolist())


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
        truth = thin(target) > middle
        return _counts(truth.long(), (thin(output) > main.threshold).long(), 2, -100)
    if not 1 < main.num_classes <= MOST_CLASSES or output.dim() < 2 or output.shape[1] != main.num_classes:
        return None
    if main.kind == "one-hot" and target.shape == output.shape:
        target = target.argmax(1)
    if target.is_floating_point() or target.dim() != output.dim() - 1:
        return None
    rows = _enough_rows(output)
    truth, guess = target[:rows].reshape(-1), output[:rows].argmax(1).reshape(-1)
    if truth.shape != guess.shape:
        return None
    return _counts(truth, guess, main.num_classes, int(main.settings.get("ignore_index", -100)))


def _counts(truth: Tensor, guess: Tensor, classes: int, ignored: int) -> Tensor:
    return torch.stack([_count(truth, classes, truth, ignored), _count(guess, classes, truth, ignored)])


def _count(values: Tensor, classes: int, truth: Tensor, ignored: int) -> Tensor:
    values, keep = values.long(), (truth != ignored).float()
    counts = torch.zeros(classes + 1, device=values.device)
    where = values.clamp(0, classes)
    where = torch.where((values < 0) | (values >= classes), torch.full_like(where, classes), where)
    return counts.scatter_add_(0, where, keep)[:classes]


def _enough_rows(output: Tensor) -> int:
    """Rows of a batch that are enough for shares of classes."""
    return max(1, 4 * LOOKED_AT * output.shape[0] // max(1, output.numel()))
