"""Attention: a mean of the encoder's states, weighted by how well each fits a query.

    memory = attention.project(states, mask)           # once for each source: keys of the states
    context, weights = attention(queries, memory)      # at each step of a decoder, or for all steps at once

Padded positions get a weight of exactly zero, whatever stands there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unstuck.errors import MisuseError


class Memory(NamedTuple):
    """What is attended to. Its tensors have the batch first, so that it can be part of a state in decoding.

    Attributes:
        keys: What queries are compared with, shape `(batch, source, key)`.
        states: What contexts are made of, shape `(batch, source, memory)`.
        mask: True at real positions, False at padded ones, shape `(batch, source)`.
    """

    keys: Tensor
    states: Tensor
    mask: Tensor


def positions(lengths: Int[Tensor, " batch"], time: int) -> Bool[Tensor, "batch time"]:
    """A mask that is True at the first positions of each row, as many as its length.

    Example:
        >>> positions(torch.tensor([1, 3]), 3).int().tolist()
        [[1, 0, 0], [1, 1, 1]]
    """
    return torch.arange(time, device=lengths.device) < lengths[:, None]


class Additive(nn.Module):
    """Scores by a layer of tanh units: `v · tanh(W query + U state)`.

    Args:
        query_size: Of a query.
        memory_size: Of a state.
        hidden_size: How many tanh units.

    Source:
        Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate", appendix A.1.2; with one bias.
    """

    def __init__(self, query_size: int, memory_size: int, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, hidden_size, bias=False)
        self.key = nn.Linear(memory_size, hidden_size)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def project(self, states: Float[Tensor, "batch source memory"], mask: Bool[Tensor, "batch source"]) -> Memory:
        """Keys of the states; each row needs a real position."""
        return _memory(self.key, states, mask)

    def forward(
        self, queries: Float[Tensor, "batch target query"], memory: Memory
    ) -> tuple[Float[Tensor, "batch target memory"], Float[Tensor, "batch target source"]]:
        """Contexts, and the weights they were made with."""
        hidden = torch.tanh(self.query(queries)[:, :, None] + memory.keys[:, None])
        return _read(self.score(hidden)[..., 0], memory)


class General(nn.Module):
    """Scores by a bilinear form: `query · W state`.

    Args:
        query_size: Of a query.
        memory_size: Of a state.

    Source:
        Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", equation 8, "general".
    """

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.key = nn.Linear(memory_size, query_size, bias=False)

    def project(self, states: Float[Tensor, "batch source memory"], mask: Bool[Tensor, "batch source"]) -> Memory:
        """Keys of the states; each row needs a real position."""
        return _memory(self.key, states, mask)

    def forward(
        self, queries: Float[Tensor, "batch target query"], memory: Memory
    ) -> tuple[Float[Tensor, "batch target memory"], Float[Tensor, "batch target source"]]:
        """Contexts, and the weights they were made with."""
        return _read(queries @ memory.keys.transpose(1, 2), memory)


class Dot(nn.Module):
    """Scores by the product `query · state`; both have the same size, and nothing is learned.

    Source:
        Luong et al. 2015, equation 8, "dot".
    """

    def project(self, states: Float[Tensor, "batch source memory"], mask: Bool[Tensor, "batch source"]) -> Memory:
        """The states are their own keys; each row needs a real position."""
        return _memory(nn.Identity(), states, mask)

    def forward(
        self, queries: Float[Tensor, "batch target memory"], memory: Memory
    ) -> tuple[Float[Tensor, "batch target memory"], Float[Tensor, "batch target source"]]:
        """Contexts, and the weights they were made with."""
        return _read(queries @ memory.keys.transpose(1, 2), memory)


def _memory(key: nn.Module, states: Tensor, mask: Tensor) -> Memory:
    states = _without_padding(states, mask)
    return Memory(key(states), states, mask)


def _without_padding(states: Tensor, mask: Tensor) -> Tensor:
    if not bool(mask.any(dim=1).all()):
        raise MisuseError(
            "a row of the mask is False throughout: there is nothing to attend to; leave out empty inputs"
        )
    return states.masked_fill(~mask[:, :, None], 0)


def _read(scores: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
    weights = scores.masked_fill(~memory.mask[:, None], -torch.inf).softmax(dim=2)
    return weights @ memory.states, weights
