"""How tensors of any kind become float numbers that statistics can be taken of.

What is in the CPU's memory is read by numpy, which takes 1-2 us for a pass over a few thousand numbers; torch takes 3-90 us
for the same, and more when its threads have to be woken. Everything else goes through torch, where nothing waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors

quiet = np.errstate(all="ignore")
"""Keeps numpy from warning, or raising where the user made it raise; a decorator."""


# torch's fused operations on lists have no public names
norms: Any = torch._foreach_norm  # pyright: ignore[reportPrivateImportUsage]
divided: Any = torch._foreach_div  # pyright: ignore[reportPrivateImportUsage]
_wrapped: Any = torch._C._functorch.is_functorch_wrapped_tensor  # pyright: ignore[reportAttributeAccessIssue]


_own_memory: dict[type, bool] = {Tensor: True, torch.nn.Parameter: True}


def measurable(x: Tensor) -> bool:
    """Whether a tensor holds numbers in the plain way: dense, not empty, not quantized, not sharded, not under `vmap` or `grad`."""
    if not _own_memory.get(type(x), False) and not _has_memory(type(x)):
        return False
    if x.layout is not torch.strided or x.numel() == 0 or x.is_quantized or x.is_nested or _wrapped(x):
        return False
    return x.is_meta or x.untyped_storage().size() > 0  # FSDP frees the memory of whole parameters between their uses


def _has_memory(kind: type) -> bool:
    """Whether tensors of a class hold their numbers themselves; a DTensor or a fake tensor has none to read."""
    if kind not in _own_memory:
        own = kind.__mro__[: kind.__mro__.index(Tensor)]
        _own_memory[kind] = not any("__torch_dispatch__" in part.__dict__ for part in own)
    return _own_memory[kind]


def as_float(x: Tensor) -> Tensor:
    """The numbers as float32, as float64 where they are, of complex ones the magnitude; detached."""
    x = x.detach()
    if x.is_complex():
        x = x.abs()
    return x if x.dtype is torch.float64 else x.float()


def on_host(x: Tensor) -> np.ndarray | None:
    """A copy of the numbers as an array, None where numpy can't have them without waiting.

    A copy, because `Tensor.numpy` marks the memory it shares as never to be resized again, which a user's program may do.

    Args:
        x: Any measurable tensor, thinned before.

    Returns:
        float64 for float64 and complex128, else float32, in the tensor's shape and contiguous.
    """
    if not x.is_cpu:
        return None
    if x.requires_grad:
        x = x.detach()
    dtype = x.dtype
    if dtype is torch.float32 or dtype is torch.float64:
        return as_array(x.clone(memory_format=torch.contiguous_format))
    return as_array(as_float(x).contiguous())


def as_array(x: Tensor) -> np.ndarray | None:
    """A tensor of our own as an array that shares its memory, None where numpy can't have it without waiting."""
    if not x.is_cpu:
        return None
    try:
        return x.numpy()
    except (RuntimeError, TypeError):  # a subclass, or memory that only torch can read
        return None


def shared(x: Tensor) -> np.ndarray | None:
    """The numbers as an array for reading, in the tensor's own memory if it is of float32 or float64; None as with `on_host`."""
    if not x.is_cpu:
        return None
    dtype = x.dtype
    if dtype is not torch.float32 and dtype is not torch.float64:
        return as_array(as_float(x))
    try:
        return np.from_dlpack(x.detach() if x.requires_grad else x)
    except (RuntimeError, TypeError, BufferError):  # as above, or a negated or conjugated view
        return None


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """A copy of the numbers of measurable tensors on one device behind each other, as float32, as float64 where any is."""
    if any(x.dtype is not torch.float32 for x in tensors):
        tensors = [as_float(x) for x in tensors]
        if any(x.dtype is torch.float64 for x in tensors):
            tensors = [x.double() for x in tensors]
    return _flatten_dense_tensors(tensors) if len(tensors) > 1 else tensors[0].detach().flatten().clone()


def home(tensors: Sequence[Tensor]) -> torch.device:
    """Where results of tensors on several devices meet: the first that isn't the CPU, so that nothing waits for it."""
    devices = [x.device for x in tensors]
    return next((device for device in devices if device.type != "cpu"), devices[0] if devices else torch.device("cpu"))


def row(numbers: Sequence[float] | np.ndarray) -> Tensor:
    """Numbers as a float32 tensor on the CPU."""
    return torch.from_numpy(np.asarray(numbers, np.float32))


def unknown(count: int, device: torch.device) -> Tensor:
    """`count` times NaN on a device, without waiting for it."""
    return torch.full((count,), math.nan, dtype=torch.float32, device=device)
