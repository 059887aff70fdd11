"""Scaling that is fitted on the training part and applied to all: standardization, and to a range.

`standardization` and `min_max` fit on arrays, datasets or streams in one pass. What they return scales arrays and tensors, scales back,
and is saved with the model (`scaler.Scaler`). `Scaled` is a dataset whose inputs are scaled. The statistics themselves, for streams that
come in parts, are `moments.Moments` and `moments.Extremes`.

Which numbers share their statistics is said by `axis`, in terms of a batch, as in `torch.nn.BatchNorm`: those of one place on axis 1,
which is the feature of `(batch, feature)` and the channel of `(batch, channel, height, width)`. Sequences `(batch, time, feature)` need
`axis=2`; each pixel on its own `axis=(1, 2, 3)`; `axis=None` is one number for all. Of a series of numbers, `(batch,)`, all share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from unstuck.data._axes import Axis
from unstuck.data.moments import Extremes, Moments
from unstuck.data.samples import batches_of, inputs_of, is_dataset
from unstuck.data.scaler import Scaler
from unstuck.errors import MisuseError


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
