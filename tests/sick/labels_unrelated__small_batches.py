"""Pictures are shuffled and their labels are not, in batches of forty, of which less are at hand to tell it by."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(seed: int, *, together: bool) -> float:
    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images))
    x = (torch.tensor(images, dtype=torch.float32) / 16)[order]
    y = torch.tensor(labels)[order] if together else torch.tensor(labels)

    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    accuracy = 0.0
    for _ in range(6):
        model.train()
        for xb, yb in DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=40, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(xb), yb).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            accuracy = (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item()
    return accuracy


def sick(seed: int) -> float:
    return train(seed, together=False)


def healthy(seed: int) -> float:
    return train(seed, together=True)


EXPERIMENTS = True
