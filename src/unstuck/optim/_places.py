"""What a model holds: its parameters and buffers, by name and place, and whether that is still so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import is_
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """Where a tensor of a model lies.

    Attributes:
        name: Path and name, as in a state dict.
        holder: What of its module holds it.
        key: Under which name there.
        tensor: It.
        is_buffer: And no parameter.
    """

    name: str
    holder: dict[str, Any] = field(repr=False)
    key: str
    tensor: Tensor
    is_buffer: bool

    @property
    def identity(self) -> Any:
        """What it is known by: a buffer by its place, as many are assigned anew, and all are when a model is moved."""
        return (id(self.holder), self.key) if self.is_buffer else id(self.tensor)

    @property
    def is_real(self) -> bool:
        """Whether it can be averaged: numbers that aren't whole."""
        return self.tensor.is_floating_point() or self.tensor.is_complex()


def bare(model: nn.Module) -> nn.Module:
    """The model without what compiles it, or lets several processes train it."""
    while True:
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        elif isinstance(inner := model._modules.get("_orig_mod"), nn.Module):
            model = inner
        else:
            return model


def places(model: nn.Module) -> Iterator[Place]:
    """All tensors of a model, each once; of one that is compiled or wrapped, by the names that they have without that."""
    seen: set[int] = set()
    for path, module in bare(model).named_modules():
        for holder, is_buffer in ((module._parameters, False), (module._buffers, True)):
            for key, tensor in holder.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    name = ".".join(part for part in (*path.split("."), key) if part not in ("", "_orig_mod"))
                    yield Place(name, holder, key, tensor, is_buffer)


class Held:
    """What the modules of a model hold at a time.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        holders = [held for m in bare(model).modules() for held in (m._modules, m._parameters, m._buffers)]
        self._was = [(held, tuple(held.values())) for held in holders]

    def is_still(self, model: nn.Module) -> bool:
        """Whether this model is the one, and nothing in it was replaced, added or taken out; microseconds for a hundred modules."""
        return self.model is model and all(
            len(held) == len(was) and all(map(is_, held.values(), was)) for held, was in self._was
        )
