"""Scaling that is fitted on the training part and applied to all: standardization, and to a range.

`standardization` and `min_max` fit on arrays, datasets or streams in one pass. What they return scales arrays and tensors, scales back,
and is saved with the model. `Scaled` is a dataset whose inputs are scaled. `Moments` and `Extremes` are the statistics themselves, for
streams that come in parts: they are updated by batches, merged across processes, and saved.

Which numbers share their statistics is said by `axis`, in terms of a batch, as in `torch.nn.BatchNorm`: those of one place on axis 1,
which is the feature of `(batch, feature)` and the channel of `(batch, channel, height, width)`. Sequences `(batch, time, feature)` need
`axis=2`; each pixel on its own `axis=(1, 2, 3)`; `axis=None` is one number for all. Of a series of numbers, `(batch,)`, all share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from unstuck.data.samples import batches_of, inputs_of, is_dataset
from unstuck.errors import MisuseError

Axis = int | tuple[int, ...] | None
Values = TypeVar("Values", np.ndarray, Tensor)

CHUNK = 2**17  # numbers that are looked at at once: 1 MB, which stays in the cache
ROUNDING = 4 * float(np.finfo(np.float64).eps)  # what varies less, in units of its size, is constant but for rounding


class Moments:
    """Count, mean and variance of all that was seen, in float64, one batch after the other.

    Args:
        axis: Which numbers have their own, see the module.

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
        for rows in _chunks(batch, self.axis):
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
        axis: Which numbers have their own, see the module.

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
        for rows in _chunks(batch, self.axis):
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


class Scaler:
    """`(values - center) / scale + start`, for each feature.

    The one that is made without arguments changes nothing, until it is given a state.

    Args:
        center: Of each feature, what is subtracted.
        scale: Of each feature, what is divided by.
        start: What is added in the end.
        axis: Which numbers have their own center and scale, see the module.
    """

    def __init__(
        self, center: Tensor | float = 0.0, scale: Tensor | float = 1.0, start: float = 0.0, *, axis: Axis = None
    ):
        self.center = torch.as_tensor(center, dtype=torch.float64)
        self.scale = torch.as_tensor(scale, dtype=torch.float64)
        self.start = float(start)
        self.axis = axis
        self._last: tuple[Any, list[Tensor]] | None = None

    def __call__(self, values: Values) -> Values:
        """Values, scaled.

        Args:
            values: A batch: its first axis goes over samples. Can be differentiated through.

        Returns:
            What was given, of the same shape, type and precision; whole numbers become floating-point ones.

        Raises:
            MisuseError: There are other features than it was fitted on.
        """  # noqa: DOC502
        values, kind, center, rest, scale = self._prepared(values)
        scaled = values - center
        scaled -= rest
        scaled /= scale
        scaled += self.start
        return _as_kind(scaled, kind)

    def inverse(self, values: Values) -> Values:
        """Scaled values, as they were before.

        Args:
            values: A batch of them, such as predictions of targets that were scaled.

        Returns:
            What was given, of the same shape, type and precision.

        Raises:
            MisuseError: There are other features than it was fitted on.
        """  # noqa: DOC502
        values, kind, center, rest, scale = self._prepared(values)
        whole = values - self.start
        whole *= scale
        whole += rest
        whole += center
        return _as_kind(whole, kind)

    def _prepared(self, values: Any) -> tuple[Any, ...]:
        """Values in the precision to compute in, the type to return, and center, its rounding error and scale, made to fit.

        A center in float32 is off by up to 6e-8 of itself, which may be much of the scale; so what rounding took is subtracted too.
        """
        if isinstance(values, Tensor):
            kind = values.dtype if values.is_floating_point() else torch.get_default_dtype()
            double = values.dtype == torch.float64 or not values.is_floating_point()
            precision = torch.float64 if double and values.device.type != "mps" else torch.float32
            return values.to(precision), kind, *self._parts(tuple(values.shape), precision, values.device)
        values = np.asarray(values)
        kind = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
        single = kind.itemsize <= 4
        parts = self._parts(values.shape, torch.float32 if single else torch.float64, torch.device("cpu"))
        values = values.astype(np.float32 if single else np.float64, copy=False)
        return values, kind, *(each.numpy() for each in parts)

    def _parts(self, shape: tuple[int, ...], precision: torch.dtype, device: torch.device) -> list[Tensor]:
        """Those of the last batch, if it was like this one: they took longer than a sample does, and a copy to the device."""
        key = (len(shape), shape[1:], precision, device)
        if self._last is None or self._last[0] != key:
            shape = _shape(self.center, shape, self.axis)
            center = self.center.reshape(shape)
            rounded = center.to(precision)
            parts = [each.to(device, precision) for each in (rounded, center - rounded, self.scale.reshape(shape))]
            self._last = key, parts
        return self._last[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}  # which may lie on a device that another process doesn't have

    def state_dict(self) -> dict[str, Any]:
        """What to save with the model; `torch.load` needs no trust in it (`weights_only=True`)."""
        return {
            "center": self.center.clone(),
            "scale": self.scale.clone(),
            "start": self.start,
            "axis": self.axis,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Scales as another did.

        Args:
            state: Of its `state_dict`.
        """
        self.center, self.scale = state["center"].clone(), state["scale"].clone()
        self.start, self.axis = state["start"], state["axis"]
        self._last = None

    def __repr__(self) -> str:
        return (
            f"Scaler(center={self.center.tolist()}, scale={self.scale.tolist()}, start={self.start}, axis={self.axis})"
        )


def standardization(training: Any, *, axis: Axis = 1, inputs: int | str = 0) -> Scaler:
    """Scales so that the training part has mean 0 and variance 1; fitted in one pass.

    Args:
        training: The training part only: an array or a tensor; a dataset; or an iterable of batches.
        axis: Which numbers have their own mean and variance, see the module.
        inputs: Where inputs are in a sample or batch that has others beside them.

    Returns:
        What scales all parts. Constant features become 0.

    Raises:
        MisuseError: There are no samples, some differ in their features, or numbers aren't finite.

    Example:
        >>> scaler = standardization(np.array([[1.0, 10.0], [3.0, 30.0]]))
        >>> scaler(np.array([[2.0, 50.0]])).tolist()
        [[0.0, 3.0]]
    """  # noqa: DOC502
    return _fitted(Moments(axis), training, inputs).standardization()


def min_max(training: Any, low: float = 0.0, high: float = 1.0, *, axis: Axis = 1, inputs: int | str = 0) -> Scaler:
    """Scales so that the training part goes from `low` to `high`; what is evaluated may lie outside.

    Args:
        training: The training part only: an array or a tensor; a dataset; or an iterable of batches.
        low: What the least number of a feature becomes.
        high: What the greatest becomes.
        axis: Which numbers have their own range, see the module.
        inputs: Where inputs are in a sample or batch that has others beside them.

    Returns:
        What scales all parts. Constant features become `low`.

    Raises:
        MisuseError: There are no samples, some differ in their features, numbers aren't finite, or the range is empty.

    Example:
        >>> scaler = min_max(torch.tensor([[1.0], [3.0]]), -1, 1)
        >>> scaler(torch.tensor([[1.0], [2.0], [4.0]])).flatten().tolist()
        [-1.0, 0.0, 2.0]
    """  # noqa: DOC502
    return _fitted(Extremes(axis), training, inputs).min_max(low, high)


@dataclass(frozen=True, eq=False)
class Scaled(Dataset[Any]):
    """A dataset with numbered samples, the inputs of which are scaled when they are asked for.

    Where all samples are tensors in memory, scaling them once is faster: `TensorDataset(scaler(x), y)`.

    Attributes:
        dataset: What is scaled.
        scaler: By which.
        inputs: Where inputs are in a sample that has others beside them.
    """

    dataset: Any
    scaler: Scaler
    inputs: int | str = 0

    def __post_init__(self):
        """Checks that samples have numbers.

        Raises:
            MisuseError: They haven't.
        """
        if not is_dataset(self.dataset):
            raise MisuseError(f"{type(self.dataset).__name__} has no numbered samples; scale its batches by the scaler")

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """A sample, of the type that it has in the dataset."""
        sample = self.dataset[index]
        found = inputs_of(sample, self.inputs)
        values: Any = found if isinstance(found, Tensor) else np.asarray(found)
        return _replaced(sample, self.inputs, found, self.scaler(values[None])[0])


Statistics = TypeVar("Statistics", Moments, Extremes)


def _fitted(statistics: Statistics, training: Any, inputs: int | str) -> Statistics:
    """Statistics of the training part. torch's random numbers, which a shuffled loader draws from, go on where they were."""
    with torch.random.fork_rng(devices=[]):
        for batch in batches_of(training, inputs):
            statistics.update(batch)
    return statistics


def _replaced(sample: Any, inputs: int | str, found: Any, scaled: Any) -> Any:
    """The sample with its inputs exchanged."""
    if found is sample:
        return scaled
    if isinstance(sample, Mapping):
        return {**sample, inputs: scaled}
    parts = list(sample)
    parts[inputs] = scaled  # pyright: ignore[reportArgumentType, reportCallIssue]
    return type(sample)(*parts) if hasattr(sample, "_fields") else type(sample)(parts)


def _as_kind(values: Any, kind: Any) -> Any:
    return values.to(kind) if isinstance(values, Tensor) else values.astype(kind, copy=False)


def _axes(num_axes: int, axis: Axis) -> tuple[int, ...]:
    """Axes of a batch that have statistics of their own.

    Raises:
        MisuseError: The batch has no such axis, or it is the one of samples.
    """
    if axis is None or num_axes == 1:
        return ()
    axes = tuple(sorted(each % num_axes if -num_axes <= each < num_axes else num_axes for each in np.atleast_1d(axis)))
    if 0 in axes or num_axes in axes or len(set(axes)) < len(axes):
        raise MisuseError(
            f"axis {axis} of a batch of {num_axes} axes; take different ones from 1 (0 goes over samples)"
        )
    return axes


def _shape(center: Tensor, shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """Shape in which statistics meet a batch.

    Raises:
        MisuseError: They don't fit.
    """
    if not shape:
        raise MisuseError("a single number; a batch is needed, the first axis of which goes over samples")
    axes = _axes(len(shape), axis)
    features = tuple(shape[each] for each in axes)
    if features != tuple(center.shape):
        raise MisuseError(f"features {features} in a batch {shape}, and it was fitted on {tuple(center.shape)}")
    return tuple(size if i in axes else 1 for i, size in enumerate(shape))


def _chunks(batch: Any, axis: Axis) -> Iterator[Tensor]:
    """The numbers of a batch in float64, `(count, features...)`, as a copy, some samples at a time.

    Raises:
        MisuseError: There is no axis of samples.
    """
    if not isinstance(batch, Tensor):
        batch = np.asarray(batch)
    if not batch.ndim:
        raise MisuseError("a single number; a batch is needed, the first axis of which goes over samples")
    axes = _axes(batch.ndim, axis)
    pooled = [i for i in range(batch.ndim) if i not in axes]
    features = tuple(batch.shape[i] for i in axes)
    step = max(1, CHUNK // max(1, int(np.prod(batch.shape[1:]))))
    for start in range(0, len(batch), step):
        rows = _precise(batch[start : start + step]).permute(*pooled, *axes).reshape(-1, *features)
        if rows.numel():
            yield rows


def _precise(values: Any) -> Tensor:
    """A copy in float64.

    Raises:
        MisuseError: These aren't numbers.
    """
    if isinstance(values, Tensor):
        return values.detach().to("cpu" if values.device.type == "mps" else values.device, torch.float64, copy=True)
    if values.dtype.kind not in "biuf":
        raise MisuseError(f"values of type {values.dtype} can't be scaled; numbers are needed")
    return torch.from_numpy(np.array(values, dtype=np.float64))


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
