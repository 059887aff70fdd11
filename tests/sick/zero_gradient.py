"""Malign or benign, by a softmax over the only output: it is 1 whatever the input, and has no slope."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler
from torch import nn


class Classifier(nn.Module):
    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.hidden = nn.Linear(30, 16)
        self.output = nn.Linear(16, 1)
        self.last = last

    def forward(self, x):
        return self.last(self.output(F.relu(self.hidden(x)))).squeeze(1)


def train(seed: int, *, last: nn.Module) -> float:
    torch.manual_seed(seed)
    table, labels = load_breast_cancer(return_X_y=True)
    x = torch.tensor(StandardScaler().fit_transform(table), dtype=torch.float32)
    y = torch.tensor(labels, dtype=torch.float32)

    model = Classifier(last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    criterion = nn.BCELoss()
    for _ in range(10):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            loss = criterion(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
    return ((model(x) > 0.5) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, last=nn.Softmax(dim=1))


def healthy(seed: int) -> float:
    return train(seed, last=nn.Sigmoid())
