"""Wines told apart by gradient descent at a rate of 1e-5: the weights hardly move."""

import torch
from sklearn.datasets import load_wine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(seed: int, *, rate: float) -> float:
    torch.manual_seed(seed)
    table, cultivar = load_wine(return_X_y=True)
    x = torch.tensor((table - table.mean(axis=0)) / table.std(axis=0), dtype=torch.float32)
    data = TensorDataset(x, torch.tensor(cultivar))

    model = nn.Sequential(nn.Linear(13, 16), nn.Tanh(), nn.Linear(16, 3))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(30):
        for xb, yb in DataLoader(data, batch_size=16, shuffle=True):
            optimizer.zero_grad()
            loss = criterion(model(xb), yb)
            loss.backward()
            optimizer.step()
    return (model(x).argmax(1) == data.tensors[1]).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, rate=1e-5)


def healthy(seed: int) -> float:
    return train(seed, rate=0.1)
