"""How tensors of any kind become float numbers that statistics can be taken of.

What is in the CPU's memory is read by numpy, which shares it and takes 1-2 us for a pass over a few thousand numbers; torch takes
5-90 us for the same, and more when its threads have to be woken. Everything else goes through torch, where nothing waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors

quiet = np.errstate(all="ignore")
"""Keeps numpy from warning, or raising where the user made it raise; a decorator."""


def measurable(x: Tensor) -> bool:
    """Whether a tensor holds numbers in the plain way: dense, not empty, not quantized, not under `vmap` or `grad`."""
    return (
        x.layout is torch.strided
        and x.numel() > 0
        and not x.is_quantized
        and not x.is_nested
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


def as_float(x: Tensor) -> Tensor:
    """The numbers as float32, as float64 where they are, of complex ones the magnitude; detached."""
    x = x.detach()
    if x.is_complex():
        x = x.abs()
    return x if x.dtype is torch.float64 else x.float()


def shared(x: Tensor) -> np.ndarray | None:
    """The numbers as an array for reading, None where numpy can't have them without waiting.

    Args:
        x: Any measurable tensor, thinned before since all of it may be copied.

    Returns:
        float64 for float64 and complex128, else float32, in the tensor's shape and, where it can be, in its memory: not to be changed.
    """
    if not x.is_cpu:
        return None
    dtype = x.dtype
    try:
        if dtype is torch.float32 or dtype is torch.float64:
            return (x.detach() if x.requires_grad else x).numpy()
        return as_float(x).numpy()
    except (RuntimeError, TypeError):  # a subclass, or memory that only torch can read: a negated or conjugated view, ...
        return None


def on_host(x: Tensor) -> np.ndarray | None:
    """As `shared`, with the numbers behind each other in memory."""
    numbers = shared(x)
    return None if numbers is None else np.ascontiguousarray(numbers)


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """The numbers of measurable tensors on one device behind each other, as float32, as float64 where any is."""
    if any(x.dtype is not torch.float32 for x in tensors):
        tensors = [as_float(x) for x in tensors]
        if any(x.dtype is torch.float64 for x in tensors):
            tensors = [x.double() for x in tensors]
    return _flatten_dense_tensors(tensors)


def row(numbers: Sequence[float] | np.ndarray) -> Tensor:
    """Numbers as a float32 tensor on the CPU."""
    return torch.from_numpy(np.asarray(numbers, np.float32))


def unknown(count: int, device: torch.device) -> Tensor:
    """`count` times NaN on a device, without waiting for it."""
    return torch.full((count,), math.nan, dtype=torch.float32, device=device)
