"""What is known of the samples that are split, checked where it comes in: labels, groups, times; and random numbers by seeds."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unstuck.data.samples import as_array
from unstuck.errors import MisuseError


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of the samples: at most labels and groups, or times."""

    num_samples: int
    labels: np.ndarray | None
    groups: np.ndarray | None
    times: np.ndarray | None
    gap: Any

    def of(self, samples: NDArray[np.int64]) -> Known:
        """The same of some of them."""
        labels, groups, times = (None if v is None else v[samples] for v in (self.labels, self.groups, self.times))
        return Known(len(samples), labels, groups, times, self.gap)


def known_of(num_samples: int, labels: Any, groups: Any, times: Any, gap: Any) -> Known:
    """What was given, checked.

    Raises:
        MisuseError: Something doesn't fit or go together.
    """
    if not isinstance(num_samples, Integral):
        given = f"is {num_samples!r}" if np.isscalar(num_samples) else f"is of type {type(num_samples).__name__}"
        raise MisuseError(f"num_samples {given}, but must be how many samples there are, such as len(x)")
    if num_samples < 2:
        raise MisuseError(f"{num_samples} samples can't be split; at least 2 are needed")
    if times is not None and (labels is not None or groups is not None):
        raise MisuseError("times together with labels or groups; a split by time is settled by times alone")
    if gap is not None and times is None:
        raise MisuseError("a gap without times; it is a span of time before the first sample that evaluates")
    found = {
        "labels": _column(num_samples, labels, "labels"),
        "groups": _column(num_samples, groups, "groups"),
        "times": _column(num_samples, times, "times"),
    }
    if found["labels"] is not None:
        _check_labels(found["labels"])
    if found["times"] is not None:
        _check_times(found["times"], gap)
    return Known(num_samples, **found, gap=gap)


def _column(num_samples: int, values: Any, name: str) -> np.ndarray | None:
    """One value per sample.

    Raises:
        MisuseError: Values are not one per sample, or some are missing.
    """
    if values is None:
        return None
    column = as_array(values)
    if column.dtype.kind == "u":
        column = column.astype(np.int64)  # which can go below 0, as a time less a gap may
    if column.shape != (num_samples,):
        raise MisuseError(f"{name} of shape {column.shape}; one per sample is needed, shape ({num_samples},)")
    if num_missing := count_missing(column):
        raise MisuseError(f"{num_missing} of {num_samples} {name} are missing (NaN); fill them in or drop them")
    return column


def count_missing(column: np.ndarray) -> int:
    """How many values are NaN, NaT or, among objects, None or NA."""
    if column.dtype.kind == "O":
        return sum(
            value is None or not isinstance(value == value, bool | np.bool_) or value != value for value in column
        )
    return int(np.sum(column != column)) if column.dtype.kind in "fcmM" else 0


def _check_labels(labels: np.ndarray) -> None:
    if labels.dtype.kind == "f" and np.any(labels != np.round(labels)):
        raise MisuseError(
            f"labels such as {labels[labels != np.round(labels)][0]} are no classes; cut numbers into bins first: np.digitize"
        )


def _check_times(times: np.ndarray, gap: Any) -> None:
    if times.dtype.kind not in "iufM":
        raise MisuseError(
            f"times of type {times.dtype}; numbers or datetime64 are needed: np.array(times, dtype='datetime64[s]')"
        )
    if times.dtype.kind == "f" and not np.all(np.isfinite(times)):
        raise MisuseError("times that are infinite; drop them or say when they were")
    try:
        backwards = gap is not None and bool(times[0] - gap > times[0])
    except TypeError:
        raise MisuseError(f"a gap of {gap!r} for times of type {times.dtype}; give it in their unit") from None
    if backwards:
        raise MisuseError(f"a gap of {gap}; it can't be negative")


def check_classes(labels: np.ndarray, least: int, what: str) -> None:
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < least:
        raise MisuseError(
            f"class {classes[counts.argmin()]!s} has {counts.min()} of {len(labels)} samples; {what} needs {least} of each class"
        )


def check_groups(groups: np.ndarray, least: int) -> None:
    num_groups = len(np.unique(groups))
    if num_groups < least:
        raise MisuseError(f"{num_groups} groups; at least {least} are needed")


def check_whole(name: str, number: Any) -> None:
    if not isinstance(number, Integral):
        raise MisuseError(f"{name} is {number!r}, but must be a whole number")


def generator_of(*seeds: int) -> np.random.Generator:
    for seed in seeds:
        check_whole("seed", seed)
    if min(seeds) < 0:
        raise MisuseError(f"a seed of {min(seeds)}; it can't be negative")
    return np.random.default_rng(seeds)
