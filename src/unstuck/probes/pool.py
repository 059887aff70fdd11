"""More batches than were kept: drawn from where the script drew its own.

Where a batch was cut out of a larger tensor (`X[index]`), or came from a `TensorDataset`, the whole is still there when the script
has ended. Experiments then see many different batches instead of the few that were kept, so that a network which continues on
them can't learn them by heart.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from unstuck.probes.tape import Tape

MOST_BYTES = 64 << 20


def drawn(tape: Tape, *, most: int = 64, seed: int = 0) -> list[Tape]:
    """The tape with other batches of the same size in it, no sample in two of them.

    Args:
        tape: Of any batch.
        most: Batches.
        seed: Of the order in which samples are drawn.

    Returns:
        At least three tapes, or none where it isn't known where all of the batch came from.
    """
    batched = [*tape.inputs, *tape.targets]
    wholes = {i: whole for i in batched if (whole := tape.pool(i)) is not None and _fits(whole, tape.data[i])}
    if not batched or len(wholes) < len(batched):
        return []
    rows, sizes = {len(tape.data[i]) for i in batched}, {len(whole) for whole in wholes.values()}
    others = [t for i, t in enumerate(tape.data) if i not in batched and t.dim()]
    if len(rows) != 1 or len(sizes) != 1 or any(len(t) in rows for t in others):
        return []
    batch, size = rows.pop(), sizes.pop()
    each = sum(tape.data[i].numel() * tape.data[i].element_size() for i in batched)
    count = min(most, size // max(1, batch), MOST_BYTES // max(1, each))
    if count < 3:
        return []
    order = torch.randperm(size, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    return [_with(tape, wholes, order[k * batch : (k + 1) * batch]) for k in range(count)]


def from_loader(tape: Tape, loader: Any, batch: list[Tensor]) -> None:
    """Notes where the data of a tape came from, when that is a `TensorDataset` behind a loader.

    Args:
        tape: Whose data are looked at.
        loader: A DataLoader.
        batch: Tensors of the batch it gave.
    """
    wholes = getattr(getattr(loader, "dataset", None), "tensors", None)
    if not isinstance(wholes, tuple) or len(wholes) != len(batch):
        return
    for i, data in enumerate(tape.data):
        for part, whole in zip(batch, wholes, strict=True):
            if part.data_ptr() == data.data_ptr() and part.shape == data.shape and _fits(whole, data):
                tape.came_from(i, whole)


def _fits(whole: Tensor, part: Tensor) -> bool:
    return (
        part.dim() > 0
        and whole.shape[1:] == part.shape[1:]
        and (whole.dtype, whole.device) == (part.dtype, part.device)
    )


def _with(tape: Tape, wholes: dict[int, Tensor], rows: Tensor) -> Tape:
    data = [wholes[i][rows.to(t.device)] if i in wholes else t for i, t in enumerate(tape.data)]
    return dataclasses.replace(tape, data=data, versions=[t._version for t in data])
