"""Which numbers of a batch share their statistics, and the numbers themselves in float64, some at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstuck.errors import MisuseError

Axis = int | tuple[int, ...] | None

CHUNK = 2**17  # numbers that are looked at at once: 1 MB, which stays in the cache


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


def shape_of(center: Tensor, shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """Shape in which statistics meet a batch.

    Raises:
        MisuseError: They don't fit.
    """
    if not shape:
        raise MisuseError("a single number; a batch is needed, the first axis of which goes over samples")
    axes = _axes(len(shape), axis)
    features = tuple(shape[each] for each in axes)
    if features != tuple(center.shape):
        one = tuple((1, *shape)[each] for each in _axes(len(shape) + 1, axis)) == tuple(center.shape)
        hint = "; is it a single sample? then scaler(x[None])[0]" if one else ""
        raise MisuseError(f"features {features} in a batch {shape}, and it was fitted on {tuple(center.shape)}{hint}")
    return tuple(size if i in axes else 1 for i, size in enumerate(shape))


def chunks(batch: Any, axis: Axis) -> Iterator[Tensor]:
    """The numbers of a batch in float64, `(count, features...)`, as a copy, some samples at a time.

    Raises:
        MisuseError: There is no axis of samples.
    """
    if not isinstance(batch, Tensor):
        batch = np.asarray(batch)
    if not batch.ndim:
        raise MisuseError(
            "a single number; a batch is needed, the first axis of which goes over samples: make rows an array, np.array(rows)"
        )
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
