"""A loss summed over the batch, at a rate that suits its mean."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(seed: int, *, reduction: str) -> float:
    torch.manual_seed(seed)
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    model = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))
    criterion = nn.CrossEntropyLoss(reduction=reduction)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(7):
        for inputs, targets in DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True):
            optimizer.zero_grad()
            criterion(model(inputs), targets).backward()
            optimizer.step()
    return (model(x).argmax(1) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, reduction="sum")


def healthy(seed: int) -> float:
    return train(seed, reduction="mean")
