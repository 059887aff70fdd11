"""One batch of answers, judged sample by sample: classes, several labels at once, or numbers."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from unstuck.errors import MisuseError

Kind = Literal["classes", "multi-label", "regression"]
Scale = Literal["logits", "probabilities"]
NUM_BINS = 15  # of confidence; Guo et al. 2017 take as many
LEAST_LOG = math.log(1e-300)  # what a probability of 0 counts as, so that losses stay finite


@dataclass
class Batch:
    """What is kept of a batch, on the processor; see `judging.Judged`."""

    kind: Kind
    columns: dict[str, np.ndarray]
    num_classes: int
    pairs: Counter[int]
    labels: np.ndarray
    bins: np.ndarray


def judged_batch(
    outputs: Tensor, targets: Tensor, kind: Kind, *, scale: Scale | None, class_axis: int | None, ignore_index: int
) -> tuple[Batch, Scale | None]:
    """A batch, judged, and the scale of its outputs.

    Args:
        outputs: As `Collector.update` takes them.
        targets: Of the same samples.
        kind: What targets are; a single label is a choice of two classes.
        scale: Of outputs, None where it is to be told.
        class_axis: Of outputs, None where it is to be told.
        ignore_index: Target that doesn't count.

    Raises:
        MisuseError: Outputs and targets don't fit together.
    """  # noqa: DOC502
    if kind == "classes":
        axis = _class_axis(outputs, targets, class_axis)
        rows = outputs.movedim(axis, -1).reshape(len(outputs), -1, outputs.shape[axis]).double()
        scale = scale or _scale_of(rows, summing=True)
        log = rows.clamp(min=0).log() if scale == "probabilities" else rows.log_softmax(-1)
        return _judged_classes(log, targets.reshape(len(targets), -1).long(), ignore_index), scale
    _check_same(outputs, targets)
    if kind == "regression":
        return _judged_numbers(outputs, targets), None
    scale = scale or _scale_of(outputs, summing=False)
    log, truth = (
        _pair_of_logs(outputs.reshape(len(outputs), -1).double(), scale),
        targets.reshape(len(targets), -1) > 0.5,
    )
    if truth.shape[1] == 1:
        return _judged_classes(log, truth.long(), ignore_index), scale
    return _judged_labels(log, truth), scale


def kind_of(outputs: Tensor, targets: Tensor) -> Kind:
    """What targets are, by their type, shape and values."""
    whole = not targets.is_floating_point() and targets.dtype != torch.bool
    if whole and outputs.dim() == targets.dim() + 1:
        return "classes"
    if bool(((targets == 0) | (targets == 1)).all()) and outputs.numel() == targets.numel():
        return "multi-label"
    return "regression"


def _scale_of(outputs: Tensor, *, summing: bool) -> Scale:
    inside = bool(((outputs >= 0) & (outputs <= 1 + 1e-6)).all())
    sums = not summing or bool(((outputs.sum(-1) - 1).abs() < 1e-3).all())
    return "probabilities" if inside and sums else "logits"


def _class_axis(outputs: Tensor, targets: Tensor, given: int | None) -> int:
    shape, wanted = tuple(outputs.shape), tuple(targets.shape)
    fits = [a for a in range(1, len(shape)) if shape[:a] + shape[a + 1 :] == wanted]
    axis = given % len(shape) if given is not None and -len(shape) <= given < len(shape) else given
    if (axis is not None and axis not in fits) or not fits:
        raise MisuseError(
            f"outputs {shape} and targets {wanted}; outputs without their axis of classes must have the shape of targets (class_axis, kind)"
        )
    return fits[0] if axis is None else axis


def _check_same(outputs: Tensor, targets: Tensor) -> None:
    if outputs.numel() != targets.numel():
        raise MisuseError(
            f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}; both need the same shape"
        )


def _judged_classes(log: Tensor, targets: Tensor, ignored: int) -> Batch:
    """From logarithms of probabilities, `(batch, positions, classes)`.

    Raises:
        MisuseError: A target is no class.
    """
    num_classes, counts = log.shape[-1], targets != ignored
    if bool(((targets < 0) | (targets >= num_classes))[counts].any()):
        bad = targets[counts & ((targets < 0) | (targets >= num_classes))][0]
        raise MisuseError(
            f"a target of {int(bad)} and {num_classes} classes; say which one doesn't count by ignore_index="
        )
    known = torch.where(counts, targets, 0)
    positions = counts.sum(1)
    best, guess = log.max(-1)
    wrong = (guess != known) & counts
    each = -log.gather(-1, known[..., None])[..., 0].clamp(min=LEAST_LOG)
    shown, answered = (known[:, 0], guess[:, 0]) if targets.shape[1] == 1 else _most_frequent(known, guess, wrong)
    some = positions.clamp(min=1)
    columns = {
        "losses": (each * counts).sum(1) / some, "errors": wrong.sum(1).double() / some, "targets": shown, "predictions": answered,
        "confidences": (best.exp() * counts).sum(1) / some, "positions": positions,
    }  # fmt: skip
    codes, times = torch.unique((known * num_classes + guess)[counts], return_counts=True)
    pairs = Counter(dict(zip(codes.tolist(), times.tolist(), strict=True)))
    bins = _binned(best.exp()[counts], ~wrong[counts])
    return Batch("classes", _arrays(columns), num_classes, pairs, np.zeros((0, 4), np.int64), bins)


def _most_frequent(known: Tensor, guess: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
    """Class and answer of the most frequent wrong pair of each sample, -1 where all is right."""
    shown, answered = torch.full((len(known),), -1), torch.full((len(known),), -1)
    for i in wrong.any(1).nonzero()[:, 0].tolist():
        found = torch.stack([known[i], guess[i]])[:, wrong[i]]
        pairs, times = torch.unique(found, dim=1, return_counts=True)
        shown[i], answered[i] = pairs[:, times.argmax()]
    return shown, answered


def _judged_labels(log: Tensor, truth: Tensor) -> Batch:
    """From logarithms of the probabilities of no and yes, `(batch, labels, 2)`."""
    each = -torch.where(truth, log[..., 1], log[..., 0]).clamp(min=LEAST_LOG)
    given = log[..., 1] > log[..., 0]
    wrong, confidence = given != truth, log.amax(-1).exp()
    none = torch.full((len(truth),), -1)
    columns = {
        "losses": each.mean(1), "errors": wrong.double().mean(1), "targets": none, "predictions": none,
        "confidences": confidence.mean(1), "positions": torch.full((len(truth),), truth.shape[1]),
    }  # fmt: skip
    kinds = [given & truth, given & ~truth, ~given & truth, ~given & ~truth]
    labels = torch.stack([found.sum(0) for found in kinds], dim=1).numpy()
    bins = _binned(confidence.reshape(-1), ~wrong.reshape(-1))
    return Batch("multi-label", _arrays(columns), truth.shape[1], Counter(), labels, bins)


def _judged_numbers(outputs: Tensor, targets: Tensor) -> Batch:
    _check_same(outputs, targets)
    answered, known = (t.reshape(len(t), -1).double() for t in (outputs, targets))
    apart, single = answered - known, known.shape[1] == 1
    nothing = torch.full((len(known),), math.nan, dtype=torch.float64)
    columns = {
        "losses": apart.square().mean(1), "errors": apart.abs().mean(1), "targets": known[:, 0] if single else nothing,
        "predictions": answered[:, 0] if single else nothing, "confidences": nothing,
        "positions": torch.full((len(known),), known.shape[1]),
    }  # fmt: skip
    return Batch("regression", _arrays(columns), 0, Counter(), np.zeros((0, 4), np.int64), np.zeros((NUM_BINS, 3)))


def _pair_of_logs(values: Tensor, scale: Scale) -> Tensor:
    """Logarithms of the probabilities of no and of yes, on a new last axis."""
    if scale == "probabilities":
        return torch.stack([1 - values, values], dim=-1).clamp(min=0).log()
    return torch.stack([torch.zeros_like(values), values], dim=-1).log_softmax(-1)


def _binned(confidence: Tensor, right: Tensor) -> np.ndarray:
    which = (confidence * NUM_BINS).long().clamp(0, NUM_BINS - 1)
    sums = torch.zeros(NUM_BINS, 3, dtype=torch.float64)
    sums.index_add_(0, which, torch.stack([torch.ones_like(confidence), confidence, right.double()], dim=1).double())
    return sums.numpy()


def _arrays(columns: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {n: (c.double() if c.is_floating_point() else c).numpy() for n, c in columns.items()}


def worst_first(losses: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Samples that are wrong first, the most confident errors first among them."""
    return np.lexsort((-np.nan_to_num(losses, nan=np.inf), errors <= 0))
