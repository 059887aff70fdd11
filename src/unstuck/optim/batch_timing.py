"""What time a batch size costs on this machine, for an update and for an epoch. What memory, is in `batch_memory`.

Times are medians of interleaved repeats, so that what disturbs the machine disturbs all sizes alike; where torch works in one thread
of the processor they are that thread's own time, which a busy machine changes little.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unstuck._batches import numbers_kept
from unstuck.errors import MisuseError
from unstuck.optim.batch_memory import MemoryLimit as MemoryLimit  # these may be imported from here too
from unstuck.optim.batch_memory import available_memory as available_memory
from unstuck.optim.batch_memory import memory_limit as memory_limit
from unstuck.optim.batch_memory import saved_bytes as saved_bytes
from unstuck.optim.batch_memory import update_bytes as update_bytes

_BENDS = 0.1  # relative error of one straight line, above which two are tried
_LEAST_POINTS = 3  # of a line, where there are two
_SHORTEST = 0.002  # seconds that are measured at a time, to be longer than what a clock call costs
_MEDIAN = 1.2533  # standard error of a median over that of a mean, of normal noise


@dataclass(frozen=True)
class Line:
    """Seconds of an update by batch size: `fixed + each * size`, up to a size.

    Attributes:
        fixed: Seconds whatever the size: launching the operations, the optimizer's step.
        each: Seconds a sample.
        upto: The largest batch it holds for.
    """

    fixed: float
    each: float
    upto: float = math.inf

    def __call__(self, size: float) -> float:
        """Seconds of an update with batches of this size."""
        return self.fixed + self.each * size


@dataclass(frozen=True)
class Timing:
    """Seconds of an update by batch size.

    Attributes:
        sizes: Batch sizes, ascending.
        seconds: Median seconds of an update with each.
        errors: Standard error of each.
        lines: One line, or two where one doesn't fit: beyond a cache, or where more threads set in.
        waited: Share of the time, from 0 to 1, in which this thread had no processor, though it had work: other programs had it, and
            torch's threads wait for one another then, so that times are theirs and not the batch's. 0 where it can't be told, or
            doesn't matter as only this thread's own time was taken.
        saved: Seconds that each further batch of the same update takes less than an update with it alone: the optimizer's step, less the
            adding up of gradients. 0 where no update of several batches was timed.
        accumulated: Batch size, batches to an update, seconds and standard error of the update of several batches that was timed.
    """

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    errors: tuple[float, ...]
    lines: tuple[Line, ...]
    waited: float = 0.0
    saved: float = 0.0
    accumulated: tuple[int, int, float, float] | None = None

    def update(self, size: float, num_batches: int = 1) -> float:
        """Seconds of an update with one or several batches of this size: as measured where it was, else by the line."""
        if self.accumulated is not None and (size, num_batches) == self.accumulated[:2]:
            return self.accumulated[2]
        measured = dict(zip(self.sizes, self.seconds, strict=True)).get(size)  # pyright: ignore[reportArgumentType, reportCallIssue]
        each = measured if measured is not None else next(line for line in self.lines if size <= line.upto)(size)
        return each + (num_batches - 1) * (each - min(self.saved, each))

    def error(self, size: int, num_batches: int = 1) -> float:
        """Standard error of that time, in seconds, where batches of this size were timed."""
        if self.accumulated is None:
            return self.errors[self.sizes.index(size)]
        micro_size, count, _, error = self.accumulated
        if (size, num_batches) == (micro_size, count):
            return error
        of_saved = math.hypot(count * self.errors[self.sizes.index(micro_size)], error) / (count - 1)
        return math.hypot(num_batches * self.errors[self.sizes.index(size)], (num_batches - 1) * of_saved)

    def epoch(self, size: int, num_samples: int, num_batches: int = 1) -> float:
        """Seconds of a pass over so many samples with one or several batches of this size to an update; the last may be smaller."""
        whole, rest = divmod(num_samples, size * num_batches)
        full, part = divmod(rest, size)
        last = (self.update(size, full) if full else 0.0) + (self.update(part) if part else 0.0)
        return whole * self.update(size, num_batches) + last - (self.saved if full and part else 0.0)


def time_batches(
    step: Callable[..., object],
    sizes: Sequence[int],
    *,
    accumulated: tuple[int, int] | None = None,
    keeps: Sequence[Any] = (),
    repeats: int = 9,
    warm_up: int = 2,
    seconds: float = math.inf,
    least: int = 0,
    device: torch.device | str = "cpu",
) -> Timing:
    """Times an update with batches of several sizes.

    Args:
        step: Makes an update with a batch of the size it is given; with `accumulated` also given how many batches of it.
        sizes: Batch sizes; small ones are timed first, and where time runs out large ones are left out.
        accumulated: Batch size, among `sizes`, and batches to an update, two or more: an update of several batches that is timed too.
        keeps: Modules and optimizers that are afterwards as they were; see `unchanged`.
        repeats: Measurements of each size, one of all sizes after the other.
        warm_up: Updates before them with each size.
        seconds: That all may take, roughly; three repeats are made of what was begun.
        least: Size up to which none is left out.
        device: That the updates are made on.

    Returns:
        The times.

    Raises:
        MisuseError: No size is given, or one below 1.
    """
    if not sizes or min(sizes) < 1:
        raise MisuseError(f"batch sizes are {list(sizes)}, but must be at least one, each 1 or more")
    several = [accumulated] if accumulated is not None else []
    least = max(least, *(size * count for size, count in several), 0)
    wanted = sorted({*((size, 1) for size in sizes), *several}, key=lambda key: (key[0] * key[1], -key[1]))

    def make(key: tuple[int, int]) -> None:
        step(*(key if key[1] > 1 else key[:1]))

    clock = clock_for(torch.device(device))
    with unchanged(*keeps):
        end, counts = time.perf_counter() + seconds, dict[tuple[int, int], int]()
        for key in wanted:
            began = time.perf_counter()
            for _ in range(max(1, warm_up)):
                before = clock()
                make(key)
                took = clock() - before
            counts[key] = max(1, math.ceil(_SHORTEST / max(took, 1e-9)))
            spent = time.perf_counter() - began
            if time.perf_counter() + 8 * spent > end and key[0] * key[1] >= least and key[1] == 1:
                break  # the next one takes twice as long, and three times that for its repeats
        found: dict[tuple[int, int], list[float]] = {key: [] for key in counts}
        began, ours = time.perf_counter(), time.thread_time()
        for repeat in range(repeats):
            if repeat >= 3 and time.perf_counter() > end:
                break
            for key, count in counts.items() if repeat % 2 else reversed(counts.items()):
                before = clock()
                for _ in range(count):
                    make(key)
                found[key].append((clock() - before) / count)
        waited = 1 - (time.thread_time() - ours) / (time.perf_counter() - began)
    timing = summarized(
        {size: found[size, n] for size, n in found if n == 1},
        waited=max(0.0, waited) if clock is time.perf_counter else 0.0,
    )
    return timing if accumulated is None else _with_several(timing, accumulated, found[accumulated])


def _with_several(timing: Timing, accumulated: tuple[int, int], found: Sequence[float]) -> Timing:
    """The timing, and what it tells of updates of several batches."""
    size, count = accumulated
    seconds = statistics.median(found)
    saved = (count * timing.update(size) - seconds) / (count - 1)
    return dataclasses.replace(timing, saved=saved, accumulated=(size, count, seconds, _error(found)))


def summarized(found: dict[int, list[float]], *, waited: float = 0.0) -> Timing:
    """The timing that repeated measurements make.

    Args:
        found: Seconds of an update, of each repeat, by batch size.
        waited: Share of the time without a processor.

    Returns:
        Medians with their errors, and the lines through them.
    """
    sizes = tuple(sorted(found))
    seconds = tuple(statistics.median(found[size]) for size in sizes)
    errors = tuple(_error(found[size]) for size in sizes)
    return Timing(sizes, seconds, errors, lines(sizes, seconds, errors), waited)


def _error(values: Sequence[float]) -> float:
    """Standard error of the median, by the median distance from it, which single outliers don't widen."""
    middle = statistics.median(values)
    deviation = 1.4826 * statistics.median([abs(v - middle) for v in values])
    return _MEDIAN * deviation / math.sqrt(len(values))


def clock_for(device: torch.device) -> Callable[[], float]:
    """What tells seconds on a device: this thread's processor time where it alone works, else the wall's, all work done.

    Args:
        device: That the work is done on.

    Returns:
        A function that gives seconds from some moment on.
    """
    if device.type == "cpu":
        return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter

    def waited() -> float:
        torch.accelerator.synchronize(device)
        return time.perf_counter()

    return waited


@contextlib.contextmanager
def unchanged(*kept: Any) -> Iterator[None]:
    """Modules and optimizers are afterwards as they were, also after an exception: gradients and modes too, and random numbers.

    Args:
        *kept: Modules, and optimizers or anything else with a `state_dict` that can be loaded again.
    """
    modules = [k for k in kept if isinstance(k, nn.Module)]
    others = [(k, _copied(k.state_dict())) for k in kept if not isinstance(k, nn.Module)]
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    values = [(t, t.detach().clone(), t.grad) for t in tensors]
    buffers = [(part, dict(part._buffers)) for m in modules for part in m.modules()]
    modes = [(part, part.training) for m in modules for part in m.modules()]
    grads = [None if g is None else g.clone() for _, _, g in values]
    with numbers_kept():
        try:
            yield
        finally:
            for (tensor, value, grad), old in zip(values, grads, strict=True):
                with torch.no_grad():
                    tensor.copy_(value)
                    tensor.grad = grad if grad is None or old is None else grad.copy_(old)
            for part, held in buffers:
                part._buffers.update(held)
            for part, mode in modes:
                part.training = mode
            for other, state in others:
                other.load_state_dict(state)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list) else value


# ---------------------------------------------------------------------- lines


def lines(sizes: Sequence[int], seconds: Sequence[float], errors: Sequence[float] = ()) -> tuple[Line, ...]:
    """The straight line through times by batch size, neither part of it below 0; two where one misses by more than a tenth.

    Args:
        sizes: Batch sizes, ascending.
        seconds: Of an update with each.
        errors: Standard errors of these; four times as much is no bend.

    Returns:
        One line, or two that meet between two sizes.
    """
    whole = _line(sizes, seconds)
    unsure = max((e / t for e, t in zip(errors, seconds, strict=False)), default=0.0)
    if max(_misses(whole, sizes, seconds)) <= max(_BENDS, 4 * unsure) or len(sizes) < 2 * _LEAST_POINTS:
        return (whole,)
    cuts = range(_LEAST_POINTS, len(sizes) - _LEAST_POINTS + 1)
    pairs = [(_line(sizes[:k], seconds[:k]), _line(sizes[k:], seconds[k:]), k) for k in cuts]

    def missed(pair: tuple[Line, Line, int]) -> float:
        low, high, k = pair
        return sum(m**2 for m in (*_misses(low, sizes[:k], seconds[:k]), *_misses(high, sizes[k:], seconds[k:])))

    low, high, k = min(pairs, key=missed)
    if missed((low, high, k)) > 0.5 * sum(m**2 for m in _misses(whole, sizes, seconds)):
        return (whole,)
    return Line(low.fixed, low.each, math.sqrt(sizes[k - 1] * sizes[k])), high


def _misses(line: Line, sizes: Sequence[int], seconds: Sequence[float]) -> list[float]:
    return [abs(line(n) - t) / t for n, t in zip(sizes, seconds, strict=True)]


def _line(sizes: Sequence[int], seconds: Sequence[float]) -> Line:
    """Least squares of relative errors, with neither number below 0."""
    x = [1 / t for t in seconds]  # fixed * x + each * z = 1
    z = [n / t for n, t in zip(sizes, seconds, strict=True)]
    xx, xz, zz = (sum(a * b for a, b in zip(p, q, strict=True)) for p, q in ((x, x), (x, z), (z, z)))
    determinant = xx * zz - xz * xz
    if determinant > 1e-12 * xx * zz:
        fixed = (zz * sum(x) - xz * sum(z)) / determinant
        each = (xx * sum(z) - xz * sum(x)) / determinant
        if fixed >= 0 and each >= 0:
            return Line(fixed, each)
    only_fixed, only_each = Line(sum(x) / xx, 0.0), Line(0.0, sum(z) / zz)
    return min(only_fixed, only_each, key=lambda line: sum(m**2 for m in _misses(line, sizes, seconds)))
