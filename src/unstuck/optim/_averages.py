"""Averages that are kept beside a model's tensors: how they are brought up to date, and exchanged with what they are of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unstuck.optim._places import Held

_PART = 2**20  # elements that are exchanged at once


@dataclass
class Average:
    """An average of a tensor of the model.

    Attributes:
        tensor: It.
        began: Updates that there had been before its first.
        of_buffer: Whether it is one of a norm's statistics.
    """

    tensor: Tensor
    began: int
    of_buffer: bool


@dataclass
class Group:
    """Tensors that are averaged in the same way."""

    began: int
    dtype: torch.dtype
    device: torch.device
    own: list[Tensor] = field(default_factory=list)
    averages: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Listing:
    """The model's tensors as they were found, so that they needn't be looked for at every update.

    Attributes:
        held: By which it is told whether anything was replaced.
        frozen: Parameters that aren't averaged, unless they are trained later.
        pairs: Tensors that are averaged, and their averages.
        groups: The same.
        known: Averages by the tensor, or the place of a buffer.
    """

    held: Held
    frozen: list[Tensor]
    pairs: list[tuple[Tensor, Average]]
    groups: list[Group]
    known: dict[Any, Average]

    def is_current(self, model: nn.Module) -> bool:
        """Whether the model still holds the same, where it did."""
        return (
            self.held.is_still(model)
            and not any(p.requires_grad for p in self.frozen)
            and all(own.dtype is g.dtype and own.device == g.device for g in self.groups for own in g.own)
        )


def grouped(pairs: Iterable[tuple[Tensor, Average]]) -> list[Group]:
    """What can be brought up to date at once."""
    groups: dict[Any, Group] = {}
    for own, average in pairs:
        key = (own.dtype, own.device, average.tensor.dtype, average.tensor.device, average.began)
        group = groups.setdefault(key, Group(average.began, own.dtype, own.device))
        group.own.append(own)
        group.averages.append(average.tensor)
    return list(groups.values())


def mix(averages: list[Tensor], own: list[Tensor], share: float) -> None:
    """Moves averages towards the weights by a share of the way."""
    if own[0].device != averages[0].device:
        own = [tensor.to(averages[0].device) for tensor in own]
    if own[0].dtype is averages[0].dtype:
        torch._foreach_lerp_(averages, own, share)  # pyright: ignore[reportPrivateImportUsage]
    else:
        torch._foreach_mul_(averages, 1 - share)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(averages, own, alpha=share)  # pyright: ignore[reportPrivateImportUsage]


def put_in(own: Tensor, average: Tensor) -> Tensor | None:
    """Gives a weight the value of its average; its own is in the average's memory, or else is returned."""
    if own.dtype is average.dtype:
        return exchange(own, average)
    kept = own.detach().to(average.device, copy=True)
    own.copy_(average)
    return kept


def put_back(own: Tensor, average: Tensor, kept: Tensor | None) -> None:
    """Undoes `put_in`, which returned what was kept."""
    if kept is None:
        exchange(own, average)
    else:
        own.copy_(kept)


def exchange(one: Tensor, other: Tensor) -> None:
    """Exchanges the values of two tensors, a part at a time."""
    rows = max(1, _PART * len(one) // one.numel()) if one.dim() and one.numel() else 1
    parts = zip(one.split(rows), other.split(rows), strict=True) if one.dim() else [(one, other)]
    for a, b in parts:
        kept = a.detach().to(b.device, copy=True)
        a.copy_(b)
        b.copy_(kept)
