"""Sequences of different lengths as packed rows: step by step, the longest sequence first, no step of padding among them.

That is the order in which `torch.nn.utils.rnn.PackedSequence` has its data. A recurrent layer computes on such rows, at each step for the
sequences that go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unstuck.errors import MisuseError
from unstuck.recurrent._layout import Layout


@dataclass(frozen=True)
class Packing:
    """How sequences lie in packed rows.

    Attributes:
        layout: How many sequences have each step.
        order: The sequences from the longest to the shortest, `(batch,)`; None where they are in that order.
        rows: Where each packed row lies in the padded sequences, time first and flattened, `(rows,)`; None where the two are the same.
        backward: The packed row that each row is exchanged with when every sequence is reversed, `(rows,)`; None where all are as long
            as the longest.
    """

    layout: Layout
    order: Tensor | None = None
    rows: Tensor | None = None
    backward: Tensor | None = None

    def pack(self, padded: Float[Tensor, "time batch width"]) -> Float[Tensor, "rows width"]:
        """Packed rows of padded sequences."""
        flat = padded.reshape(-1, padded.shape[-1])
        return flat if self.rows is None else flat.index_select(0, self.rows)

    def unpack(self, packed: Float[Tensor, "rows width"], time: int) -> Float[Tensor, "time batch width"]:
        """Padded sequences of packed rows, with zeros after the end of each.

        Args:
            packed: The rows.
            time: Steps of the padded sequences.

        Returns:
            The sequences.
        """
        batch, width = self.layout.batch, packed.shape[-1]
        if self.rows is None:
            return packed.reshape(time, batch, width)
        return packed.new_zeros(time * batch, width).index_copy(0, self.rows, packed).view(time, batch, width)

    def reverse(self, packed: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """The rows of the sequences from the last step to the first."""
        if self.backward is not None:
            return packed.index_select(0, self.backward)
        return packed.view(len(self.layout.sizes), self.layout.batch, packed.shape[-1]).flip(0).flatten(0, 1)

    def by_row(self, values: Float[Tensor, "batch width"]) -> Float[Tensor, "rows width"]:
        """What belongs to each sequence, longest first, for each of its steps."""
        if self.layout.full:
            return values.repeat(len(self.layout.sizes), 1)
        return torch.cat([values[:n] for n in self.layout.sizes]) if self.layout.sizes else values[:0]

    def sorted(self, states: Tensor) -> Tensor:
        """States of the sequences, `(layers, batch, width)`, longest first."""
        return states if self.order is None else states.index_select(1, self.order)

    def unsorted(self, states: Tensor) -> Tensor:
        """And back."""
        return states if self.order is None else states.index_select(1, self.order.argsort())


def full(time: int, batch: int) -> Packing:
    """Sequences that are equally long.

    Args:
        time: Steps.
        batch: How many sequences.

    Returns:
        Their packing.
    """
    return Packing(Layout((batch,) * time, batch))


def by_lengths(
    lengths: Tensor | Sequence[int], time: int, batch: int, *, device: torch.device | None = None
) -> Packing:
    """Padded sequences of these lengths.

    Args:
        lengths: Steps of each sequence, from 0.
        time: Steps of the padded sequences.
        batch: How many sequences.
        device: Where the sequences are.

    Returns:
        Their packing.

    Raises:
        MisuseError: There is not one length for each sequence, or one is longer than the padded sequences.

    Example:
        >>> by_lengths([1, 3], 3, 2).rows.tolist()
        [1, 0, 3, 5]
    """
    given = torch.as_tensor(lengths, device="cpu")
    if given.shape != (batch,) or given.is_floating_point():
        raise MisuseError(f"lengths of shape {tuple(given.shape)} and type {given.dtype} are not {batch} whole numbers")
    if batch and (int(given.min()) < 0 or int(given.max()) > time):
        raise MisuseError(f"lengths from {int(given.min())} to {int(given.max())} don't fit sequences of {time} steps")
    if bool((given == time).all()):
        return full(time, batch)
    falling, order = given.sort(descending=True, stable=True)
    steps = torch.arange(time, device="cpu")[:, None]
    there = steps < falling
    rows = (steps * batch + order)[there]
    sizes = tuple(n for n in there.sum(1).tolist() if n)
    return Packing(Layout(sizes, batch), order.to(device), rows.to(device), _reversed(sizes).to(device))


def by_sizes(sizes: Sequence[int], order: Tensor | None, *, device: torch.device | None = None) -> Packing:
    """Rows that are packed already, as in a `PackedSequence`.

    Args:
        sizes: How many sequences have each step.
        order: The sequences from the longest to the shortest; None where they are in that order.
        device: Where the rows are.

    Returns:
        Their packing; `rows` is not known, as there are no padded sequences.
    """
    layout = Layout(tuple(sizes), sizes[0])
    return Packing(layout, order, None, None if layout.full else _reversed(tuple(sizes)).to(device))


def _reversed(sizes: tuple[int, ...]) -> Tensor:
    counts = torch.tensor(sizes, dtype=torch.long, device="cpu")
    starts = counts.cumsum(0) - counts
    steps = torch.repeat_interleave(torch.arange(len(sizes), device="cpu"), counts)
    sequences = torch.arange(int(counts.sum()), device="cpu") - starts[steps]
    lengths = (counts[:, None] > torch.arange(sizes[0] if sizes else 0, device="cpu")).sum(0)
    return starts[lengths[sequences] - 1 - steps] + sequences
