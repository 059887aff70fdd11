"""More batches than were kept: drawn from where the script drew its own.

Where a batch was cut out of a larger tensor (`X[index]`), or came from a `TensorDataset` or parts of one, the whole is still there when
the script has ended. Experiments then see many different batches instead of the few that were kept, so that a network which continues on
them can't learn them by heart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler

from unstuck.probes.rows import Rows, rows_of
from unstuck.probes.tape import Tape

MOST_BYTES = 64 << 20


def drawn(tape: Tape, kept: Sequence[Tape] = (), *, most: int = 64, samples: int = 2048, seed: int = 0) -> list[Tape]:
    """The tape with other batches of the same size in it, no sample in two of them.

    Where the script draws some samples more often than others, so do these; then no sample is both in an even and in an odd batch.

    Args:
        tape: Of any batch.
        kept: Tapes of batches that the script drew, to tell whether it draws all samples alike.
        most: Batches; small ones may be more.
        samples: In all of them, up to which they may.
        seed: Of the order in which samples are drawn.

    Returns:
        At least three tapes, or none where it isn't known where all of the batch came from or how it was drawn.
    """
    batched = [*tape.inputs, *tape.targets]
    wholes = {i: whole for i in batched if (whole := tape.pool(i)) is not None and whole.fit(tape.data[i])}
    if not batched or len(wholes) < len(batched):
        return []
    rows, sizes = {len(tape.data[i]) for i in batched}, {(len(whole), whole.places) for whole in wholes.values()}
    others = [t for i, t in enumerate(tape.data) if i not in batched and t.dim()]
    if len(rows) != 1 or len(sizes) != 1 or any(len(t) in rows for t in others):
        return []
    batch, (size, _) = rows.pop(), sizes.pop()
    each = sum(tape.data[i].numel() * tape.data[i].element_size() for i in batched)
    count = min(max(most, samples // max(1, batch)), size // max(1, batch), MOST_BYTES // max(1, each))
    if count < 3:
        return []
    generator = torch.Generator("cpu").manual_seed(seed)
    order = torch.randperm(size, generator=generator, device="cpu")
    if tape.weights is not None:
        if len(tape.weights) != size:
            return []
        halves = order[::2], order[1::2]
        rows = [_weighted(halves[k % 2], tape.weights, batch, generator) for k in range(count)]
        return [_with(tape, wholes, chosen) for chosen in rows]
    if any(
        _drawn_otherwise(wholes[i], [t.data[i] for t in kept if len(t.data) == len(tape.data)]) for i in tape.targets
    ):
        return []
    return [_with(tape, wholes, order[k * batch : (k + 1) * batch]) for k in range(count)]


def from_loader(tape: Tape, loader: Any, batch: list[Tensor]) -> None:
    """Notes where the data of a tape came from, when that is a `TensorDataset`, or parts of some, behind a loader.

    Args:
        tape: Whose data are looked at.
        loader: A DataLoader.
        batch: Tensors of the batch it gave.
    """
    known, weights, chosen = _sampling(loader)
    wholes = rows_of(getattr(loader, "dataset", None), chosen) if known else []
    if not wholes or len(wholes) != len(batch):
        return
    tape.weights = weights
    for i, data in enumerate(tape.data):
        for part, whole in zip(batch, wholes, strict=True):
            if part.data_ptr() == data.data_ptr() and part.shape == data.shape and whole.fit(data):
                tape.pools[i] = whole


def _sampling(loader: Any) -> tuple[bool, Tensor | None, Sequence[int] | None]:
    """How often a loader draws each sample.

    Returns:
        Whether that is known; the weights where it is not the same for all; and the numbers of those it draws where it isn't all.
    """
    sampler, batches = getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)
    if type(batches) is not BatchSampler:
        return False, None, None
    if type(sampler) is WeightedRandomSampler:
        return True, sampler.weights.detach().cpu(), None
    if type(sampler) is SubsetRandomSampler:
        return True, None, sampler.indices
    return type(sampler) in (RandomSampler, SequentialSampler), None, None


def _weighted(rows: Tensor, weights: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    chances = weights[rows].double()
    if not bool(chances.sum() > 0):
        return rows[:batch]
    return rows[torch.multinomial(chances, batch, replacement=True, generator=generator)]


def _drawn_otherwise(whole: Rows, parts: Sequence[Tensor], *, errors: float = 6.0) -> bool:
    """Whether targets that the script drew are on average unlike all there are: it draws some more often than others."""
    if len(parts) < 3 or not all(whole.fit(p) for p in parts):
        return False
    seen = torch.cat([p.detach().reshape(len(p), -1) for p in parts]).double().cpu()
    every = whole.first(len(whole)).reshape(len(whole), -1).double().cpu()
    apart = (seen.mean(0) - every.mean(0)).abs()
    return bool((apart > errors * every.std(0) / math.sqrt(len(seen)) + 1e-12).any())


def _with(tape: Tape, wholes: dict[int, Rows], rows: Tensor) -> Tape:
    data = [wholes[i][rows] if i in wholes else t for i, t in enumerate(tape.data)]
    return dataclasses.replace(tape, data=data, versions=[t._version for t in data])
