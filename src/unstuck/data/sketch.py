"""A small picture of one sample's input, in a few hundred bytes of plain JSON: a thumbnail, a series, or numbers. No torch."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np

SIDE = 32  # pixels of a thumbnail
POINTS = 96  # of a series
NUMBERS = 12  # of anything else
LETTERS = 300  # of a text
LEAST_SIDE = 4  # pixels, below which two axes are no picture
MOST_SIDES = 4  # times as long as wide, beyond which they are none either: steps of time by features


def sketch(values: Any, *, side: int = SIDE) -> dict[str, Any]:
    """What one input looks like, small.

    Pictures are `(height, width)`, `(1 or 3, height, width)` or `(height, width, 1 or 3)`, shrunk by means of squares and stretched to
    8 bits over their own range; series are `(time,)`, and `(time, channel)` or the other way round, time being longer; text is text.
    All else is told by its first numbers.

    Args:
        values: Input of one sample, without an axis of the batch.
        side: Most pixels to a side.

    Returns:
        `kind` ("image", "series", "text", "numbers"), `shape` of what was given, and what there is to draw.
    """
    if isinstance(values, str):
        return {"kind": "text", "text": values[:LETTERS], "cut": len(values) > LETTERS}
    array = np.asarray(values)
    if array.dtype.kind not in "biufc" or not array.size:
        return {"kind": "numbers", "shape": list(array.shape), "numbers": []}
    array = np.abs(array) if array.dtype.kind == "c" else array.astype(np.float64)
    shape = list(array.shape)
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    image = _as_image(array)
    if image is not None:
        return {**_thumbnail(image, side), "shape": shape}
    series = _as_series(array)
    if series is not None:
        return {"kind": "series", "shape": shape, "lines": [_thinned(line) for line in series]}
    return {"kind": "numbers", "shape": shape, "numbers": [_number(v) for v in array.reshape(-1)[:NUMBERS]]}


def _as_image(array: np.ndarray) -> np.ndarray | None:
    """Shape `(height, width, 1 or 3)`; None where it is no picture."""
    if array.ndim == 3 and array.shape[0] == 3:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = array[..., None]
    fits = array.ndim == 3 and array.shape[2] in (1, 3) and min(array.shape[:2]) >= LEAST_SIDE
    return array if fits and max(array.shape[:2]) <= MOST_SIDES * min(array.shape[:2]) else None


def _as_series(array: np.ndarray) -> np.ndarray | None:
    """Shape `(lines, time)`; None where it is no series: time is the longer axis, and long."""
    if array.ndim == 2 and array.shape[0] > array.shape[1]:
        array = array.T
    array = array[None] if array.ndim == 1 else array
    return array[:3] if array.ndim == 2 and array.shape[1] > NUMBERS else None


def _thumbnail(image: np.ndarray, side: int) -> dict[str, Any]:
    small = np.stack([_shrunk(image[..., i], side) for i in range(image.shape[2])], axis=-1)
    known = small[np.isfinite(small)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    level = (np.nan_to_num(small, nan=low, posinf=high, neginf=low) - low) / (high - low if high > low else 1.0)
    bits = np.round(255 * level).astype(np.uint8)
    return {
        "kind": "image", "height": bits.shape[0], "width": bits.shape[1], "channels": bits.shape[2],
        "data": base64.b64encode(bits.tobytes()).decode(), "low": _number(low), "high": _number(high),
    }  # fmt: skip


def _shrunk(plane: np.ndarray, side: int) -> np.ndarray:
    """Means of squares, so that a picture fits into so many pixels to a side."""
    step = math.ceil(max(plane.shape) / side)
    if step == 1:
        return plane
    rows, columns = (range(0, size, step) for size in plane.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        sums = np.add.reduceat(np.add.reduceat(plane, list(rows), axis=0), list(columns), axis=1)
    counts = np.outer(*(np.minimum(step, size - np.arange(0, size, step)) for size in plane.shape))
    return sums / counts


def _thinned(line: np.ndarray) -> list[float | None]:
    """Every so many-th value of a line, so that few are left."""
    step = math.ceil(len(line) / POINTS)
    return [_number(v) for v in line[::step]]


def _number(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
