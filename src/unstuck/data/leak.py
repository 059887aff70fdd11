"""What evaluation shares with training and should not: samples, rows, groups, the future, and scaling that was fitted on all.

A network scores well on what it has seen; so will one that is evaluated on it. Each check is a function that returns a `Leak` or None,
and `leaks` makes all that apply.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from unstuck.data._axes import Axis
from unstuck.data._known import count_missing
from unstuck.data.moments import Extremes, Moments
from unstuck.data.same_rows import num_samples, same_rows
from unstuck.data.samples import as_array, batches_of, in_memory
from unstuck.data.split import Split
from unstuck.errors import MisuseError

CHUNK = 2**20  # numbers that are looked at at once


@dataclass(frozen=True, eq=False)
class Leak:
    """Something that evaluation knows from training.

    Attributes:
        kind: Which check found it.
        says: It in one sentence.
        count: How many evaluation samples are concerned; of scaling, how many features.
        total: Of how many.
        evaluation: Numbers of the evaluation samples concerned; none of scaling.
        train: For each of them a training sample that it is tied to: itself, an equal one, one of its group, the last in time.
    """

    kind: Literal["shared-samples", "shared-rows", "shared-groups", "times", "scaling"]
    says: str
    count: int
    total: int
    evaluation: NDArray[np.int64]
    train: NDArray[np.int64]


def leaks(
    data: Any,
    split: Split,
    *,
    groups: ArrayLike | None = None,
    times: ArrayLike | None = None,
    decimals: int | None = None,
    axis: Axis = 1,
    inputs: int | str = 0,
) -> list[Leak]:
    """All that leaks from training into evaluation.

    Args:
        data: All samples, as they are given to the network but for random augmentation: an array, a tensor or a dataset.
        split: Of them.
        groups: Group of each sample, if none may be in both parts.
        times: Of each sample, if evaluation is to come after training.
        decimals: Numbers that are equal when rounded so count as equal; None takes them as they are.
        axis: Which numbers are scaled together, as in `unstuck.data.scaling`.
        inputs: Where inputs are in a sample that has others beside them.

    Returns:
        What was found, none if all is well.

    Raises:
        MisuseError: The data have no numbered samples, or something is not one per sample.

    Example:
        >>> found = leaks(np.array([[1.0], [2.0], [1.0]]), Split(np.array([0, 1]), np.array([2])))
        >>> print(found[0].says)
        1 of 1 evaluation samples is equal to a training sample, such as 2 to 0
    """  # noqa: DOC502
    _check_range(split, num_samples(data))
    found = [
        shared_samples(split),
        shared_rows(data, split, decimals=decimals, inputs=inputs),
        None if groups is None else shared_groups(groups, split),
        None if times is None else not_after(times, split),
        scaled_on_all(data, split, axis=axis, inputs=inputs) if _is_numeric(data, inputs) else None,
    ]
    return [leak for leak in found if leak is not None]


def joined(train: Any, evaluation: Any) -> tuple[Any, Split]:
    """Two parts that came apart, as all samples and a split of them, which is what the checks take.

    Args:
        train: An array, a tensor or a dataset.
        evaluation: The same.

    Returns:
        Both one after the other, and which is which.

    Raises:
        MisuseError: They don't go together.
    """
    if isinstance(train, Dataset) and isinstance(evaluation, Dataset):
        together = ConcatDataset([train, evaluation])
    else:
        parts = [as_array(train), as_array(evaluation)]
        if parts[0].shape[1:] != parts[1].shape[1:]:
            raise MisuseError(f"samples of shapes {parts[0].shape[1:]} and {parts[1].shape[1:]} don't go together")
        together = np.concatenate(parts)
    cut = len(train)  # pyright: ignore[reportArgumentType]
    return together, Split(np.arange(cut), np.arange(cut, len(together)))


def shared_samples(split: Split) -> Leak | None:
    """Samples that are in both parts by number.

    Args:
        split: To be checked.

    Returns:
        The leak, if there is one.
    """
    return _tied(
        "shared-samples", split, np.arange(_end(split)), "is a training sample too", "are training samples too"
    )


def shared_rows(data: Any, split: Split, *, decimals: int | None = None, inputs: int | str = 0) -> Leak | None:
    """Evaluation samples that have the same inputs as a training sample of another number, whatever their targets.

    Args:
        data: All samples: an array, a tensor or a dataset.
        split: Of them.
        decimals: As in `same_rows`.
        inputs: Where inputs are in a sample that has others beside them.

    Returns:
        The leak, if there is one.

    Raises:
        MisuseError: As `same_rows`.
    """  # noqa: DOC502
    rows = same_rows(data, decimals=decimals, inputs=inputs)
    _check_range(split, len(rows))
    others = Split(split.train, _evaluation_alone(split))
    rounded = "" if decimals is None else f" to {decimals} decimals"
    return _tied(
        "shared-rows",
        others,
        rows,
        f"is equal{rounded} to a training sample",
        f"are equal{rounded} to a training sample",
        "to",
    )


def shared_groups(groups: ArrayLike, split: Split) -> Leak | None:
    """Evaluation samples whose group is trained on.

    Args:
        groups: Group of each sample.
        split: Of the samples.

    Returns:
        The leak, if there is one.

    Raises:
        MisuseError: Groups are not one per sample, or some are missing.
    """  # noqa: DOC502
    names, numbers = np.unique(_column(groups, "groups", split), return_inverse=True)
    crossing = np.intersect1d(numbers[split.train], numbers[split.evaluation])
    some = f"{len(crossing)} group{'' if len(crossing) == 1 else 's'}"
    example = f" ({some}, such as {names[crossing[0]]!s})" if len(crossing) else ""
    says = f"of a group that is trained on{example}"
    return _tied("shared-groups", split, numbers, f"is {says}", f"are {says}")


def not_after(times: ArrayLike, split: Split) -> Leak | None:
    """Evaluation samples that are not later than all of training, so that training looks into their future.

    Args:
        times: Of each sample, numbers or `datetime64`.
        split: Of the samples.

    Returns:
        The leak, if there is one.

    Raises:
        MisuseError: Times are not one per sample, or some are missing.
    """  # noqa: DOC502
    column = _column(times, "times", split)
    if not len(split.train):
        return None
    last = split.train[column[split.train].argmax()]
    early = split.evaluation[column[split.evaluation] <= column[last]]
    if not len(early):
        return None
    says = f"{_some(early, split)} not later than the last training sample (time {column[last]!s})"
    return Leak("times", says, len(early), len(split.evaluation), early, np.full(len(early), last))


def scaled_on_all(
    data: Any, split: Split, *, axis: Axis = 1, inputs: int | str = 0, tolerance: float = 1e-4
) -> Leak | None:
    """Features whose mean and deviation are 0 and 1 over both parts together, but not over the training part.

    So they were standardized before they were split. Told apart by the mean and by the deviation (divided by the count, or by one
    less) over both parts, which are within `tolerance` of 0 and 1, and ten times as near as those of the training part. Data
    that have mean 0 and deviation 1 by nature come that near only by chance: the tolerance falls to 0.01 / sqrt(n) for n numbers, but
    not below 1e-6, where rounding in float32 begins. Scaling to a range can't be told from data that have a range by nature, such
    as pictures. Features in which numbers are missing or infinite are left out.

    Args:
        data: All samples, as they are given to the network.
        split: Of them.
        axis: Which numbers were scaled together, as in `unstuck.data.scaling`.
        inputs: Where inputs are in a sample that has others beside them.
        tolerance: How far from 0 and 1 the whole may be.

    Returns:
        The leak, if there is one.

    Raises:
        MisuseError: The data have no numbered samples.
    """  # noqa: DOC502
    train, whole, gaps = Moments(axis), Moments(axis), Extremes(axis)
    for moments, part in ((train, np.unique(split.train)), (whole, _evaluation_alone(split))):
        for batch in _some_batches(data, part, inputs):
            missing = _missing(batch)
            if missing is not None:
                gaps.update(missing)
                batch = _filled(batch, missing)
            moments.update(batch)
    if not train.count or not whole.count:
        return None
    whole.merge(train)
    near = max(1e-6, min(tolerance, 0.01 / whole.count**0.5))
    off, train_off = _distance(whole), _distance(train)
    found = (off <= near) & (train_off > 10 * off) & (train_off > near)
    if gaps.count:
        found &= np.atleast_1d(gaps.greatest.numpy()).ravel() == 0
    if not found.any():
        return None
    worst = int(np.where(found, train_off, -1).argmax())
    means, deviations = (np.atleast_1d(v.numpy()).ravel()[worst] for v in (train.mean, train.variance.sqrt()))
    one = found.sum() == 1
    says = (
        f"{found.sum()} of {found.size} features {'has' if one else 'have'} mean 0 and deviation 1 over both parts together, but not "
        f"over the training part ({means:.3g} and {deviations:.3g} in feature {worst}): scaling was fitted on all"
    )
    none = np.zeros(0, np.int64)
    return Leak("scaling", says, int(found.sum()), found.size, none, none)


def _tied(
    kind: Literal["shared-samples", "shared-rows", "shared-groups"],
    split: Split,
    numbers: NDArray[np.int64],
    singular: str,
    plural: str,
    joint: str = "",
) -> Leak | None:
    """The leak by which evaluation samples have a number that a training sample has too."""
    holder = np.full(int(numbers.max(initial=-1)) + 1, -1)
    holder[numbers[split.train]] = split.train
    partners = holder[numbers[split.evaluation]]
    tied = partners >= 0
    if not tied.any():
        return None
    evaluation, train, total = split.evaluation[tied], partners[tied], len(split.evaluation)
    such = f", such as {evaluation[0]} {joint} {train[0]}" if joint else ""
    says = f"{len(evaluation)} of {total} evaluation samples {singular if len(evaluation) == 1 else plural}{such}"
    return Leak(kind, says, len(evaluation), total, evaluation, train)


def _some(concerned: NDArray[np.int64], split: Split) -> str:
    return f"{len(concerned)} of {len(split.evaluation)} evaluation samples {'is' if len(concerned) == 1 else 'are'}"


def _distance(moments: Moments) -> NDArray[np.float64]:
    """How far the mean is from 0 and the deviation from 1, of each feature: the larger of both."""
    deviation = moments.variance.sqrt().numpy()
    corrected = deviation * (moments.count / max(1, moments.count - 1)) ** 0.5
    off = np.minimum(np.abs(deviation - 1), np.abs(corrected - 1))
    return np.atleast_1d(np.maximum(np.abs(moments.mean.numpy()), off)).ravel()


def _missing(batch: Any) -> Any:
    """Where numbers aren't finite; None where all are."""
    if not isinstance(batch, Tensor) and batch.dtype.kind != "f":
        return None
    missing = ~(batch.isfinite() if isinstance(batch, Tensor) else np.isfinite(batch))
    return missing if missing.any() else None


def _filled(batch: Any, missing: Any) -> Any:
    return batch.masked_fill(missing, 0) if isinstance(batch, Tensor) else np.where(missing, 0, batch)


def _some_batches(data: Any, samples: NDArray[np.int64], inputs: int | str) -> Iterator[Any]:
    """Inputs of some of the samples, in batches."""
    whole = in_memory(data, inputs)
    if whole is None:
        yield from batches_of(Subset(data, samples.tolist()), inputs)
    else:
        size = max(1, CHUNK // max(1, int(np.prod(whole.shape[1:]))))
        yield from (whole[samples[start : start + size]] for start in range(0, len(samples), size))


def _is_numeric(data: Any, inputs: int | str) -> bool:
    """Whether inputs are numbers, as far as one can tell without asking for them."""
    whole = in_memory(data, inputs)
    return not isinstance(whole, np.ndarray) or whole.dtype.kind in "biuf"


def _end(split: Split) -> int:
    """One more than the last sample's number."""
    return 1 + max((int(part.max()) for part in split if len(part)), default=-1)


def _evaluation_alone(split: Split) -> NDArray[np.int64]:
    """Evaluation samples that aren't trained on."""
    trained = np.zeros(_end(split), bool)
    trained[split.train] = True
    return split.evaluation[~trained[split.evaluation]]


def _check_range(split: Split, num_samples: int) -> None:
    if _end(split) > num_samples:
        raise MisuseError(f"the split has sample {_end(split) - 1}, and there are {num_samples} samples")


def _column(values: Any, name: str, split: Split) -> np.ndarray:
    """One value per sample.

    Raises:
        MisuseError: Values are not one per sample, or some are missing.
    """
    column = as_array(values)
    if column.ndim != 1 or len(column) < _end(split):
        raise MisuseError(
            f"{name} of shape {column.shape} for samples 0 to {_end(split) - 1}; one per sample is needed"
        )
    if num_missing := count_missing(column):
        raise MisuseError(f"{num_missing} of {len(column)} {name} are missing (NaN); drop those samples first")
    return column
