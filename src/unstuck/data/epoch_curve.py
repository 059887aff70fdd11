"""What scores by epoch tell: whether training was still getting better when it ended, and where evaluation turned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from unstuck.data.samples import as_array
from unstuck.errors import MisuseError

FEW = 8  # scores below which progress need not stand out of noise, as there are too few to tell noise by
LEAST = 4


@dataclass(frozen=True)
class Course:
    """How a training went, by its scores.

    Attributes:
        improving: Training was still getting better when it ended; None where its scores are too few, or not known.
        last_quarter: Share of all progress that the last quarter of the epochs brought; NaN where not known.
        turned_at: Epoch, from 0, at which evaluation was at its best, where it got worse from there on; None where it didn't.
        got_worse: By how much since, at least 0.
        num_epochs: Scores there are.
    """

    improving: bool | None = None
    last_quarter: float = math.nan
    turned_at: int | None = None
    got_worse: float = 0.0
    num_epochs: int = 0


def course(
    train: ArrayLike | None,
    evaluation: ArrayLike | None,
    *,
    higher_is_better: bool = True,
    progress_left: float = 0.12,
    sure: float = 3.0,
    rise: float = 0.2,
    drop: float = 0.03,
    past: float = 0.25,
) -> Course:
    """Reads scores by epoch as the rules `undertrained` and `overfitting` read a record.

    Args:
        train: Scores in training, one for each epoch (or update, or whatever they lie evenly apart by).
        evaluation: Scores of the evaluation.
        higher_is_better: Whether scores are; both of the same kind.
        progress_left: Share of all progress that the last quarter must have brought for it to be still improving: an exponential decay
            that went on for two of its time constants gives a tenth.
        sure: Standard errors that this must stand out by, and that evaluation must have got worse by.
        rise: By how much evaluation must have got worse where lower is better, relative to its best.
        drop: The same where higher is better, as a difference.
        past: Share of the evaluations that must lie behind the best one.

    Returns:
        What they tell.

    Raises:
        MisuseError: Scores aren't one for each epoch.

    Example:
        >>> course([2.0, 1.0, 0.5, 0.4, 0.35, 0.32], [2.0, 1.2, 1.0, 1.3, 1.6, 1.9], higher_is_better=False).turned_at
        2
    """  # noqa: DOC502
    sign = -1.0 if higher_is_better else 1.0
    falling, judged = _series(train, "train"), _series(evaluation, "evaluation")
    improving, part = _improving(sign * falling, progress_left, sure) if len(falling) >= LEAST else (None, math.nan)
    turned_at, worse = _turned(sign * judged, sure, drop if higher_is_better else rise, past, not higher_is_better)
    return Course(improving, part, turned_at, worse, max(len(falling), len(judged)))


def _series(values: ArrayLike | None, name: str) -> np.ndarray:
    if values is None:
        return np.zeros(0)
    array = as_array(values).astype(np.float64)
    if array.ndim != 1:
        raise MisuseError(f"{name} by epoch of shape {array.shape}; one score for each epoch is needed")
    return array[np.isfinite(array)]


def _improving(errors: np.ndarray, progress_left: float, sure: float) -> tuple[bool, float]:
    """Whether the last quarter brought much of all progress, beyond noise, and which share."""
    quarter = max(1, len(errors) // 4)
    third, last = errors[-2 * quarter : -quarter], errors[-quarter:]
    drop = float(third.mean() - last.mean())
    whole = float(errors[: max(1, min(3, len(errors) // 8))].mean() - last.mean())
    if not (drop > 0 and whole > 0):
        return False, 0.0
    error = math.sqrt((_noise(third) ** 2 + _noise(last) ** 2) / quarter)
    stands_out = len(errors) < FEW or drop > sure * error
    return stands_out and drop >= progress_left * whole, min(1.0, drop / whole)


def _noise(values: np.ndarray) -> float:
    """Deviation from one score to the next, free of trend."""
    return float(np.std(np.diff(values)) / math.sqrt(2)) if len(values) > 2 else float(np.std(values))


def _turned(errors: np.ndarray, sure: float, least: float, past: float, relative: bool) -> tuple[int | None, float]:
    """Where evaluation was best, if it got worse from there, and by how much."""
    if len(errors) <= LEAST:
        return None, 0.0
    smooth = _smooth(errors)
    near = np.flatnonzero(np.convolve(smooth == smooth.min(), np.ones(3), "same"))
    best = int(near[np.argmin(errors[near])])
    worse = float(smooth[-1] - smooth.min())
    limit = least * abs(float(smooth.min())) if relative else least
    noise = _noise(errors[best:])
    turned = len(errors) - 1 - best >= past * len(errors) and worse > limit and worse > sure * noise
    return (best, worse) if turned else (None, 0.0)


def _smooth(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Median of the three nearest, so that one odd evaluation counts for nothing."""
    threes = np.median(np.lib.stride_tricks.sliding_window_view(np.asarray(values), 3), axis=1)
    return np.concatenate([threes[:1], threes, threes[-1:]])
