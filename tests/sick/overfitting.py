"""Sixty patients, a third of them mislabelled, learned by heart, while others are judged worse pass by pass."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer
from torch import nn

VALIDATION = 200


def train(seed: int, *, samples: int, epochs: int, width: int) -> float:
    torch.manual_seed(seed)
    table, labels = load_breast_cancer(return_X_y=True)
    x, y = torch.tensor(table, dtype=torch.float32), torch.tensor(labels, dtype=torch.float32)[:, None]
    x = (x - x.mean(0)) / x.std(0)
    order = torch.randperm(len(x))
    x, truth = x[order], y[order]
    y = torch.where(torch.rand(len(x), 1) < 0.3, 1 - truth, truth)
    val_x, val_y, val_truth = x[:VALIDATION], y[:VALIDATION], truth[:VALIDATION]
    x, y = x[VALIDATION:], y[VALIDATION:]

    net = nn.Sequential(nn.Linear(30, width), nn.ReLU(), nn.Linear(width, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    accuracy = 0.0
    for _ in range(epochs):
        net.train()
        for rows in torch.randperm(samples).split(20):
            optimizer.zero_grad()
            loss = F.binary_cross_entropy_with_logits(net(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            out = net(val_x)
            print(f"validation loss {F.binary_cross_entropy_with_logits(out, val_y):.3f}")
            accuracy = ((out > 0) == (val_truth > 0.5)).float().mean().item()
    return accuracy


def sick(seed: int) -> float:
    return train(seed, samples=60, epochs=25, width=200)


def healthy(seed: int) -> float:
    return train(seed, samples=360, epochs=5, width=8)
