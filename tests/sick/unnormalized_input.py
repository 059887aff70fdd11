"""Wines by their measurements as they are in the table, from 0.1 to 1680."""

import torch
from sklearn.datasets import load_wine
from torch import nn


def train(seed: int, *, standardise: bool) -> float:
    torch.manual_seed(seed)
    table, labels = load_wine(return_X_y=True)
    if standardise:
        table = (table - table.mean(axis=0)) / table.std(axis=0)
    x, y = torch.tensor(table, dtype=torch.float32), torch.tensor(labels)

    model = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 3))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for _ in range(25):
        for rows in torch.randperm(len(x)).split(18):
            loss = criterion(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (model(x).argmax(1) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, standardise=False)


def healthy(seed: int) -> float:
    return train(seed, standardise=True)
