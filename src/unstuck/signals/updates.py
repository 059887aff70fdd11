"""How large an update is against what it changes: rms(update) / rms(parameter), from a sample of each parameter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unstuck.signals.numbers import as_array, flatten, home, measurable, norms, quiet
from unstuck.signals.sample import thin

LIMIT = 4096


@dataclass(frozen=True)
class Group:
    """Samples of tensors on one device.

    Attributes:
        places: Which tensors of those given they are from.
        layouts: Shape and strides of each: samples hold the same places where these are equal.
        sizes: Numbers in the sample of each.
        numbers: The samples behind each other, shape `(number,)`; a copy.
    """

    places: tuple[int, ...]
    layouts: tuple[tuple[torch.Size, tuple[int, ...]], ...]
    sizes: tuple[int, ...]
    numbers: Tensor

    def fits(self, other: "Group") -> bool:
        """Whether both hold the same places of the same tensors."""
        return self.places == other.places and self.layouts == other.layouts


@dataclass(frozen=True)
class Snapshot:
    """A sample of each of `count` tensors as they were, of each at most `limit` numbers."""

    groups: tuple[Group, ...]
    count: int
    limit: int


@torch.no_grad()
def snapshot(params: Sequence[Shaped[Tensor, "..."]], limit: int = LIMIT) -> Snapshot:
    """Copies a sample of each parameter.

    Args:
        params: Parameters, or gradients, on any devices.
        limit: Most numbers of each. Which places they are from depends on shape and strides alone.

    Returns:
        The samples. What can't be measured has none.
    """
    devices: dict[torch.device, list[int]] = {}
    for i, x in enumerate(params):
        if measurable(x):
            devices.setdefault(x.device, []).append(i)
    return Snapshot(tuple(_group(params, places, limit) for places in devices.values()), len(params), limit)


def _group(params: Sequence[Tensor], places: list[int], limit: int) -> Group:
    parts = [thin(params[i], limit) for i in places]
    layouts = tuple((params[i].shape, params[i].stride()) for i in places)
    return Group(tuple(places), layouts, tuple(part.numel() for part in parts), flatten(parts))


@torch.no_grad()
def ratios(before: Snapshot, params: Sequence[Shaped[Tensor, "..."]]) -> Float[Tensor, " param"]:
    """The size of updates against the parameters.

    Args:
        before: Snapshot from before the update.
        params: The same parameters after it.

    Returns:
        rms(after - before) / rms(before) by parameter, from places that were and are finite. NaN where the parameter was all
        zeros, can't be measured, or is of another shape than before. Of parameters on several devices, on the first that isn't
        the CPU.

    Example:
        >>> import torch
        >>> weight = torch.tensor([3.0, 4.0])
        >>> state = snapshot([weight])
        >>> ratios(state, [weight.mul_(0.75)]).item()
        0.25
    """
    after = snapshot(params, before.limit)
    pairs = [(old, new) for old, new in zip(before.groups, after.groups, strict=False) if old.fits(new)]
    if len(pairs) == 1 and len(pairs[0][0].places) == len(params):
        return _ratios(*pairs[0])
    found = torch.full((len(params),), math.nan, dtype=torch.float32, device=home(params))
    for old, new in pairs:
        for i, ratio in zip(old.places, _ratios(old, new).unbind(), strict=True):
            found[i].copy_(ratio, non_blocking=True)
    return found


def _ratios(old: Group, new: Group) -> Tensor:
    first, second = as_array(old.numbers), as_array(new.numbers)
    if first is None or second is None:
        return _ratios_on_device(old.numbers, new.numbers, old.sizes)
    return _ratios_on_host(first, second, np.asarray(old.sizes, np.intp))


@quiet
def _ratios_on_host(old: np.ndarray, new: np.ndarray, sizes: np.ndarray) -> Tensor:
    starts = sizes.cumsum() - sizes
    change = new - old
    if not math.isfinite(float(np.add.reduce(change))):
        change, old = change.astype(np.float64), old.astype(np.float64)
        bad = ~np.isfinite(change)
        change[bad] = old[bad] = 0
    weight = np.add.reduceat(old * old, starts)
    change *= change
    squares = np.add.reduceat(change, starts) / np.where(weight > 0, weight, math.nan)
    return torch.from_numpy(np.sqrt(squares).astype(np.float32))


def _ratios_on_device(old: Tensor, new: Tensor, sizes: Sequence[int]) -> Tensor:
    change = new - old
    finite = change.abs() < math.inf
    parts = [torch.where(finite, x, 0.0).split(sizes) for x in (change, old)]
    update, weight = (torch.stack(norms(part)) for part in parts)
    return torch.where(weight > 0, update / weight, math.nan).float()
