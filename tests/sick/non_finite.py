"""Digits, each pixel standardised by its own deviation: corner pixels never vary, and 0 / 0 is NaN."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(seed: int, *, epsilon: float) -> float:
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32), torch.tensor(labels)
    x = (x - x.mean(0)) / (x.std(0) + epsilon)

    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(4):
        for xb, yb in DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(xb), yb).backward()
            optimizer.step()
    return (model(x).argmax(1) == y).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, epsilon=0.0)


def healthy(seed: int) -> float:
    return train(seed, epsilon=1e-6)
