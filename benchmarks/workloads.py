"""The trainings that `overhead.py` measures on: data are drawn beforehand, so that a step is the network's alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

NUM_BATCHES = 32


@dataclass(frozen=True)
class Training:
    """A training about to begin, made anew for each block."""

    model: nn.Module
    batches: Callable[[], Iterator[Any]]


def mlp(device: torch.device) -> Training:
    """4 linear layers with ReLU, 150,794 parameters, batch 64."""
    sizes = [64, 256, 256, 256]
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return _training(nn.Sequential(*layers, nn.Linear(256, 10)), device, batch_size=64, shape=(64,))


def mlp_loader(device: torch.device) -> Training:
    """The same behind a shuffling DataLoader without workers."""
    made = mlp(device)
    inputs, targets = zip(*itertools.islice(made.batches(), NUM_BATCHES), strict=True)
    loader = DataLoader(TensorDataset(torch.cat(inputs), torch.cat(targets)), batch_size=64, shuffle=True)
    return Training(made.model, lambda: itertools.chain.from_iterable(iter(loader) for _ in itertools.count()))


def cnn(device: torch.device) -> Training:
    """2 convolutions with ReLU and pooling, 1 linear layer, 20,490 parameters, batch 16 of 28 x 28."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 10),
    )  # fmt: skip
    return _training(model, device, batch_size=16, shape=(1, 28, 28))


class TinyTransformer(nn.Module):
    """Embedding, 2 encoder layers of width 256 with dropout, and a head over 1000 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, 256)
        self.place = nn.Parameter(torch.zeros(64, 256))
        self.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True), 2)
        self.head = nn.Linear(256, 1000)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(tokens) + self.place)).flatten(0, 1)


def transformer(device: torch.device) -> Training:
    """2-layer transformer, 2,108,904 parameters, batch 8 of 64 tokens."""
    model = TinyTransformer().to(device)
    made = [
        (torch.randint(1000, (8, 64)).to(device), torch.randint(1000, (512,)).to(device)) for _ in range(NUM_BATCHES)
    ]
    return Training(model, lambda: itertools.cycle(made))


def _training(model: nn.Module, device: torch.device, *, batch_size: int, shape: tuple[int, ...]) -> Training:
    centres = torch.randn(10, *shape)
    targets = [torch.randint(10, (batch_size,)) for _ in range(NUM_BATCHES)]
    made = [((centres[y] + torch.randn(batch_size, *shape)).to(device), y.to(device)) for y in targets]
    return Training(model.to(device), lambda: itertools.cycle(made))


WORKLOADS: dict[str, Callable[[torch.device], Training]] = {
    "mlp": mlp,
    "mlp-loader": mlp_loader,
    "cnn": cnn,
    "transformer": transformer,
}
