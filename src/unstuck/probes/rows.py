"""All the samples that batches are drawn from: rows of tensors, of which nothing is copied until some are asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

Places = tuple[Tensor, Tensor]
"""Of each row the number of the tensor that it is in, and its own number in there."""


class Rows:
    """Rows of one or several tensors of the script's, in any order.

    Attributes:
        tensors: That they are in.
        places: Finds which rows of them these are, when they are drawn from; None for all rows of the only one, as they are. Rows that
            lie side by side, of inputs and of targets, have the same.

    Args:
        tensors: That they are in.
        size: How many there are.
        places: As above.
    """

    def __init__(self, tensors: Sequence[Tensor], size: int, places: Callable[[], Places] | None = None) -> None:
        self.tensors = tuple(t.detach() for t in tensors)
        self.places, self._size = places, size
        self._versions = tuple(t._version for t in tensors)

    @classmethod
    def of(cls, whole: Tensor) -> Rows:
        """All rows of a tensor, which may be a single number that has none."""
        return cls((whole,), len(whole) if whole.dim() else 0)

    @property
    def fresh(self) -> bool:
        """Whether the script has left the tensors as they were."""
        return all(t._version == v for t, v in zip(self.tensors, self._versions, strict=True))

    @property
    def whole(self) -> Tensor | None:
        """The tensor that these are all the rows of, as they are; None where they are some, or in several."""
        return self.tensors[0] if self.places is None else None

    def __len__(self) -> int:
        """How many there are."""
        return self._size

    def __getitem__(self, numbers: Tensor) -> Tensor:
        """Some of them, shape `(numbers, ...)`.

        Args:
            numbers: Of rows, shape `(numbers,)`, from 0 on.
        """
        if self.places is None:
            return self.tensors[0][numbers.to(self.tensors[0].device)]
        which, rows = (place[numbers.cpu()] for place in self.places())
        first = self.tensors[0]
        found = first.new_empty((len(numbers), *first.shape[1:]))
        for k, tensor in enumerate(self.tensors):
            here = torch.nonzero(which == k)[:, 0]
            found[here.to(first.device)] = tensor[rows[here].to(first.device)]
        return found

    def first(self, most: int) -> Tensor:
        """The first of them, up to so many; of a whole tensor they share its memory."""
        return self.tensors[0][:most] if self.places is None else self[torch.arange(min(most, len(self)), device="cpu")]

    def fit(self, part: Tensor) -> bool:
        """Whether rows of a batch can be some of these, by their shape, type and device."""
        return part.dim() > 0 and all(
            t.dim() > 0
            and t.shape[1:] == part.shape[1:]
            and (t.dtype, t.device) == (part.dtype, part.device)
            for t in self.tensors
        )  # fmt: skip


def rows_of(dataset: Any, chosen: Sequence[int] | None = None) -> list[Rows]:
    """The samples of a data set whose tensors are in memory: inputs, targets, and what else there is.

    It looks through torch's own `Subset` and `ConcatDataset`, in any order. No sample is asked for: what a class of one's own makes of
    tensors can't be told from them, so that there are none of such a data set. Which samples are in a part is looked up when rows are
    asked for.

    Args:
        dataset: The data set.
        chosen: Numbers of those samples that are looked for; None for all.

    Returns:
        One for each tensor that a sample is made of; none where it isn't known.
    """
    leaves = _leaves(dataset)
    if not leaves or len({len(leaf.tensors) for leaf in leaves}) > 1:
        return []
    if dataset is leaves[0] and chosen is None:
        return [Rows.of(t) for t in dataset.tensors]
    wanted = dataset if chosen is None else Subset(dataset, chosen)
    places = functools.cache(lambda: _places(wanted)[1])
    return [Rows(column, len(wanted), places) for column in zip(*(leaf.tensors for leaf in leaves), strict=True)]


def _leaves(dataset: Any) -> list[Any]:
    """The data sets that hold the tensors, in order; none where some hold no tensors, or do with them what they will."""
    if _takes_as(dataset, TensorDataset):
        return [dataset]
    if _takes_as(dataset, Subset):
        return _leaves(dataset.dataset)
    if not _takes_as(dataset, ConcatDataset):
        return []
    parts = [_leaves(part) for part in dataset.datasets]
    return [leaf for part in parts for leaf in part] if all(parts) else []


def _takes_as(dataset: Any, kind: type) -> bool:
    """Whether samples are taken out of it by torch's own code."""
    names = ("__getitem__", "__getitems__")
    return isinstance(dataset, kind) and all(
        getattr(type(dataset), name, None) is getattr(kind, name, None) and name not in vars(dataset) for name in names
    )


def _places(dataset: Any) -> tuple[int, Places]:
    """How many data sets there are that hold the tensors, and where the samples are."""
    if isinstance(dataset, Subset):
        count, (which, rows) = _places(dataset.dataset)
        numbers = dataset.indices.cpu().numpy() if isinstance(dataset.indices, Tensor) else dataset.indices
        chosen = torch.from_numpy(np.array(numbers, dtype=np.int64).reshape(-1))  # a copy, as an array may be read-only
        return count, (which[chosen], rows[chosen])
    if isinstance(dataset, ConcatDataset):
        total, found = 0, list[Places]()
        for part in dataset.datasets:
            count, (which, rows) = _places(part)
            found.append((which + total, rows))
            total += count
        which, rows = (torch.cat(side) for side in zip(*found, strict=True))
        return total, (which, rows)
    rows = torch.arange(len(dataset), device="cpu")
    return 1, (torch.zeros_like(rows), rows)
