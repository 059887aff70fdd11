"""What goes into a model and what comes out, in a few numbers: input statistics by feature, labels and predictions by class."""

import math

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unstuck.signals.numbers import as_float, measurable, on_host, quiet, row
from unstuck.signals.sample import thin_units

FEATURES = ("mean", "std", "min", "max")
"""The rows `features` gives, in their order."""
MOST_FEATURES = 64
LIMIT = 8192  # numbers that are looked at


@torch.no_grad()
def features(x: Shaped[Tensor, "..."]) -> Float[Tensor, "stat feature"]:
    """Mean, standard deviation, minimum and maximum of each feature of a batch.

    Features lie along axis 1 of images (four axes or more), else along the last axis; what has one axis is one feature. Of more than 64
    every n-th is taken, and of a large batch some samples and positions.

    Args:
        x: A model's input, batch first (or time first, in sequences).

    Returns:
        A row for each of `FEATURES`, from the finite numbers alone; NaN for a feature that has none. No column where the tensor
        can't be measured.

    Example:
        >>> features(torch.tensor([[0.0, 10.0], [2.0, 10.0]])).tolist()
        [[1.0, 10.0], [1.0, 0.0], [0.0, 10.0], [2.0, 10.0]]
    """
    if not measurable(x):
        return torch.zeros(len(FEATURES), 0, dtype=torch.float32, device=x.device)
    if x.dim() < 2:
        x = x.reshape(-1, 1)
    axis = 1 if x.dim() > 3 else x.dim() - 1
    x = x[(slice(None),) * axis + (slice(None, None, -(-x.shape[axis] // MOST_FEATURES)),)]
    few = thin_units(x, axis, LIMIT).movedim(1, 0).flatten(1)
    numbers = on_host(few)
    found = _by_row_on_host(numbers) if numbers is not None else None
    return _by_row(as_float(few)) if found is None else found


@quiet
def _by_row_on_host(x: np.ndarray) -> Tensor | None:
    """By numpy; None when something isn't finite."""
    low, high = x.min(1), x.max(1)
    if not math.isfinite(float(high.sum()) - float(low.sum())):
        return None
    first = x[:, :1].astype(np.float64)
    off = x - first
    shift = off.mean(1, keepdims=True)
    off -= shift
    off *= off
    return row(np.stack([(first + shift)[:, 0], np.sqrt(off.mean(1)), low, high]))


def _by_row(x: Tensor) -> Tensor:
    finite = x.abs() < math.inf
    count = finite.sum(1)
    weight = count.clamp(min=1)
    first = torch.where(finite[:, 0], x[:, 0], 0.0)
    off = torch.where(finite, x - first.unsqueeze(1), 0.0)
    shift = off.sum(1) / weight
    spread = (torch.where(finite, off - shift.unsqueeze(1), 0.0).square().sum(1) / weight).sqrt()
    low = torch.where(finite, x, math.inf).amin(1)
    high = torch.where(finite, x, -math.inf).amax(1)
    return torch.where(count > 0, torch.stack([first + shift, spread, low, high]), math.nan).float()


@torch.no_grad()
def label_counts(
    target: Shaped[Tensor, "..."], num_classes: int, *, ignore_index: int = -100
) -> Float[Tensor, " class"]:
    """How often each class occurs among labels.

    Args:
        target: Class indices.
        num_classes: Number of classes; labels out of range aren't counted.
        ignore_index: Label that doesn't count.

    Returns:
        Counts.

    Example:
        >>> label_counts(torch.tensor([0, 2, 2, -100]), 3).tolist()
        [1.0, 0.0, 2.0]
    """
    labels = target.reshape(-1).long()
    counts = (labels >= 0) & (labels < num_classes) & (labels != ignore_index)
    return _count(labels, counts, num_classes)


@torch.no_grad()
def prediction_counts(
    output: Shaped[Tensor, "..."], target: Shaped[Tensor, "..."] | None = None, *, ignore_index: int = -100
) -> Float[Tensor, " class"]:
    """How often each class is predicted: has the largest output.

    Args:
        output: Logits or probabilities, classes along axis 1 (along the only one for a single sample).
        target: Class indices; where they are `ignore_index` the prediction doesn't count.
        ignore_index: Label that doesn't count.

    Returns:
        Counts, one for each class.

    Example:
        >>> prediction_counts(torch.tensor([[0.1, 0.9], [0.2, 0.3], [2.0, 1.0]])).tolist()
        [1.0, 2.0]
    """
    axis = 1 if output.dim() > 1 else 0
    guess = as_float(output).argmax(axis).reshape(-1)
    fits = target is not None and target.numel() == guess.numel()
    counts = (
        target.reshape(-1) != ignore_index if target is not None and fits else torch.ones_like(guess, dtype=torch.bool)
    )
    return _count(guess, counts, output.shape[axis])


def _count(labels: Tensor, counts: Tensor, num_classes: int) -> Tensor:
    """One place more than there are classes takes what doesn't count."""
    found = torch.zeros(num_classes + 1, dtype=torch.float32, device=labels.device)
    where = torch.where(counts, labels, num_classes)
    return found.scatter_add_(0, where, counts.float())[:num_classes]
