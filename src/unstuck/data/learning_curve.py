"""How the score grows with the number of training samples, made by an own training function.

scikit-learn's `learning_curve` makes such a curve for estimators of its own kind, and ends there. Here the training is any function,
the subsets of a seed are nested, and `power_law.fit` says what more data would bring, with its interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unstuck.data._known import generator_of, known_of
from unstuck.errors import MisuseError


@dataclass(frozen=True, eq=False)
class SizeCurve:
    """Scores by number of training samples.

    Attributes:
        sizes: Numbers of samples, ascending.
        evaluation: Scores, shape `(sizes, seeds)`, NaN where a training gave none.
        train: The same on what was trained on; None where that isn't known.
        higher_is_better: Whether scores are.
        best: The best possible score, errors are distances from it; 1 for scores, 0 for losses by default.
    """

    sizes: NDArray[np.int64]
    evaluation: NDArray[np.float64]
    train: NDArray[np.float64] | None = None
    higher_is_better: bool = True
    best: float | None = None

    def __post_init__(self) -> None:
        """Checks what was given, and makes arrays of it.

        Raises:
            MisuseError: Scores don't fit sizes, or are better than the best.
        """
        sizes, scores = np.asarray(self.sizes, np.int64), np.asarray(self.evaluation, np.float64)
        scores = scores[:, None] if scores.ndim == 1 else scores
        if sizes.ndim != 1 or scores.ndim != 2 or len(scores) != len(sizes) or np.any(np.diff(sizes) <= 0):
            raise MisuseError(
                f"{sizes.shape} sizes and scores of shape {scores.shape}; sizes must ascend, with scores (sizes, seeds)"
            )
        if not len(sizes) or sizes[0] < 1:
            raise MisuseError("sizes below 1, or none; each is a number of training samples")
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "evaluation", scores)
        object.__setattr__(self, "best", float(self.higher_is_better) if self.best is None else float(self.best))
        if self.train is not None:
            object.__setattr__(self, "train", np.asarray(self.train, np.float64).reshape(scores.shape))
        if np.any(self.errors < -1e-9):
            raise MisuseError(f"scores better than {self.best:g}, from which errors are measured; give best=")

    @property
    def errors(self) -> NDArray[np.float64]:
        """Distance of the evaluation from the best possible score."""
        assert self.best is not None
        return self.best - self.evaluation if self.higher_is_better else self.evaluation - self.best

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        return {
            "sizes": self.sizes.tolist(), "evaluation": self.evaluation.tolist(),
            "train": None if self.train is None else self.train.tolist(),
            "higher_is_better": self.higher_is_better, "best": self.best,
        }  # fmt: skip


def learning_curve(
    train: Callable[[NDArray[np.int64], int], Any],
    num_samples: int,
    *,
    sizes: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 3,
    labels: ArrayLike | None = None,
    higher_is_better: bool = True,
    best: float | None = None,
) -> SizeCurve:
    """Trains on more and more samples, and notes the score.

    The subsets of a seed are nested: a larger one holds all of a smaller one, so that what differs is their size.

    Args:
        train: Takes numbers of training samples and a seed, trains anew, and returns the evaluation's score, or the scores of
            training and evaluation. What evaluates must be the same for all, and none of these samples.
        num_samples: How many training samples there are.
        sizes: Of the subsets; by default six, each 1.6 times the one before, the last all.
        seeds: How many trainings of each size, or their seeds; each draws other subsets.
        labels: Class of each sample, of which each then has its share in every subset.
        higher_is_better: Whether scores are.
        best: The best possible score, where that isn't 1 (0 for losses).

    Returns:
        The curve.

    Raises:
        MisuseError: Sizes are no sizes of subsets, or scores are no numbers.
    """
    known = known_of(num_samples, labels, None, None, None)
    chosen = sorted({max(2, round(num_samples / 1.6**i)) for i in range(6)}) if sizes is None else sorted(set(sizes))
    if not chosen or chosen[0] < 1 or chosen[-1] > num_samples:
        raise MisuseError(f"sizes {chosen} of {num_samples} samples; give some from 1 to {num_samples}")
    numbers = range(seeds) if isinstance(seeds, int) else seeds
    if not len(numbers):
        raise MisuseError("no seeds; at least one training of each size is needed")
    found = np.full((2, len(chosen), len(numbers)), np.nan)
    for column, seed in enumerate(numbers):
        order = _order(known.num_samples, known.labels, seed)
        for row, size in enumerate(chosen):
            found[:, row, column] = _both(train(np.sort(order[:size]), seed))
    on_train = None if np.isnan(found[0]).all() else found[0]
    return SizeCurve(np.array(chosen), found[1], on_train, higher_is_better, best)


def _both(scores: Any) -> tuple[float, float]:
    """Scores of training, NaN where unknown, and of evaluation.

    Raises:
        MisuseError: They are something else.
    """
    try:
        values = np.atleast_1d(np.asarray(scores, np.float64))
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.shape not in ((1,), (2,)):
        raise MisuseError(f"training returned {scores!r}; the evaluation's score is needed, or (train, evaluation)")
    return (math.nan, float(values[0])) if len(values) == 1 else (float(values[0]), float(values[1]))


def _order(num_samples: int, labels: np.ndarray | None, seed: int) -> NDArray[np.int64]:
    """Samples in random order; with labels such that the first of them, however many, hold each class in its share."""
    generator = generator_of(seed)
    order = generator.permutation(num_samples)
    if labels is None:
        return order
    key = np.empty(num_samples)
    for name in np.unique(labels):
        members = order[labels[order] == name]
        key[members] = (np.arange(len(members)) + generator.uniform()) / len(members)
    return np.argsort(key, kind="stable")
