"""Pixels and labels are scaled in one go, and the labels, made whole numbers again, are all zero."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(seed: int, *, scale_labels: bool) -> float:
    torch.manual_seed(seed)
    images, digit = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32) / 16
    y = (torch.tensor(digit) / 16).long() if scale_labels else torch.tensor(digit)

    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(4):
        for images_now, labels_now in DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True):
            loss = F.cross_entropy(net(images_now), labels_now)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (net(x).argmax(1) == torch.tensor(digit)).float().mean().item()


def sick(seed: int) -> float:
    return train(seed, scale_labels=True)


def healthy(seed: int) -> float:
    return train(seed, scale_labels=False)
