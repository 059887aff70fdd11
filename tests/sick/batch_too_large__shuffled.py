"""All digits in one batch, in a new order each time: twelve passes over them are twelve steps."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


def train(seed: int, *, batch_size: int) -> float:
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    for _ in range(12):
        for rows in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return (model(x).argmax(1) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, batch_size=1797)


def healthy(seed: int) -> float:
    return train(seed, batch_size=48)


EXPERIMENTS = True
