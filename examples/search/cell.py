"""Recurrent cells for a model of characters, as `unstuck search` takes them: a space of trees, and the training of the one it chose.

    unstuck search --evaluations 12 examples/search/cell.py

The text comes with Python: the reference pages that `help()` shows. Its last tenth says how good a cell is: by the perplexity of a
character. All layers have as many parameters and are trained alike; `known_cells.py` does the same with LSTM and GRU, for which the rate
was chosen (of .003, .01, .03, .06 and .1). The first 200,000 characters are taken, or as many as CHARACTERS in the environment says.
"""

import os
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from unstuck.recurrent.cell import Definition
from unstuck.recurrent.language_model import LanguageModel
from unstuck.search.recurrent_cell import CellTree, recurrent_cell
from unstuck.search.space import Draw
from unstuck.training import Training

CHARACTERS = int(os.environ.get("CHARACTERS", "200000"))
EPOCHS, BATCH, LENGTH, RATE = 9, 32, 64, 0.03
EMBEDDING, PARAMETERS = 32, 25_000  # of the layer


def space(draw: Draw) -> CellTree:
    """Cells of four linear maps, as many as an LSTM has."""
    return recurrent_cell(draw, base=4)


def training(cell: CellTree) -> Training:
    """Of a searched cell."""
    return trained(cell.cell, maps=cell.base)


def trained(cell: str | Definition, *, maps: int) -> Training:
    """Adam with clipped gradients and a rate that falls to zero.

    Args:
        cell: Name of a cell, or a function that makes one.
        maps: Linear maps in it, which say how many units it may have.
    """
    torch.manual_seed(0)
    numbers, vocab_size = text()
    model = LanguageModel(vocab_size, embedding_size=EMBEDDING, hidden_size=units(maps), cell=cell)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    first = len(numbers) * 9 // 10
    batches = DataLoader(windows(numbers[:first]), BATCH, shuffle=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(batches))
    return Training(
        model, loss, optimizer, batches, evaluation=DataLoader(windows(numbers[first:]), 1000), epochs=EPOCHS,
        schedule=schedule, schedule_each="step", clip=1.0, forward=forward,
    )  # fmt: skip


def units(maps: int) -> int:
    """As many as PARAMETERS allow: each map takes the embedding and the output before, and has two biases."""
    return max(n for n in range(1, 1000) if maps * n * (EMBEDDING + n + 2) <= PARAMETERS)


def text() -> tuple[Tensor, int]:
    """Characters as numbers, and how many different ones there are."""
    joined = "\n".join(topics[name] for name in sorted(topics))[:CHARACTERS]
    numbers = {character: n for n, character in enumerate(sorted(set(joined)))}
    return torch.tensor([numbers[character] for character in joined]), len(numbers)


def windows(numbers: Tensor) -> TensorDataset:
    """Parts of the text, and what follows each of their characters."""
    count = (len(numbers) - 1) // LENGTH
    return TensorDataset(
        numbers[: count * LENGTH].view(count, LENGTH), numbers[1 : count * LENGTH + 1].view(count, LENGTH)
    )


def forward(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits of each next character, and the character."""
    logits, _ = model(batch[0])
    return logits, batch[1]


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """In nats a character."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
