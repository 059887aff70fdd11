"""Which samples are for training and which for evaluation: hold-out, k-fold, nested. The bootstrap is in `bootstrap`.

All take the number of samples and what is known of them, one value per sample:

- `labels`: each class has its share in both parts (stratified); needs scikit-learn;
- `groups`: what belongs together stays together, such as all pictures of a patient; k-fold needs scikit-learn;
- `times`: evaluation comes after training, as it will in use.

All indices ascend. Equal seeds give equal splits.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from unstuck.data._known import Known, check_classes, check_groups, check_whole, generator_of, known_of
from unstuck.data.samples import as_array, is_dataset
from unstuck.errors import MissingError, MisuseError


@dataclass(frozen=True, eq=False)
class Split:
    """Which samples are trained on, and which evaluate. Can be unpacked: `train, evaluation = split`.

    Lists of numbers will do, and so will masks of all samples.

    Attributes:
        train: Numbers of samples, from 0.
        evaluation: Numbers of others.

    Raises:
        MisuseError: A part is neither numbers from 0 nor a mask.
    """

    train: NDArray[np.int64]
    evaluation: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("train", "evaluation"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Both parts, so that splits are what scikit-learn takes as `cv=`."""
        yield self.train
        yield self.evaluation


@dataclass(frozen=True, eq=False)
class Nested:
    """A split to judge by, and splits of its training part to choose by. What is chosen never saw what judges it.

    Attributes:
        outer: The split that judges.
        inner: Splits of `outer.train`; they too hold numbers among all samples.
    """

    outer: Split
    inner: tuple[Split, ...]


def hold_out(
    num_samples: int,
    share: float = 0.2,
    *,
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    times: ArrayLike | None = None,
    gap: Any = None,
    seed: int = 0,
) -> Split:
    """One part of the samples is held out for evaluation.

    Args:
        num_samples: How many there are, at least 2.
        share: Of samples that evaluate, between 0 and 1. Where groups or equal times must stay together it is met as nearly as
            they allow: those of equal times all evaluate, groups are taken in random order while they bring the share nearer.
        labels: Class of each sample, of which each has its share in both parts; not together with groups.
        groups: Group of each sample, none of which is in both parts.
        times: Of each sample, numbers or `datetime64`: the last ones evaluate, and nothing is random.
        gap: Only with times, in their unit: samples of this span before the first that evaluates are left out.
        seed: Of all randomness.

    Returns:
        The split.

    Raises:
        MisuseError: Too few samples, classes or groups for it, or values that don't fit or go together.
        MissingError: There are labels, and scikit-learn isn't installed.

    Example:
        >>> split = hold_out(10, 0.3, times=[9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
        >>> split.evaluation.tolist()
        [0, 1, 2]
    """  # noqa: DOC502
    known = known_of(num_samples, labels, groups, times, gap)
    if not isinstance(share, Real) or not 0 < share < 1:
        raise MisuseError(f"a share of {share!r} for evaluation; it must be between 0 and 1")
    num_held = round(share * num_samples)
    if not 0 < num_held < num_samples:
        raise MisuseError(
            f"a share of {share} of {num_samples} samples leaves {min(num_held, num_samples - num_held)} in a part"
        )
    if known.times is not None:
        return _chained(known, [num_samples - num_held, num_samples])[0]
    if known.labels is not None and known.groups is not None:
        raise MisuseError("a hold-out by labels and groups at once; take one split of k_fold, which can do both")
    if known.labels is not None:
        return _stratified(known.labels, num_held, seed)
    if known.groups is not None:
        return _split(np.isin(known.groups, _groups_held(known.groups, num_held, seed)))
    return _split(np.isin(np.arange(num_samples), generator_of(seed).permutation(num_samples)[:num_held]))


def k_fold(
    num_samples: int,
    num_folds: int = 5,
    *,
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    times: ArrayLike | None = None,
    gap: Any = None,
    seed: int = 0,
) -> list[Split]:
    """Each sample evaluates once, and is trained on in all other splits; with times, forward chaining.

    Forward chaining cuts the samples into one block more than there are folds, in order of time: each block but the first
    evaluates once, after training on all that lies before it.

    Args:
        num_samples: How many there are. As many folds leave one out.
        num_folds: How many splits, at least 2.
        labels: Class of each sample, of which each has its share in every fold; may be given together with groups.
        groups: Group of each sample, each of which is in one fold; folds are made as equal in size as groups allow.
        times: Of each sample, numbers or `datetime64`; samples of equal times stay together, and nothing is random.
        gap: Only with times, in their unit: samples of this span before the first that evaluates are left out of training.
        seed: Of all randomness.

    Returns:
        The splits.

    Raises:
        MisuseError: More folds than samples, members of the smallest class, groups or times, or values that don't fit or go together.
        MissingError: There are labels or groups, and scikit-learn isn't installed.

    Example:
        >>> [split.evaluation.tolist() for split in k_fold(8, 3, times=range(8))]
        [[2, 3], [4, 5], [6, 7]]
    """  # noqa: DOC502
    return _folds(known_of(num_samples, labels, groups, times, gap), num_folds, seed)


def nested(
    num_samples: int,
    outer_folds: int = 5,
    inner_folds: int = 5,
    *,
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    times: ArrayLike | None = None,
    gap: Any = None,
    seed: int = 0,
) -> list[Nested]:
    """K-fold, and k-fold again within each training part, for settings that are chosen by scores.

    The best of many scores is too good by chance. So settings are chosen by inner splits, and the outer evaluation part, which
    had no say, judges what was chosen.

    Args:
        num_samples: How many there are.
        outer_folds: Splits that judge.
        inner_folds: Splits within the training part of each.
        labels: As in `k_fold`.
        groups: As in `k_fold`.
        times: As in `k_fold`.
        gap: As in `k_fold`.
        seed: Of all randomness; inner splits of one outer split are not those of another.

    Returns:
        An outer split with its inner ones, for each outer fold.

    Raises:
        MisuseError: As `k_fold`, of all samples or of those of an outer training part.
        MissingError: As `k_fold`.

    Source:
        Stone 1974, "Cross-validatory choice and assessment of statistical predictions"; Varma and Simon 2006, "Bias in error
        estimation when using cross-validation for model selection", for how much too good it is without.
    """  # noqa: DOC502
    known = known_of(num_samples, labels, groups, times, gap)
    found = []
    for i, outer in enumerate(_folds(known, outer_folds, seed)):
        inner = _folds(known.of(outer.train), inner_folds, _state(seed, i))
        found.append(
            Nested(outer, tuple(Split(outer.train[split.train], outer.train[split.evaluation]) for split in inner))
        )
    return found


def subsets(dataset: Any, split: Split) -> tuple[Subset[Any], Subset[Any]]:
    """Both parts of a dataset.

    Args:
        dataset: A dataset with numbered samples; or an array or a tensor, or several in a tuple, which become a `TensorDataset`.
        split: Of its samples.

    Returns:
        What is trained on, and what evaluates. They hold numbers of samples and no copies.

    Raises:
        MisuseError: The dataset has fewer samples than the split, or none that are numbered.

    Example:
        >>> train, evaluation = subsets((torch.zeros(10, 3), torch.arange(10)), hold_out(10, 0.2))
        >>> len(train), len(evaluation)
        (8, 2)
    """
    dataset = _as_dataset(dataset)
    num_samples, last = len(dataset), max((int(part.max()) for part in split if len(part)), default=-1)
    if last >= num_samples:
        raise MisuseError(
            f"the split has sample {last}, and the dataset {num_samples} samples; make it of len(dataset)"
        )
    return Subset(dataset, split.train.tolist()), Subset(dataset, split.evaluation.tolist())


def _as_dataset(data: Any) -> Any:
    if is_dataset(data):
        return data
    if isinstance(data, Dataset):
        raise MisuseError(f"{type(data).__name__} is a stream without numbered samples; split what it is made from")
    columns = data if isinstance(data, tuple) else (data,)
    tensors = [column if isinstance(column, Tensor) else _as_tensor(column) for column in columns]
    if len({len(column) for column in tensors}) != 1:
        raise MisuseError(f"arrays of {[len(column) for column in tensors]} samples don't go together")
    return TensorDataset(*tensors)


def _as_tensor(values: Any) -> Tensor:
    """An array as a tensor, without a copy where it may be written to.

    Raises:
        MisuseError: It isn't one of numbers.
    """
    found = np.require(values, requirements="W")
    if found.dtype.kind not in "biufc":
        raise MisuseError(
            f"{type(values).__name__} of type {found.dtype} holds no numbers; give a dataset of its samples"
        )
    return torch.from_numpy(found)


def _numbers(name: str, part: Any) -> NDArray[np.int64]:
    """A part of a split as numbers of samples.

    Raises:
        MisuseError: It is neither numbers nor a mask.
    """
    found = as_array(part)
    if found.dtype == np.bool_ and found.ndim == 1:
        found = np.flatnonzero(found)
    if found.ndim != 1 or (len(found) and (found.dtype.kind not in "iu" or found.min() < 0)):
        raise MisuseError(
            f"{name} is an array of {found.dtype} of shape {found.shape}, but must be numbers of samples from 0 on, or a mask of all"
        )
    return found.astype(np.int64, copy=False)


def _state(*seeds: int) -> int:
    """A seed that scikit-learn takes too."""
    return int(generator_of(*seeds).integers(2**32))


def _split(held: NDArray[np.bool_]) -> Split:
    return Split(np.flatnonzero(~held), np.flatnonzero(held))


def _scikit_learn() -> Any:
    """scikit-learn's splits.

    Raises:
        MissingError: It isn't installed.
    """
    try:
        return importlib.import_module("sklearn.model_selection")
    except ModuleNotFoundError as error:
        raise MissingError(
            f"splits by labels and folds of groups are made by scikit-learn, which can't be imported ({error}): "
            "pip install scikit-learn"
        ) from None


def _stratified(labels: np.ndarray, num_held: int, seed: int) -> Split:
    check_classes(labels, 2, "a split by labels")
    num_classes = len(np.unique(labels))
    smaller = min(num_held, len(labels) - num_held)
    if smaller < num_classes:
        raise MisuseError(f"{num_classes} classes, and only {smaller} samples in a part; change its share")
    maker = _scikit_learn().StratifiedShuffleSplit(n_splits=1, test_size=num_held, random_state=_state(seed))
    ((train, evaluation),) = maker.split(np.zeros(len(labels)), labels)
    return Split(np.sort(train), np.sort(evaluation))


def _groups_held(groups: np.ndarray, num_held: int, seed: int) -> np.ndarray:
    """Groups in random order, of which each is taken that brings their number of samples nearer.

    scikit-learn's GroupShuffleSplit takes a share of the groups, which may be any share of the samples.
    """
    check_groups(groups, 2)
    names, sizes = np.unique(groups, return_counts=True)
    taken, missing = [], num_held
    for group in generator_of(seed).permutation(len(names)):
        if sizes[group] < 2 * missing:
            taken.append(group)
            missing -= sizes[group]
    if not taken:
        taken = [sizes.argmin()]
    return names[taken[: len(names) - 1]]


def _folds(known: Known, num_folds: int, seed: int) -> list[Split]:
    """Splits, after all checks that depend on how many there are.

    Raises:
        MisuseError: There are too few samples, members of a class, groups or times.
    """
    _check_folds(known, num_folds)
    if known.times is not None:
        size = known.num_samples // (num_folds + 1)
        return _chained(known, [known.num_samples - size * i for i in range(num_folds, -1, -1)])
    if known.labels is None and known.groups is None:
        folds = np.array_split(generator_of(seed).permutation(known.num_samples), num_folds)
        return [_split(np.isin(np.arange(known.num_samples), fold)) for fold in folds]
    splits = _folds_of_scikit_learn(known, num_folds, seed)
    if not all(len(split.evaluation) for split in splits):
        raise MisuseError(
            f"{num_folds} folds by labels and groups leave one empty; groups are too unequal, take fewer folds"
        )
    return splits


def _check_folds(known: Known, num_folds: int) -> None:
    check_whole("num_folds", num_folds)
    if num_folds < 2:
        raise MisuseError(f"{num_folds} folds; at least 2 are needed")
    most = known.num_samples - (known.times is not None)
    if num_folds > most:
        raise MisuseError(f"{num_folds} folds of {known.num_samples} samples; at most {most} are possible")
    if known.labels is not None:
        check_classes(known.labels, num_folds, f"a split into {num_folds} folds")
    if known.groups is not None:
        check_groups(known.groups, num_folds)


def _folds_of_scikit_learn(known: Known, num_folds: int, seed: int) -> list[Split]:
    library, state = _scikit_learn(), _state(seed)
    groups = known.groups
    if groups is None:
        maker = library.StratifiedKFold(num_folds, shuffle=True, random_state=state)
    elif known.labels is not None:
        maker = library.StratifiedGroupKFold(num_folds, shuffle=True, random_state=state)
    else:
        # GroupKFold balances sizes only without its own shuffle; new names in random order have it choose anew among equals.
        names, numbers = np.unique(groups, return_inverse=True)
        groups = generator_of(seed).permutation(len(names))[numbers]
        maker = library.GroupKFold(num_folds)
    return [Split(*parts) for parts in maker.split(np.zeros(known.num_samples), known.labels, groups)]


def _chained(known: Known, cuts: list[int]) -> list[Split]:
    """Evaluation on the samples from each cut to the next, in order of time, after training on all before.

    A cut between samples of one time moves back to the first of them.

    Raises:
        MisuseError: There are too few times.
    """
    assert known.times is not None
    order = np.argsort(known.times, kind="stable")
    times = known.times[order]
    starts = [int(np.searchsorted(times, times[cut])) for cut in cuts[:-1]] + [cuts[-1]]
    if starts[0] == 0 or len(set(starts)) < len(starts):
        raise MisuseError(f"{len(np.unique(times))} different times are too few for {len(cuts)} parts that share none")
    splits = []
    for start, end in itertools.pairwise(starts):
        first = times[start]
        num_before = int(np.searchsorted(times, first if known.gap is None else first - known.gap))
        if not num_before:
            raise MisuseError(f"a gap of {known.gap} leaves no sample to train on before {first}")
        splits.append(Split(np.sort(order[:num_before]), np.sort(order[start:end])))
    return splits
