"""Where the steps of packed sequences lie, and what a layer computes with.

*Packed* rows are the steps of all sequences, step by step, the longest sequence first, as `torch.nn.utils.rnn.PackedSequence` has them: at
each step the sequences that go on are the first rows. A buffer of states has the first states before these rows, so that what was before a
step is one slice as well.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.recurrent.cell import Cell


@dataclass(frozen=True)
class Layout:
    """Where the steps of packed sequences lie.

    Attributes:
        sizes: How many sequences have each step, falling.
        batch: How many sequences there are, those of length 0 included.
    """

    sizes: tuple[int, ...]
    batch: int

    @property
    def steps(self) -> list[tuple[int, int, int]]:
        """First row of each step, first row of the states before it, and how many rows."""
        return _steps(self.sizes, self.batch)

    @property
    def rows(self) -> int:
        """Steps of all sequences."""
        return sum(self.sizes)

    @property
    def full(self) -> bool:
        """All sequences are as long as the longest."""
        return all(n == self.batch for n in self.sizes)

    @property
    def single(self) -> bool:
        """All sequences have one step."""
        return len(self.sizes) == 1 and self.full

    def before(self, states: Tensor) -> Tensor:
        """The states before each row, of a buffer that begins with the first states."""
        if self.full:
            return states[: self.rows]
        return torch.cat([states[prev : prev + n] for _, prev, n in self.steps]) if self.sizes else states[:0]

    def last(self, states: Tensor) -> Tensor:
        """The state after the last step of each sequence, of such a buffer."""
        if self.full:
            return states[self.rows :].clone()
        ended, left = [], self.batch
        for (_, prev, _), n in zip(self.steps, self.sizes, strict=True):
            if n < left:
                ended.append(states[prev + n : prev + left])
                left = n
        row = self.batch + self.steps[-1][0] if self.steps else 0
        return torch.cat([states[row : row + left], *reversed(ended)])


@functools.lru_cache(maxsize=256)
def _steps(sizes: tuple[int, ...], batch: int) -> list[tuple[int, int, int]]:
    starts = [0, *itertools.accumulate(sizes)]
    before = [0, *(batch + s for s in starts)]
    return [(starts[t], before[t], n) for t, n in enumerate(sizes)]


@dataclass(frozen=True)
class Given:
    """What a layer computes with.

    Attributes:
        states: First states by name, each `(batch, width)`.
        weights: Parameters by name, see `shapes`.
        masks: Masks by name: `(rows, hidden)` by step, `(batch, hidden)` by sequence.
    """

    states: dict[str, Tensor]
    weights: dict[str, Tensor]
    masks: dict[str, Tensor]


def shapes(cell: Cell, input_size: int, hidden_size: int, proj_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
    """The parameters of a layer: their names, as torch.nn.LSTM has them without `_l0`, and shapes.

    Args:
        cell: Its cell.
        input_size: Numbers in its input.
        hidden_size: Units.
        proj_size: Width of the projected output; 0 for none.
        bias: Whether linear maps have biases.

    Returns:
        Shapes by name.
    """
    found = {"weight_ih": (len(cell.inputs) * hidden_size, input_size)} if cell.inputs else {}
    for group in cell.groups:
        width = (proj_size or hidden_size) if group.state == cell.output else hidden_size
        found[f"weight_{group.name}"] = (len(group.gates) * hidden_size, width)
    if bias:
        found |= {"bias" + name[6:]: (shape[0],) for name, shape in found.items()}
    if cell.projection is not None:
        found["weight_hr"] = (proj_size, hidden_size)
    return found | {vector.name: (hidden_size,) for vector in cell.vectors}
