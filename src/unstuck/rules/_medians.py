"""Medians of many stretches of a series at once, as long records need them."""

from __future__ import annotations

import numpy as np


def medians_before(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The medians of `values[:end]`, one of each end.

    Args:
        values: Numbers, none of them NaN, shape `(samples,)`.
        ends: How many of the first are meant, from 1 on, shape `(stretches,)`.

    Returns:
        The same as `numpy.median` of each, shape `(stretches,)`, in `O((samples + stretches) log(samples))`.

    Example:
        >>> medians_before(np.array([3.0, 1.0, 2.0]), np.array([1, 2, 3]))
        array([3., 2., 2.])
    """
    values = values[: ends.max(initial=0)]
    order = np.argsort(values)
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    middle = _smallest(ranks, np.tile(ends, 2), np.concatenate(((ends - 1) // 2, ends // 2)))
    return values[order[middle]].reshape(2, -1).mean(axis=0)


def _smallest(ranks: np.ndarray, ends: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Of the ranks before each end the k-th smallest, from 0 on.

    Source:
        Claude and Navarro 2012, "The wavelet matrix", section 4: bit by bit from the highest on, those with a 0 stand before those
        with a 1, and it is counted how many of a stretch do.
    """
    starts, found = np.zeros_like(ends), np.zeros_like(ends)
    for bit in reversed(range(len(ranks).bit_length())):
        ones = (ranks >> bit & 1).astype(bool)
        zeros = np.concatenate(([0], np.cumsum(~ones)))
        first, last = zeros[starts], zeros[ends]
        above = k >= last - first
        k = np.where(above, k - (last - first), k)
        starts = np.where(above, zeros[-1] + starts - first, first)
        ends = np.where(above, zeros[-1] + ends - last, last)
        found |= above.astype(found.dtype) << bit
        ranks = np.concatenate((ranks[~ones], ranks[ones]))
    return found


def stretches(values: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    """Stretches of a series; NaN where they reach beyond its start or end.

    Args:
        values: Numbers, shape `(samples,)`.
        starts: Where the stretches start, from `-size` to the number of samples, shape `(stretches,)`.
        size: Their length.

    Returns:
        The stretches, shape `(stretches, size)`.
    """
    padded = np.pad(values.astype(np.float64), size, constant_values=np.nan)
    return np.lib.stride_tricks.sliding_window_view(padded, size)[starts + size]


def medians(rows: np.ndarray) -> np.ndarray:
    """The median of each row without its NaN; NaN where there is nothing else.

    Args:
        rows: Numbers, shape `(rows, samples)`.

    Returns:
        The medians, shape `(rows,)`.
    """
    count = np.count_nonzero(~np.isnan(rows), axis=1, keepdims=True)
    ordered = np.sort(rows, axis=1)  # NaN last
    low, high = (
        np.take_along_axis(ordered, k, axis=1)
        for k in (np.maximum(count - 1, 0) // 2, np.minimum(count // 2, rows.shape[1] - 1))
    )
    return ((low + high) / 2)[:, 0]
