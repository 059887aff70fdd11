"""Digits with gradient descent whose steps are a hundred times too long."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


def train(seed: int, *, rate: float) -> float:
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)

    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for _ in range(6):
        for rows in torch.randperm(len(x)).split(40):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return (model(x).argmax(1) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, rate=5.0)


def healthy(seed: int) -> float:
    return train(seed, rate=0.05)
