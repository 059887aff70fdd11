"""What a batch size costs on this machine: time for an update and for an epoch, memory, and the largest batch that fits.

Times are medians of interleaved repeats, so that what disturbs the machine disturbs all sizes alike; where torch works in one thread
of the processor they are that thread's own time, which a busy machine changes little.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unstuck._batches import numbers_kept
from unstuck.errors import MisuseError

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
    """

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    errors: tuple[float, ...]
    lines: tuple[Line, ...]
    waited: float = 0.0

    def update(self, size: float) -> float:
        """Seconds of an update with batches of this size: as measured where it was, else by the line."""
        measured = dict(zip(self.sizes, self.seconds, strict=True)).get(size)  # pyright: ignore[reportArgumentType, reportCallIssue]
        return measured if measured is not None else next(line for line in self.lines if size <= line.upto)(size)

    def epoch(self, size: int, num_samples: int) -> float:
        """Seconds of a pass over so many samples with batches of this size, the last of which may be smaller."""
        whole, rest = divmod(num_samples, size)
        return whole * self.update(size) + (self.update(rest) if rest else 0.0)


def time_batches(
    step: Callable[[int], object],
    sizes: Sequence[int],
    *,
    keeps: Sequence[Any] = (),
    repeats: int = 9,
    warm_up: int = 2,
    seconds: float = math.inf,
    least: int = 0,
    device: torch.device | str = "cpu",
) -> Timing:
    """Times an update with batches of several sizes.

    Args:
        step: Makes an update with a batch of the size it is given.
        sizes: Batch sizes; small ones are timed first, and where time runs out large ones are left out.
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
    wanted = sorted(set(sizes))
    if not wanted or wanted[0] < 1:
        raise MisuseError(f"batch sizes are {list(sizes)}, but must be at least one, each 1 or more")
    clock = clock_for(torch.device(device))
    with unchanged(*keeps):
        end, counts = time.perf_counter() + seconds, dict[int, int]()
        for size in wanted:
            began = time.perf_counter()
            for _ in range(max(1, warm_up)):
                before = clock()
                step(size)
                took = clock() - before
            counts[size] = max(1, math.ceil(_SHORTEST / max(took, 1e-9)))
            spent = time.perf_counter() - began
            if time.perf_counter() + 8 * spent > end and size >= least:
                break  # the next one takes twice as long, and three times that for its repeats
        found: dict[int, list[float]] = {size: [] for size in counts}
        began, ours = time.perf_counter(), time.thread_time()
        for repeat in range(repeats):
            if repeat >= 3 and time.perf_counter() > end:
                break
            for size, count in counts.items() if repeat % 2 else reversed(counts.items()):
                before = clock()
                for _ in range(count):
                    step(size)
                found[size].append((clock() - before) / count)
        waited = 1 - (time.thread_time() - ours) / (time.perf_counter() - began)
    return summarized(found, waited=max(0.0, waited) if clock is time.perf_counter else 0.0)


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


# ---------------------------------------------------------------------- memory


@dataclass(frozen=True)
class MemoryLimit:
    """The largest batch that fits.

    Attributes:
        size: In samples; 0 when not even one does.
        limit: Bytes that an update may take.
        fixed: Bytes that it takes whatever the size; NaN where it was found by trying.
        each: Bytes a sample; NaN where it was found by trying.
        tried: It was found by trying, not by a line through smaller ones.
    """

    size: int
    limit: float
    fixed: float = math.nan
    each: float = math.nan
    tried: bool = False


def update_bytes(step: Callable[[], object], forward: Callable[[], Tensor], held: Sequence[Tensor]) -> int:
    """Most bytes that an update takes.

    On CUDA they are measured. Elsewhere they are counted: what is held, a gradient for each of the tensors that are learned, and
    everything that backward needs of the forward pass. What an operation needs only while it runs isn't in it.

    Args:
        step: Makes an update; it is called on CUDA only.
        forward: Gives the loss of the batch, with its graph.
        held: Parameters, buffers, what the optimizer keeps, and the batch.

    Returns:
        Bytes.
    """
    devices = {t.device for t in held if t.device.type == "cuda"}
    if devices:
        before = sum(torch.cuda.memory_allocated(device) for device in devices)
        for device in devices:
            torch.cuda.reset_peak_memory_stats(device)
        step()
        return _distinct(held) + sum(torch.cuda.max_memory_allocated(device) for device in devices) - before
    grads = sum(t.numel() * t.element_size() for t in held if t.requires_grad)
    return _distinct(held) + grads + saved_bytes(forward, held)


def saved_bytes(forward: Callable[[], Tensor], held: Sequence[Tensor] = ()) -> int:
    """Bytes that the graph of a loss keeps for backward.

    Args:
        forward: Gives the loss, with its graph.
        held: Tensors that are there anyway, such as parameters, and aren't counted.

    Returns:
        Bytes of all memory that saved tensors lie in, each counted once.

    Example:
        The square keeps its input, four numbers of four bytes.

        >>> x = torch.ones(4, requires_grad=True)
        >>> saved_bytes(lambda: (2 * x).square().sum())
        16
    """
    known = {_memory(t) for t in held}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        memory = _memory(tensor)
        if memory not in known:
            found[memory] = _size(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.enable_grad():
        loss = forward()
        total = sum(found.values())
    del loss  # only now: memory that is let go of may be given out again, and would be counted once
    return total


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


def _size(tensor: Tensor) -> int:
    strided = tensor.layout == torch.strided
    return tensor.untyped_storage().nbytes() if strided else tensor.numel() * tensor.element_size()


def _distinct(tensors: Sequence[Tensor]) -> int:
    return sum({_memory(t): _size(t) for t in tensors}.values())


def memory_limit(
    measure: Callable[[int], float],
    sizes: Sequence[int],
    *,
    limit: float = 0.0,
    device: torch.device | str = "cpu",
    most: int = 1 << 20,
) -> MemoryLimit:
    """The largest batch an update of which fits into memory.

    On CUDA sizes are tried: doubled until memory runs out, then halved in between; running out is caught, and the memory given
    back. On the processor, where running out would end the process, or another one, nothing is tried: the line through the sizes
    that are asked for is drawn on to the limit.

    Args:
        measure: Makes an update with a batch of the size it is given, or counts what it takes, and gives its bytes.
        sizes: Batch sizes to measure; on CUDA the largest is where trying begins.
        limit: Bytes that an update may take; 0 for what is free, which on CUDA shows by running out.
        device: That the updates are made on.
        most: Largest batch that is tried.

    Returns:
        The largest size, to within a 32nd where it was tried.

    Raises:
        MisuseError: No size is given.
    """
    if not sizes:
        raise MisuseError("no batch sizes are given, from which the memory of others could be told")
    where = torch.device(device)
    if where.type == "cuda":
        found = _tried(measure, max(sizes), limit or math.inf, most)
        return MemoryLimit(found, limit or available_memory(where), tried=True)
    limit = limit or available_memory(where)
    known = {size: float(measure(size)) for size in sorted(set(sizes))}
    low, high = min(known), max(known)
    each = (known[high] - known[low]) / (high - low) if high > low else known[low] / low
    fixed = max(0.0, known[high] - each * high)
    size = most if each <= 0 else math.floor((limit - fixed) / each)
    return MemoryLimit(max(0, size), limit, fixed, each)


def _tried(measure: Callable[[int], float], start: int, limit: float, most: int) -> int:
    """The largest size that fits, by doubling and then halving what lies between."""

    def fits(size: int) -> bool:
        try:
            return measure(size) <= limit
        except torch.OutOfMemoryError:
            return False
        finally:
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()

    low, high = 0, start
    while high <= most and fits(high):
        low, high = high, 2 * high
    if high > most:
        return low if low >= most or not fits(most) else most
    while high - low > max(1, low // 32):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def available_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that are free on a device: on the processor what the system says is available, and the limits of this process's group.

    Args:
        device: Which.

    Returns:
        Bytes. On CUDA what torch has reserved and doesn't use counts as free.
    """
    where = torch.device(device)
    if where.type == "cuda":
        reserved = torch.cuda.memory_reserved(where) - torch.cuda.memory_allocated(where)
        return torch.cuda.mem_get_info(where)[0] + reserved
    return min(filter(None, (_of_system(), _of_group())), default=4 << 30)


def _of_system(file: Path = Path("/proc/meminfo")) -> int | None:
    for line in file.read_text().splitlines() if file.exists() else ():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) << 10
    return None


def _of_group(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What is left of the limit of this process's control group, of either version; None where there is none."""
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max": no limit
            limit = int((root / most).read_text())
            if limit < 1 << 60:
                return max(0, limit - int((root / used).read_text()))
    return None
