"""Statistics of streams that come in parts: updated by batches, merged across processes, saved. They make a `Scaler`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstuck.data._axes import Axis, chunks
from unstuck.data.scaler import Scaler
from unstuck.errors import MisuseError

ROUNDING = 4 * float(np.finfo(np.float64).eps)  # what varies less, in units of its size, is constant but for rounding


class Moments:
    """Count, mean and variance of all that was seen, in float64, one batch after the other.

    Args:
        axis: Which numbers have their own, see `unstuck.data.scaling`.

    Attributes:
        axis: As given.
        count: How many numbers each mean is of.
        first: The first sample: the point from which distances are taken.
        shift: Mean distance from it, of each feature.
        squares: Sum of squared distances from the mean.

    Source:
        Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances", equations 2.1, within
        batches by two passes. All is taken relative to the first sample, so nothing cancels, and what is constant has a variance of
        exactly 0.
    """

    def __init__(self, axis: Axis = 1):
        self.axis = axis
        self.count = 0
        self.first = torch.zeros(0, dtype=torch.float64)
        self.shift = torch.zeros(0, dtype=torch.float64)
        self.squares = torch.zeros(0, dtype=torch.float64)

    @property
    def mean(self) -> Tensor:
        """Of each feature."""
        return self.first + self.shift

    @property
    def variance(self) -> Tensor:
        """Of each feature: the mean squared distance (divided by the count, not by one less)."""
        return self.squares / self.count

    def update(self, batch: np.ndarray | Tensor) -> None:
        """Takes in more samples.

        Args:
            batch: Its first axis goes over samples.

        Raises:
            MisuseError: Features are as many as before no more, or numbers aren't finite or too large for their square to be; of a
                large batch, what lies before may have been taken in.
        """  # noqa: DOC502
        for rows in chunks(batch, self.axis):
            self._take(rows)

    def _take(self, rows: Tensor) -> None:
        """Takes in numbers, `(count, ...)`, the first axis of which is pooled."""
        if not self.count:
            self._begin(rows[0].cpu().clone())  # rows are changed in place below
        _check_same(self.first, rows[0])
        distances = rows.sub_(self.first.to(rows.device))
        shift = distances.mean(dim=0)
        squares = distances.sub_(shift).square_().sum(dim=0)
        self._join(len(rows), shift.cpu(), squares.cpu())

    def _join(self, count: int, shift: Tensor, squares: Tensor) -> None:
        """Takes in what others amount to, their mean as distance from our first sample.

        Raises:
            MisuseError: What comes out isn't finite.
        """
        total, apart = self.count + count, shift - self.shift
        shift = self.shift + apart * (count / total)
        squares = self.squares + squares + apart.square() * (self.count * (count / total))
        if not bool((torch.isfinite(shift) & torch.isfinite(squares)).all()):
            raise MisuseError(
                f"{_not_finite(shift, squares)} or too large to be squared; fill them in or drop them first"
            )
        self.count, self.shift, self.squares = total, shift, squares

    def _begin(self, first: Tensor) -> None:
        self.first, self.shift, self.squares = first, torch.zeros_like(first), torch.zeros_like(first)

    def merge(self, other: Moments) -> None:
        """Takes in what another has seen.

        Args:
            other: Stays as it is.

        Raises:
            MisuseError: It is of other features.
        """  # noqa: DOC502
        _check_axis(self.axis, other.axis)
        if not other.count:
            return
        if not self.count:
            self._begin(other.first.clone())
        _check_same(self.first, other.first)
        self._join(other.count, (other.first - self.first) + other.shift, other.squares)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        tensors = {"first": self.first.clone(), "shift": self.shift.clone(), "squares": self.squares.clone()}
        return {"axis": self.axis, "count": self.count, **tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what another had seen.

        Args:
            state: Of its `state_dict`.
        """
        self.axis, self.count = state["axis"], state["count"]
        self.first, self.shift, self.squares = (state[name].clone() for name in ("first", "shift", "squares"))

    def standardization(self) -> Scaler:
        """Scales what was seen to mean 0 and variance 1; what is constant, to 0.

        Raises:
            MisuseError: Nothing was seen.
        """  # noqa: DOC502
        _check_seen(self.count)
        deviation = self.variance.sqrt()
        constant = deviation <= ROUNDING * self.mean.abs()
        return Scaler(self.mean, torch.where(constant, 1.0, deviation), axis=self.axis)


class Extremes:
    """The least and the greatest of all that was seen, in float64, one batch after the other.

    Args:
        axis: Which numbers have their own, see `unstuck.data.scaling`.

    Attributes:
        axis: As given.
        count: How many numbers each is of.
        least: Of each feature.
        greatest: Of each feature.
    """

    def __init__(self, axis: Axis = 1):
        self.axis = axis
        self.count = 0
        self.least = torch.zeros(0, dtype=torch.float64)
        self.greatest = torch.zeros(0, dtype=torch.float64)

    def update(self, batch: np.ndarray | Tensor) -> None:
        """Takes in more samples.

        Args:
            batch: Its first axis goes over samples.

        Raises:
            MisuseError: Features are as many as before no more, or numbers aren't finite; of a large batch, what lies before may have
                been taken in.
        """  # noqa: DOC502
        for rows in chunks(batch, self.axis):
            self._join(len(rows), rows.amin(dim=0).cpu(), rows.amax(dim=0).cpu())

    def merge(self, other: Extremes) -> None:
        """Takes in what another has seen.

        Args:
            other: Stays as it is.

        Raises:
            MisuseError: It is of other features.
        """  # noqa: DOC502
        _check_axis(self.axis, other.axis)
        if other.count:
            self._join(other.count, other.least, other.greatest)

    def _join(self, count: int, least: Tensor, greatest: Tensor) -> None:
        if not bool(torch.isfinite(greatest - least).all()):
            raise MisuseError(f"{_not_finite(least, greatest)} or too far apart; fill them in or drop them first")
        if self.count:
            _check_same(self.least, least)
            least, greatest = torch.minimum(self.least, least), torch.maximum(self.greatest, greatest)
        self.count, self.least, self.greatest = self.count + count, least.clone(), greatest.clone()

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        return {"axis": self.axis, "count": self.count, "least": self.least.clone(), "greatest": self.greatest.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what another had seen.

        Args:
            state: Of its `state_dict`.
        """
        self.axis, self.count = state["axis"], state["count"]
        self.least, self.greatest = state["least"].clone(), state["greatest"].clone()

    def min_max(self, low: float = 0.0, high: float = 1.0) -> Scaler:
        """Scales what was seen to a range; what is constant, to its lower end.

        Args:
            low: What the least becomes.
            high: What the greatest becomes.

        Raises:
            MisuseError: Nothing was seen, or the range is empty.
        """
        _check_seen(self.count)
        if not low < high:
            raise MisuseError(f"a range from {low} to {high}; the first must be less")
        span = self.greatest - self.least
        return Scaler(self.least, torch.where(span == 0, 1.0, span / (high - low)), low, axis=self.axis)


def _not_finite(*statistics: Tensor) -> str:
    """Which features aren't."""
    bad = ~torch.stack([torch.isfinite(each) for each in statistics]).all(dim=0)
    which = [tuple(place) for place in bad.nonzero().tolist()]
    if which in ([], [()]):
        return "values are not finite"
    names = ", ".join(str(place[0] if len(place) == 1 else place) for place in which[:5])
    return f"values of {len(which)} of {bad.numel()} features ({names}{', …' if len(which) > 5 else ''}) are not finite"


def _check_same(ours: Tensor, others: Tensor) -> None:
    if ours.shape != others.shape:
        raise MisuseError(
            f"features {tuple(others.shape)} after {tuple(ours.shape)}; all samples need the same, see axis"
        )


def _check_axis(ours: Axis, others: Axis) -> None:
    if ours != others:
        raise MisuseError(f"statistics of axis {others} don't go with those of axis {ours}")


def _check_seen(count: int) -> None:
    if not count:
        raise MisuseError("there are no samples to fit scaling on")
