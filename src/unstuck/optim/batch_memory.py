"""What memory a batch size takes, and the largest batch that fits: by trying on CUDA, elsewhere by what backward keeps."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unstuck.errors import MisuseError


@dataclass(frozen=True)
class MemoryLimit:
    """The largest batch that fits.

    Attributes:
        size: In samples; 0 when not even one does.
        limit: Bytes that an update may take.
        fixed: Bytes that it takes whatever the size; NaN where it was found by trying.
        each: Bytes a sample; NaN where it was found by trying.
        tried: It was found by trying, not by a line through smaller ones.
        measured: Sizes that were tried and fitted, ascending, with their bytes; empty where it was a line.
    """

    size: int
    limit: float
    fixed: float = math.nan
    each: float = math.nan
    tried: bool = False
    measured: tuple[tuple[int, float], ...] = ()

    def bytes_of(self, size: int) -> float:
        """Bytes that an update with batches of this size takes: on the line, or on that through the sizes next to it; NaN when unknown."""
        if math.isfinite(self.fixed):
            return self.fixed + self.each * size
        if len(self.measured) < 2:
            return dict(self.measured).get(size, math.nan)
        above = next((i for i, (n, _) in enumerate(self.measured) if n >= size), len(self.measured) - 1)
        (low, below), (high, most) = self.measured[max(0, above - 1)], self.measured[max(1, above)]
        return below + (most - below) * (size - low) / (high - low)


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
        fitted: dict[int, float] = {}

        def kept(size: int) -> float:
            fitted[size] = float(measure(size))
            return fitted[size]

        found = _tried(kept, max(sizes), limit or math.inf, most)
        measured = tuple((size, fitted[size]) for size in sorted(fitted) if size <= found)
        return MemoryLimit(found, limit or available_memory(where), tried=True, measured=measured)
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
