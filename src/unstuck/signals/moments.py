"""Statistics of one activation or gradient, and of many gradients at once.

All are taken of the finite numbers; the share of the others stands beside them. What is larger than a limit is sampled
(`unstuck.signals.sample`), so a call costs the same for any size. Nothing waits for the device: results are small float32 tensors on it.
What can't be measured (sparse, quantized, empty, under `vmap`) gives NaN.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unstuck.signals.numbers import (
    as_array,
    as_float,
    divided,
    flatten,
    home,
    measurable,
    norms,
    on_host,
    quiet,
    row,
    shared,
    unknown,
)
from unstuck.signals.sample import grid, in_one_piece, thin

DESCRIBE = (
    "act_mean", "act_std", "act_max", "act_zero", "act_nonfinite", "act_saturated", "act_negative", "act_between",
)  # fmt: skip
"""What `describe` gives, in its order."""
GRADIENT = ("rms", "max", "zero", "nonfinite")
"""What `gradient` and `gradients` give, in their order."""

LIMIT = 8192  # numbers of one tensor that are looked at: shares are then right to half a percent
EXACT = 5_000_000  # numbers up to which the norms of all gradients are taken of all of them
TOTAL = 1_000_000  # numbers of all gradients that are looked at for the rest, ...
MOST, LEAST = 4096, 64  # ... and of each of them
_TINY, _HUGE = 1e-15, 1e15  # outside, squares of float32 numbers underflow or overflow


def describe(
    x: Shaped[Tensor, "..."], bounds: Sequence[float] | None = None, *, tolerance: float = 0.01
) -> Float[Tensor, " stat"]:
    """What an activation looks like: the numbers that `DESCRIBE` names.

    Mean, standard deviation and largest magnitude; shares of outputs that are zero, not finite, near a bound, and
    negative; and the deviation between samples over the total deviation, the square root of the share of variance that
    lies within units: 0 when the output ignores its input, 1 when all units have the same mean.

    Args:
        x: An activation, batch first; without any axis all is NaN.
        bounds: Lowest and highest value the activation can take; without them the share near a bound is NaN.
        tolerance: Share of the range that counts as near a bound.

    Returns:
        The numbers in the order of `DESCRIBE`. The last is NaN for a single sample.

    Example:
        >>> import torch
        >>> describe(torch.tensor([[0.0, 3.0], [0.0, -1.0]])).tolist()
        [0.5, 1.5, 3.0, 0.5, 0.0, nan, 0.25, 0.9428090453147888]
    """
    if not measurable(x) or x.dim() == 0:
        return unknown(len(DESCRIBE), x.device)
    few = grid(x.detach() if x.requires_grad else x, LIMIT)
    numbers = on_host(few)
    if numbers is not None:
        found = _describe(numbers.reshape(numbers.shape[0], -1), bounds, tolerance)
        if found is not None:
            return found
    return _describe_on_device(as_float(few).reshape(few.shape[0], -1), bounds, tolerance)


@quiet
def _describe(x: np.ndarray, bounds: Sequence[float] | None, tolerance: float) -> Tensor | None:
    """By numpy, in as few passes as there are; None where it takes more care."""
    samples, units = x.shape
    count = samples * units
    low, high = float(x.min()), float(x.max())
    top = max(high, -low)
    if not (_TINY < top < _HUGE or top == 0):  # NaN, too
        return None if np.isfinite(x).any() else row((*[math.nan] * 4, 1.0, *[math.nan] * 3))
    flat = x.reshape(-1)
    sums = _ONES[x.itemsize][:samples] @ x
    squares, mean = float(flat.dot(flat)), float(sums.dot(_ONES[x.itemsize][:units])) / count
    within = squares - float(sums.dot(sums)) / samples
    if within > 0.01 * squares:
        total = squares - count * mean * mean
    elif top > 0:  # the difference has lost too many digits
        mean, within, total = _spread(x)
    else:
        within = total = 0.0
    between = math.nan if samples < 2 else math.sqrt(min(1.0, within / total)) if within > 0 else 0.0
    saturated = math.nan
    if bounds is not None:
        margin = tolerance * (bounds[1] - bounds[0])
        near = np.count_nonzero(x >= bounds[1] - margin) if high >= bounds[1] - margin else 0
        near += np.count_nonzero(x <= bounds[0] + margin) if low <= bounds[0] + margin else 0
        saturated = near / count
    zero = np.count_nonzero(x == 0) / count if low <= 0 <= high else 0.0
    negative = np.count_nonzero(x < 0) / count if low < 0 else 0.0
    return row((mean, math.sqrt(total / count), top, zero, 0.0, saturated, negative, between))


def _spread(x: np.ndarray) -> tuple[float, float, float]:
    """Mean, and the sums of squares within units and in all, taken from the first sample and so exactly 0 where nothing varies."""
    samples, units = x.shape
    first = x[0].astype(np.float64)
    off = x - first
    sums = off.sum(0)
    within = float(np.vdot(off, off)) - float(sums.dot(sums)) / samples
    means = sums / samples + (first - first[0])
    mean = float(means.sum()) / units
    around = means - mean
    return mean + float(first[0]), max(0.0, within), max(0.0, within) + samples * float(around.dot(around))


_ONES = {size: np.ones(LIMIT, f"f{size}") for size in (4, 8)}


@torch.no_grad()
def _describe_on_device(x: Tensor, bounds: Sequence[float] | None, tolerance: float) -> Tensor:
    """By torch, without a look at the numbers; right also where some aren't finite."""
    size = x.abs()
    finite = size < math.inf
    clean = torch.where(finite, x, 0.0)
    counts = finite.sum(0, dtype=x.dtype)
    count = counts.sum()
    top = torch.where(finite, size, 0.0).amax()
    scale = torch.where(top > 0, top, 1.0)
    scaled = clean / scale
    first = scaled[0]
    weights = counts.clamp(min=1)
    off = torch.where(finite, scaled - first, 0.0)
    shift = off.sum(0) / weights
    within = torch.where(finite, off - shift, 0.0).square().sum()
    means = shift + first
    mean = (counts * means).sum() / count
    total = within + (counts * (means - mean).square()).sum()
    between = (within / torch.where(total > 0, total, 1.0)).sqrt()
    known = (count > 0) if x.shape[0] > 1 else torch.zeros_like(count, dtype=torch.bool)
    saturated = torch.full_like(top, math.nan)
    if bounds is not None:
        margin = tolerance * (bounds[1] - bounds[0])
        near = (clean >= bounds[1] - margin) | (clean <= bounds[0] + margin)
        saturated = (near & finite).sum() / count
    return torch.stack(
        [
            mean * scale, (total / count).sqrt() * scale, torch.where(count > 0, top, math.nan), (size == 0).sum() / count,
            1 - count / x.numel(), saturated, (clean < 0).sum() / count, torch.where(known, between, math.nan),
        ]
    ).float()  # fmt: skip


def moments(x: Shaped[Tensor, "..."]) -> Float[Tensor, " stat"]:
    """Mean, standard deviation, largest magnitude, share of zeros, share of what isn't finite.

    Args:
        x: Any tensor.

    Returns:
        The five numbers.

    Example:
        >>> import torch
        >>> moments(torch.tensor([1.0, -3.0, 0.0, 2.0])).tolist()
        [0.0, 1.8708287477493286, 3.0, 0.25, 0.0]
    """
    return describe(x)[:5]


def with_bounds(x: Shaped[Tensor, "..."], low: float, high: float, tolerance: float = 0.01) -> Float[Tensor, ""]:
    """Share of a bounded activation's outputs that lie near a bound.

    Args:
        x: The activation.
        low: Its lower bound.
        high: Its upper bound.
        tolerance: Share of the range that counts as near.

    Returns:
        From 0 to 1.

    Example:
        >>> import torch
        >>> with_bounds(torch.tensor([0.5, 0.995, 0.2, 0.001]), 0.0, 1.0).item()
        0.5
    """
    return describe(x, (low, high), tolerance=tolerance)[5]


def negative_share(x: Shaped[Tensor, "..."]) -> Float[Tensor, ""]:
    """Share of numbers below zero.

    Args:
        x: Any tensor.

    Returns:
        From 0 to 1.
    """
    return describe(x)[6]


def between_share(x: Shaped[Tensor, "batch ..."]) -> Float[Tensor, ""]:
    """Deviation between samples over the total deviation.

    Args:
        x: An activation, batch first.

    Returns:
        From 0, when the output ignores its input, to 1; NaN for a single sample.

    Example:
        >>> import torch
        >>> between_share(torch.tensor([[1.0, 2.0], [1.0, 2.0]])).item()
        0.0
    """
    return describe(x)[7]


def gradient(x: Shaped[Tensor, "..."]) -> Float[Tensor, " stat"]:
    """What a gradient looks like: root mean square, largest magnitude, share of zeros, share of what isn't finite.

    Args:
        x: The gradient of the loss by some tensor.

    Returns:
        The numbers in the order of `GRADIENT`; right down to the smallest float32.

    Example:
        >>> import torch
        >>> gradient(torch.tensor([3.0, 0.0, 0.0, 4.0])).tolist()
        [2.5, 4.0, 0.5, 0.0]
    """
    if not measurable(x):
        return unknown(len(GRADIENT), x.device)
    few = thin(x.detach() if x.requires_grad else x, LIMIT)
    numbers = on_host(few)
    if numbers is not None:
        found = _gradient(numbers.reshape(-1))
        if found is not None:
            return found
    return _gradient_on_device(as_float(few).reshape(-1))


@quiet
def _gradient(x: np.ndarray) -> Tensor | None:
    low, high = float(x.min()), float(x.max())
    top = max(high, -low)
    if not top < math.inf:
        return None if np.isfinite(x).any() else row((*[math.nan] * 3, 1.0))
    if top == 0:
        return row((0.0, 0.0, 1.0, 0.0))
    scale = 1.0 if _TINY < top < _HUGE else top
    scaled = x if scale == 1.0 else x / x.dtype.type(scale)
    zero = np.count_nonzero(x == 0) / x.size if low <= 0 <= high else 0.0
    return row((math.sqrt(float(np.dot(scaled, scaled)) / x.size) * scale, top, zero, 0.0))


@torch.no_grad()
def _gradient_on_device(x: Tensor) -> Tensor:
    size = x.abs()
    finite = size < math.inf
    count = finite.sum()
    clean = torch.where(finite, size, 0.0)
    top = clean.amax()
    scale = torch.where(top > 0, top, 1.0)
    rms = ((clean / scale).square().sum() / count).sqrt() * scale
    zero = (size == 0).sum() / count
    return torch.stack([rms, torch.where(count > 0, top, math.nan), zero, 1 - count / x.numel()]).float()


def gradients(tensors: Sequence[Shaped[Tensor, "..."]]) -> Float[Tensor, "param stat"]:
    """What many gradients look like, all at once: for each a row as from `gradient`.

    The root mean square is that of all numbers, as long as the tensors too large to be looked at whole hold no more than `EXACT`
    together; largest magnitude and shares are those of a sample, at most 4096 numbers a tensor and `TOTAL` of all.
    Numbers that aren't finite and that the sample missed count as one.

    Args:
        tensors: The gradients, or other tensors, on any devices.

    Returns:
        One row a tensor; of tensors on several devices, on the first that isn't the CPU.

    Example:
        >>> import torch
        >>> gradients([torch.tensor([3.0, 4.0]), torch.zeros(2, 2)]).tolist()
        [[3.535533905029297, 4.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    if not tensors:
        return torch.zeros(0, len(GRADIENT), dtype=torch.float32, device="cpu")
    devices: dict[torch.device, list[int]] = {}
    for i, x in enumerate(tensors):
        if measurable(x):
            devices.setdefault(x.device, []).append(i)
    limit = min(MOST, max(LEAST, TOTAL // len(tensors)))
    if len(devices) == 1 and len(next(iter(devices.values()))) == len(tensors):
        return _gradients(tensors, limit)
    found = torch.full((len(tensors), len(GRADIENT)), math.nan, dtype=torch.float32, device=home(tensors))
    for places in devices.values():
        for i, one in zip(places, _gradients([tensors[i] for i in places], limit), strict=True):
            found[i].copy_(one, non_blocking=True)
    return found


@torch.no_grad()
def _gradients(tensors: Sequence[Tensor], limit: int) -> Tensor:
    """Of measurable tensors on one device."""
    large = [i for i, x in enumerate(tensors) if x.numel() > limit]
    if sum(tensors[i].numel() for i in large) > EXACT:
        large = []
    parts = [thin(x, limit) for x in tensors]
    together = flatten(parts)
    flat = as_array(together)
    if flat is None:
        return _gradients_on_device(tensors, large, parts, together)
    return _gradients_on_host(tensors, large, flat, np.fromiter((x.numel() for x in parts), np.intp, len(parts)))


@quiet
def _gradients_on_host(tensors: Sequence[Tensor], large: list[int], flat: np.ndarray, sizes: np.ndarray) -> Tensor:
    starts = sizes.cumsum() - sizes
    zeros = np.add.reduceat((flat == 0).view(np.int8), starts, dtype=np.int32)
    size = np.abs(flat)
    top = np.maximum.reduceat(size, starts)
    counts = sizes
    if top.min() > _TINY and top.max() < _HUGE:
        size *= size
        rms = np.sqrt(np.add.reduceat(size, starts) / counts)
    else:
        finite = size < math.inf
        size[~finite] = 0
        counts = np.add.reduceat(finite, starts, dtype=np.intp)
        top = np.maximum.reduceat(size, starts)
        scale = np.where(top > 0, top, 1)
        size /= np.repeat(scale, sizes)
        size *= size
        rms = np.sqrt(np.add.reduceat(size, starts) / counts) * scale
        top = np.where(counts > 0, top, math.nan)
    found = np.empty((len(GRADIENT), len(sizes)), np.float32)
    found[0], found[1], found[2], found[3] = rms, top, zeros / counts, 1 - counts / sizes
    if large:
        _correct(found, large, tensors)
    return torch.from_numpy(np.ascontiguousarray(found.T))


def _correct(found: np.ndarray, large: list[int], tensors: Sequence[Tensor]) -> None:
    """Puts in what all numbers of the larger tensors say."""
    few = [i for i in large if tensors[i].numel() <= _ALONE]
    sums = {i: _sum_of_squares(tensors[i]) for i in large if tensors[i].numel() > _ALONE}
    if few:
        found_norms = torch.stack(norms([as_float(tensors[i]) for i in few])).tolist()
        sums.update((i, norm**2) for i, norm in zip(few, found_norms, strict=True))
    for i, total in sums.items():
        count = tensors[i].numel()
        mean = total / count
        if _TINY**2 < mean < _HUGE**2:
            found[0, i] = math.sqrt(mean)
        elif not math.isfinite(mean) and found[3, i] == 0 and found[1, i] < _HUGE:
            found[3, i] = 1 / count


_ALONE = 32_768  # numbers from which on torch would wake its threads, and wait for them where the machine is busy


def _sum_of_squares(x: Tensor) -> float:
    if x.dtype in (torch.float32, torch.float64) and (x.is_contiguous() or in_one_piece(x)):
        flat = shared(x.as_strided((x.numel(),), (1,)))
        if flat is not None:
            whole = flat.size // LIMIT * LIMIT
            blocks, rest = (
                flat[:whole].reshape(-1, 1, LIMIT),
                flat[whole:],
            )  # small enough for BLAS not to wake its threads
            return float((blocks @ blocks.transpose(0, 2, 1)).sum()) + float(rest.dot(rest))
    return float(torch.linalg.vector_norm(as_float(x))) ** 2


@torch.no_grad()
def _gradients_on_device(tensors: Sequence[Tensor], large: list[int], parts: Sequence[Tensor], flat: Tensor) -> Tensor:
    wide = None if parts[0].device.type == "mps" else torch.float64  # so that squares neither underflow nor overflow
    sizes = [part.numel() for part in parts]
    size = flat.abs()
    finite = size < math.inf

    def each(numbers: Tensor, order: float, dtype: torch.dtype | None = None) -> Tensor:
        return torch.stack(norms(numbers.to(size.dtype).split(sizes), order, dtype=dtype))

    clean = torch.where(finite, size, 0.0)
    counts, bad = each(finite, 1.0), each(~finite, 1.0)
    rms = each(clean, 2.0, wide) / counts.sqrt()
    share = bad / (counts + bad)
    if large:
        whole = [as_float(tensors[i] if i in large else part) for i, part in enumerate(parts)]
        counted = [x.numel() for x in whole]
        exact = torch.stack(divided(norms(whole, dtype=wide), [math.sqrt(n) for n in counted]))
        known = exact.isfinite()
        rms = torch.where(known, exact, rms)
        missed = (~known & (bad == 0)).to(size.dtype)
        share = share + torch.stack(divided(missed.unbind(), [float(n) for n in counted]))
    top = torch.where(counts > 0, each(clean, math.inf), math.nan)
    return torch.stack([rms.float(), top.float(), (each(flat == 0, 1.0) / counts).float(), share.float()], dim=1)
