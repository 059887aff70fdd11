"""Bounded samples of large tensors, as views: what statistics look at instead of the whole.

A sample of a contiguous tensor is made of short **runs** of neighbours (a run costs one access to memory, not eight) at a
distance that spreads them over all channels and positions alike, never following one of them (`_step`). Tensors whose memory
isn't in one piece are thinned along each axis instead.
"""

import functools
import math

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

LIMIT = 16384
RUN = 8  # neighbours in a run
MIN_SAMPLES = 32  # of a batch that are kept before units are thinned, and numbers of each unit
MOST = 1 << 20  # numbers in any sample
_UNEVEN = 241.09  # in its parts distances are tried: no simple fraction of a size of any axis


def thin(x: Shaped[Tensor, "..."], limit: int = LIMIT) -> Shaped[Tensor, "..."]:
    """A view of at most `limit` numbers spread evenly over a tensor; the tensor itself when it is small enough.

    Args:
        x: Any strided tensor.
        limit: Most numbers in the sample, at least 8.

    Returns:
        A view. Its shape has no meaning; which places it holds depends on shape and strides alone.

    Example:
        >>> import torch
        >>> thin(torch.zeros(512, 1024), limit=100).shape
        torch.Size([12, 8])
    """
    count = x.numel()
    if count <= limit:
        return x
    if x.is_contiguous() or in_one_piece(x):
        step = _step(_in_memory(x, 0), limit // RUN)
        return x.as_strided(((count - RUN) // step + 1, RUN), (step, 1))
    return _lattice(x, limit)


def thin_batch(x: Shaped[Tensor, "batch ..."], limit: int = LIMIT) -> Shaped[Tensor, "kept ..."]:
    """A view of whole samples spread evenly over the batch: at most `limit` numbers, but at least one sample.

    Args:
        x: Any strided tensor with the batch first.
        limit: Most numbers in the sample.

    Returns:
        The tensor itself when it is small enough, else every n-th sample of it.

    Example:
        >>> import torch
        >>> thin_batch(torch.zeros(128, 3, 8), limit=24 * 32).shape
        torch.Size([32, 3, 8])
    """
    count = x.numel()
    if count <= limit:
        return x
    samples = x.shape[0]
    kept = max(1, limit * samples // count)
    return x[:: -(-samples // kept)]


def grid(x: Shaped[Tensor, "batch ..."], limit: int = LIMIT) -> Shaped[Tensor, "kept ..."]:
    """A view of the same units of several samples: the batch is thinned to not below 32 samples, then the units are.

    Args:
        x: Any strided tensor with the batch first.
        limit: Most numbers in the view, at least 256.

    Returns:
        The view, samples first; the shape of the rest has no meaning.

    Example:
        >>> import torch
        >>> grid(torch.zeros(64, 256, 28, 28), limit=16384).flatten(1).shape
        torch.Size([32, 448])
    """
    count = x.numel()
    if count <= limit:
        return x
    samples = x.shape[0]
    units = count // samples
    rows = min(samples, max(MIN_SAMPLES, limit // units))
    every = -(-samples // rows)
    rows = -(-samples // every)
    if units * rows <= limit:
        return x[::every]
    if x.is_contiguous() or in_one_piece(x, 1):
        step = _step(_in_memory(x, 1), limit // rows // RUN)
        return x.as_strided((rows, (units - RUN) // step + 1, RUN), (x.stride(0) * every, step, 1))
    return _lattice(x[::every], limit // rows, whole=0)


def thin_units(x: Shaped[Tensor, "..."], unit_axis: int, limit: int = LIMIT) -> Shaped[Tensor, "before unit after"]:
    """A view with every unit, but not every sample and position: at least 32 numbers of each unit, where there are as many.

    Of the positions behind the unit axis (those of an image) each sample shows another stretch, so that together they show all.

    Args:
        x: Any strided tensor with at least one axis.
        unit_axis: The axis of units, or channels, or features.
        limit: Most numbers in the view, as long as that leaves 32 of each unit; never more than a million.

    Returns:
        The view: what comes before the unit axis, the units, what comes behind it. A copy where memory isn't in one piece.

    Example:
        >>> import torch
        >>> thin_units(torch.zeros(64, 256, 28, 28), 1, limit=16384).shape
        torch.Size([4, 256, 16])
    """
    axis = unit_axis % x.dim()
    if axis == 1 and not x.is_contiguous() and x.movedim(1, -1).is_contiguous():  # channels last in memory
        x, axis = x.movedim(1, -1), x.dim() - 1
    width = x.shape[axis]
    most = max(1, min(max(limit // width, MIN_SAMPLES), MOST // width))
    if x.is_contiguous():
        before, after = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
        kept = min(after, max(2 * RUN, most // before))
        every = -(-before // min(before, max(1, most // kept)))
        rows = -(-before // every)
        shift = (after - kept) // max(1, rows - 1)
        return x.as_strided((rows, width, kept), (width * after * every + shift, after, 1))
    few = _lattice(x, most, whole=axis)
    return few.reshape(math.prod(few.shape[:axis]), width, -1)


@functools.lru_cache(maxsize=4096)
def _step(sizes: tuple[int, ...], runs: int) -> int:
    """The distance between runs that spreads at most `runs` of them well over every axis.

    Modulo the size m of an axis and all behind it, n runs at distance s leave a gap of at least (1 - n |q s / m|) / q of m for each
    whole q, |.| being the distance to the next whole number: few places, again and again, when q s is nearly a multiple of m.
    Of the distances up to a quarter above the least, the one is taken whose largest gap over all axes, against the least
    possible one, is smallest.

    Args:
        sizes: Of the axes in the order of memory, the outermost first.
        runs: Most runs.

    Returns:
        A distance without a factor in common with the number of all places, where there is one.
    """
    total = math.prod(sizes)
    least = -(-total // runs)
    steps = least + (np.arange(min(64, 1 + least // 4)) * max(1.0, least / _UNEVEN)).astype(int)
    prime = np.gcd(steps, total) == 1
    steps = steps[prime] if prime.any() else steps
    orders = np.arange(1, 33)[:, None]
    gaps = np.zeros(len(steps))
    for axis in range(1, len(sizes)):
        inner = math.prod(sizes[axis:])
        turns = orders * (steps / inner)
        gap = ((1 - runs * abs(turns - np.round(turns))) / orders).max(0)
        gaps = np.maximum(gaps, gap * min(runs, inner))
    return int(steps[gaps.argmin()])


def _in_memory(x: Tensor, axis: int) -> tuple[int, ...]:
    """Sizes of the axes from `axis` on, in the order they have in memory."""
    if x.is_contiguous():
        return x.shape[axis:]
    return tuple(n for _, n in sorted(zip(x.stride()[axis:], x.shape[axis:], strict=True), reverse=True))


def in_one_piece(x: Tensor, axis: int = 0) -> bool:
    """Whether the axes from `axis` on fill a stretch of memory without gaps, in whatever order."""
    sizes, strides = x.shape[axis:], x.stride()[axis:]
    span = sum((n - 1) * s for n, s in zip(sizes, strides, strict=True)) + 1
    return span == math.prod(sizes) and all(s > 0 or n == 1 for n, s in zip(sizes, strides, strict=True))


def _lattice(x: Tensor, limit: int, *, whole: int | None = None) -> Tensor:
    """Thins every axis to `limit` places in all; the axis `whole` stays whole and doesn't count.

    Of an expanded axis, where all is the same, the first place is kept.
    """
    sizes = [1 if stride == 0 else n for n, stride in zip(x.shape, x.stride(), strict=True)]
    index = [slice(0, n) for n in sizes]
    if whole is not None:
        index[whole] = slice(None)
    left = float(limit)
    axes = sorted((axis for axis in range(len(sizes)) if axis != whole), key=sizes.__getitem__)
    for done, axis in enumerate(axes):
        fair = int(left ** (1 / (len(axes) - done)) + 1e-9)
        every = -(-sizes[axis] // min(sizes[axis], max(1, fair)))
        index[axis] = slice(0, sizes[axis], every)
        left /= -(-sizes[axis] // every)
    return x[tuple(index)]
