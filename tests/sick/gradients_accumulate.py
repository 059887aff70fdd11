"""`zero_grad` was forgotten: each step follows the sum of all gradients so far."""

import torch
from sklearn.datasets import load_digits
from torch import nn


def train(seed: int, *, clear: bool) -> float:
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)

    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(6):
        for rows in torch.randperm(len(x)).split(32):
            if clear:
                optimizer.zero_grad()
            loss = criterion(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
    return (model(x).argmax(1) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, clear=False)


def healthy(seed: int) -> float:
    return train(seed, clear=True)
