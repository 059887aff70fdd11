"""A weight decay of 1 pulls the weights to zero faster than the digits can pull them up."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


def train(seed: int, *, weight_decay: float) -> float:
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=weight_decay)
    for _ in range(10):
        for rows in torch.randperm(len(x)).split(45):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
    return (model(x).argmax(1) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, weight_decay=1.0)


def healthy(seed: int) -> float:
    return train(seed, weight_decay=1e-4)
