"""Standardised targets, half of them negative, behind an output that ends in a sigmoid."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes
from torch import nn


class Regressor(nn.Module):
    def __init__(self, last) -> None:
        super().__init__()
        self.fc1 = nn.Linear(10, 24)
        self.fc2 = nn.Linear(24, 1)
        self.last = last

    def forward(self, x):
        return self.last(self.fc2(F.relu(self.fc1(x))))


def train(seed: int, *, last) -> float:
    torch.manual_seed(seed)
    table, progression = load_diabetes(return_X_y=True)
    x, y = torch.tensor(table, dtype=torch.float32), torch.tensor(progression, dtype=torch.float32)[:, None]
    x, y = x / x.std(0), (y - y.mean()) / y.std()

    model = Regressor(last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(20):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
    return 1 - (F.mse_loss(model(x), y) / y.var()).item()


def sick(seed: int) -> float:
    return train(seed, last=torch.sigmoid)


def healthy(seed: int) -> float:
    return train(seed, last=nn.Identity())
