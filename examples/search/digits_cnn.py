"""Convolutional networks for handwritten digits, as `unstuck search` takes them: a space, and the training of what it chose.

    unstuck search --evaluations 12 examples/search/digits_cnn.py

Digits of 8 x 8 pixels from 800 pictures; another 500, by other hands, say how good a network is, and the rest is the test. Where MNIST in
the environment names a folder with MNIST's idx files, it is MNIST at half its size, 14 x 14: 5000 pictures to train on, 5000 to choose by.
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from unstuck.search.convolutional import ConvolutionalNet, convolutional
from unstuck.search.space import Draw
from unstuck.training import Training

MNIST = os.environ.get("MNIST", "")
EPOCHS, BATCH, RATE = 9, 50, 3e-3


def space(draw: Draw) -> ConvolutionalNet:
    """Two to four small layers, each of which sees any of those before it."""
    return convolutional(
        draw, layers=(2, 4), heights=(1, 3, 5), widths=(1, 3, 5), filters=(8, 12, 16, 24), strides=(1, 2)
    )


def training(net: ConvolutionalNet) -> Training:
    """Adam, with a rate that falls to zero."""
    torch.manual_seed(0)
    model = net.module(channels=1, classes=10)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    train, validation, _ = pictures()
    batches = DataLoader(TensorDataset(*train), BATCH, shuffle=True)
    return Training(
        model, nn.functional.cross_entropy, optimizer, batches, evaluation=DataLoader(TensorDataset(*validation), 500),
        epochs=EPOCHS, schedule=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(batches)), schedule_each="step",
    )  # fmt: skip


def pictures() -> list[tuple[Tensor, Tensor]]:
    """To train on, to choose by and to test: pictures `(count, 1, height, width)` of mean 0 and spread 1 or so, and what they show."""
    if MNIST:
        train, test = mnist("train", 10_000), mnist("t10k", 10_000)
        return [tuple(part[:5000] for part in train), tuple(part[5000:] for part in train), test]  # pyright: ignore[reportReturnType]
    table = np.loadtxt(Path(__file__).parents[1] / "data" / "digits.csv.gz", delimiter=",", dtype=np.float32)
    x, y = (torch.tensor(table[:, :64]).reshape(-1, 1, 8, 8) - 4.9) / 6.0, torch.tensor(table[:, 64]).long()
    return [(x[:800], y[:800]), (x[800:1300], y[800:1300]), (x[1300:], y[1300:])]


def mnist(part: str, count: int) -> tuple[Tensor, Tensor]:
    """The first pictures of a part of MNIST, at half their size."""
    x = np.fromfile(Path(MNIST) / f"{part}-images-idx3-ubyte", np.uint8, offset=16)[: count * 784]
    y = np.fromfile(Path(MNIST) / f"{part}-labels-idx1-ubyte", np.uint8, offset=8)[:count]
    halved = nn.functional.avg_pool2d(torch.tensor(x.reshape(-1, 1, 28, 28), dtype=torch.float32), 2)
    return (halved - 33.3) / 73.0, torch.tensor(y).long()
