"""Gradient descent on all samples at once with long steps, until the walls of the valley are as steep as they bear."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes
from torch import nn


def train(seed: int, *, samples: int, batch_size: int, rate: float) -> float:
    torch.manual_seed(seed)
    table, progression = load_diabetes(return_X_y=True)
    x, y = torch.tensor(table, dtype=torch.float32), torch.tensor(progression, dtype=torch.float32)[:, None]
    x, y = x / x.std(0), (y - y.mean()) / y.std()
    order = torch.randperm(len(x))
    x, y = x[order], y[order]

    model = nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(400):
        rows = torch.randperm(samples)[:batch_size]
        loss = F.mse_loss(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return 1 - (F.mse_loss(model(x[300:]), y[300:]) / y[300:].var()).item()


def sick(seed: int) -> float:
    return train(seed, samples=60, batch_size=60, rate=0.15)


def healthy(seed: int) -> float:
    return train(seed, samples=300, batch_size=30, rate=0.02)


EXPERIMENTS = True
NOTE = True
