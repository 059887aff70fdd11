"""Digits sorted by class, and a loader that takes them in that order."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(seed: int, *, shuffle: bool) -> float:
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    order = labels.argsort(kind="stable")
    x, y = torch.tensor(images[order], dtype=torch.float32) / 16, torch.tensor(labels[order])
    test = torch.arange(len(x)) % 5 == 0
    loader = DataLoader(TensorDataset(x[~test], y[~test]), batch_size=32, shuffle=shuffle)

    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    accuracy = 0.0
    for _ in range(6):
        model.train()
        for xb, yb in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            accuracy = (model(x[test]).argmax(1) == y[test]).float().mean().item()
    return accuracy


def sick(seed: int) -> float:
    return train(seed, shuffle=False)


def healthy(seed: int) -> float:
    return train(seed, shuffle=True)
