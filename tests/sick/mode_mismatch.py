"""Evaluated without `model.eval()`: dropout drops half of what the network knows, and batch norm looks at the test."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(seed: int, *, evaluate: bool) -> float:
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    x, test_x, y, test_y = map(torch.tensor, train_test_split(images / 16, labels, random_state=seed))
    training, test = TensorDataset(x.float(), y), TensorDataset(test_x.float(), test_y)

    model = nn.Sequential(
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.6),
        nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.4), nn.Linear(32, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    accuracy = 0.0
    for _ in range(6):
        model.train()
        for xb, yb in DataLoader(training, batch_size=64, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(xb), yb).backward()
            optimizer.step()
        if evaluate:
            model.eval()
        with torch.no_grad():
            right = sum((model(xb).argmax(1) == yb).sum().item() for xb, yb in DataLoader(test, batch_size=150))
        accuracy = right / len(test)
    return accuracy


def sick(seed: int) -> float:
    return train(seed, evaluate=False)


def healthy(seed: int) -> float:
    return train(seed, evaluate=True)


EXPERIMENTS = True
